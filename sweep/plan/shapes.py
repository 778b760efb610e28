"""Model shapes from a width, or from a target such as a number of parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields

from sweep.config import ArchitectureConfig, DecoderConfig, ModelConfig
from sweep.errors import InputError


def shape_of_width(d_model: int, architecture: ArchitectureConfig, vocab_size: int) -> ModelConfig:
    """Return the decoder of width `d_model` in the family `architecture`.

    Depth is `n_layers`, or d_model / aspect_ratio rounded, at least 1 (Kaplan et al. 2020, section 3.1: loss
    depends little on it); heads are `n_heads`, or d_model / head_dim; d_ff = mlp_ratio · d_model, rounded to
    a multiple of d_ff_multiple.

    Raises:
        InputError: The heads do not divide the width, or n_kv_heads does not divide the heads.
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
        **{field.name: getattr(a, field.name) for field in fields(DecoderConfig)},
        vocab_size=vocab_size,
        d_model=d_model,
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=a.n_kv_heads or n_heads,
        d_ff=max(1, round(a.mlp_ratio * d_model / a.d_ff_multiple)) * a.d_ff_multiple,
    )


def width_step(architecture: ArchitectureConfig) -> int:
    """Return the step between the widths of a family.

    It is a multiple of `width_multiple` that gives whole heads of an even size or, with a fixed head_dim, a
    number of heads that `n_kv_heads` divides.
    """
    a = architecture
    heads = 2 * (a.n_heads or 1) if a.head_dim is None else a.head_dim * (a.n_kv_heads or 1)
    return math.lcm(a.width_multiple, heads)


def nearest_shape(
    measure: Callable[[ModelConfig], float], target: float, architecture: ArchitectureConfig, vocab_size: int
) -> ModelConfig:
    """Return the decoder of the family with `measure(model)` nearest to `target` in ratio.

    `measure` must increase with the width. With `lambda model: n_params(model).total` the result has about
    `target` parameters.
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
