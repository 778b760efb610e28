"""The family of decoders an experiment draws its sizes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict

from sweep.config.values import STRICT, Activation, Count, Norm, Positions, Positive
from sweep.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchitectureConfig:
    """The family of decoders an experiment draws its sizes from.

    Depth is `n_layers`, or d_model / `aspect_ratio`; heads are `n_heads`, or d_model / `head_dim`. What the
    keys it shares with `ModelConfig` mean is said there.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    seq_len: Count
    n_layers: Count | None
    aspect_ratio: Positive | None
    n_heads: Count | None
    head_dim: Count | None
    n_kv_heads: Count | None  # null: as many as heads
    width_multiple: Count  # widths found from a target N are multiples of this
    mlp_ratio: Positive  # d_ff / d_model ...
    d_ff_multiple: Count  # ... rounded to a multiple of this
    norm: Norm
    norm_eps: Positive
    positions: Positions
    rope_base: Positive
    activation: Activation
    bias: bool
    tied: bool
    qk_norm: bool
    qk_gain: Positive
    embedding_scale: Positive
    init_std: Positive | None = None

    def __post_init__(self) -> None:
        for one, other in (("n_layers", "aspect_ratio"), ("n_heads", "head_dim")):
            if (getattr(self, one) is None) == (getattr(self, other) is None):
                raise InputError(
                    f"model.{one}={getattr(self, one)} and model.{other}={getattr(self, other)}: "
                    f"set exactly one of the two and the other to null"
                )
