"""Decoder architecture: the fields shared by a family and its models, and the family's rules for sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict

from sweep.config.values import STRICT, Activation, Count, Flag, Norm, Positions, Positive
from sweep.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderConfig:
    """Fields of a decoder that do not depend on its size, shared by a family and its models."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    seq_len: Count = 1024
    """Sequence length in training and evaluation. Unit: tokens."""
    norm: Norm = "rms"
    """Normalisation before attention, before the MLP and before the head."""
    norm_eps: Positive = 2.0**-23
    """Added to the mean square (rms) or the variance (layer) under the root; the default is the resolution of
    fp32. Unit: squared activation."""
    positions: Positions = "rope"
    """Positional encoding: rotary, or a learned table of seq_len rows."""
    rope_base: Positive = 10000.0
    """Base of the rotary frequencies. Unit: ratio."""
    activation: Activation = "relu2"
    """Activation of the MLP; swiglu is gated and has a third matrix."""
    bias: Flag = False
    """Biases on the linear maps of the blocks and on layer norms. RMS norms and the head never have one."""
    tied: Flag = False
    """Use the token table as the head."""
    qk_norm: Flag = False
    """Divide queries and keys by their root mean square."""
    qk_gain: Positive = 1.0
    """Factor on the normalised queries and keys. Unit: ratio."""
    embedding_scale: Positive = 1.0
    """Root mean square of the embedded tokens at initialisation. Unit: activation."""
    init_std: Positive | None = None
    """Standard deviation of matrices and tables at initialisation, divided by sqrt(2 n_layers) where they
    write to the residual stream; 0.02 in nanoGPT. null: by width (docs/science.md). Unit: weight."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchitectureConfig(DecoderConfig):
    """A family of decoders: what all sizes have in common, and how depth, heads and MLP follow the width."""

    n_layers: Count | None = None
    """Depth at every width; null: by aspect_ratio. Unit: layers."""
    aspect_ratio: Positive | None = 64.0
    """d_model / n_layers, from which the depth is rounded; null: by n_layers. Unit: ratio."""
    n_heads: Count | None = None
    """Query heads at every width; null: by head_dim. Unit: heads."""
    head_dim: Count | None = 64
    """Width of a head, from which n_heads = d_model / head_dim; null: by n_heads. Unit: channels."""
    n_kv_heads: Count | None = None
    """Heads of keys and values, each shared by neighbouring query heads; null: as many as query heads.
    Unit: heads."""
    width_multiple: Count = 64
    """Widths found from a target size are multiples of this. Unit: channels."""
    mlp_ratio: Positive = 4.0
    """d_ff / d_model before rounding. Unit: ratio."""
    d_ff_multiple: Count = 1
    """d_ff is rounded to a multiple of this. Unit: channels."""

    def __post_init__(self) -> None:
        for one, other in (("n_layers", "aspect_ratio"), ("n_heads", "head_dim")):
            if (getattr(self, one) is None) == (getattr(self, other) is None):
                raise InputError(
                    f"model.{one}={getattr(self, one)} and model.{other}={getattr(self, other)}: "
                    f"set exactly one of the two and the other to null"
                )
