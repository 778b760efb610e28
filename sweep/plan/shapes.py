"""Shapes of decoders: from a width, or a target number of parameters, to a complete model config."""

from __future__ import annotations

import math
from collections.abc import Callable

from sweep.config import ArchitectureConfig, ModelConfig
from sweep.errors import InputError


def shape_of_width(d_model: int, architecture: ArchitectureConfig, vocab_size: int) -> ModelConfig:
    """The decoder of width `d_model` in this family.

    Depth is `n_layers`, or d_model / aspect_ratio rounded, at least 1 (Kaplan et al. 2020, section 3.1: loss
    depends little on it); heads are `n_heads`, or d_model / head_dim; d_ff = mlp_ratio · d_model, rounded to
    a multiple of d_ff_multiple. Raises InputError when the heads do not divide the width, or n_kv_heads the
    heads.
    """
    a = architecture
    if a.head_dim is not None and d_model % a.head_dim:
        low = max(1, d_model // a.head_dim) * a.head_dim
        raise InputError(
            f"d_model={d_model} does not divide into heads of model.head_dim={a.head_dim}: "
            f"choose a width such as {low} or {low + a.head_dim}"
        )
    n_layers = a.n_layers or max(1, round(d_model / (a.aspect_ratio or 1)))
    n_heads = a.n_heads or d_model // (a.head_dim or 1)
    return ModelConfig(
        vocab_size=vocab_size,
        seq_len=a.seq_len,
        d_model=d_model,
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=a.n_kv_heads or n_heads,
        d_ff=max(1, round(a.mlp_ratio * d_model / a.d_ff_multiple)) * a.d_ff_multiple,
        norm=a.norm,
        norm_eps=a.norm_eps,
        positions=a.positions,
        rope_base=a.rope_base,
        activation=a.activation,
        bias=a.bias,
        tied=a.tied,
        qk_norm=a.qk_norm,
        qk_gain=a.qk_gain,
        embedding_scale=a.embedding_scale,
        init_std=a.init_std,
    )


def width_step(architecture: ArchitectureConfig) -> int:
    """Widths are multiples of this: `width_multiple`, and whatever gives whole heads of an even size.

    With heads of a given size, their number is one that `n_kv_heads` divides.
    """
    a = architecture
    heads = 2 * (a.n_heads or 1) if a.head_dim is None else a.head_dim * (a.n_kv_heads or 1)
    return math.lcm(a.width_multiple, heads)


def nearest_shape(
    measure: Callable[[ModelConfig], float], target: float, architecture: ArchitectureConfig, vocab_size: int
) -> ModelConfig:
    """The decoder of this family whose `measure`, which must grow with the width, is nearest in ratio.

    With `lambda model: n_params(model).total`, the decoder of about `target` parameters.
    """
    step = width_step(architecture)

    def value(multiple: int) -> float:
        return measure(shape_of_width(multiple * step, architecture, vocab_size))

    high = 1
    while value(high) < target:
        high *= 2
    low = max(1, high // 2)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if value(middle) < target else (low, middle)
    nearest = min((low, high), key=lambda multiple: abs(math.log(value(multiple) / target)))
    return shape_of_width(nearest * step, architecture, vocab_size)
