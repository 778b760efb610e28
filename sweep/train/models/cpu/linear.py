"""Linear maps and their pullbacks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sweep.train.models.gemm import add_transposed_times, affine, bf16_copy, times

Pullback = Callable[[Tensor], Tensor]


def linear(
    x: Tensor, layer: nn.Linear, *, bf16: bool, residual: Tensor | None = None
) -> tuple[Tensor, Pullback]:
    """y = x W^T + b + r; dx = g W, dW = g^T x, db = Σ g over rows. The residual's gradient is g itself.

    Shapes (n, k) and (n, m) to (n, m). With `bf16` the operands of all three products are rounded to bf16:
    y is bf16 where nothing was added to it, and dx is.
    """
    weight, bias = layer.weight, layer.bias
    operand, used = (x.to(torch.bfloat16), bf16_copy(weight)) if bf16 else (x, weight)

    def pull(g: Tensor) -> Tensor:
        if bias is not None:
            add_gradient(bias, g.sum(0))
        if bf16:
            g = g.to(torch.bfloat16)
        add_transposed_times(gradient(weight), g, operand)
        return times(g, used)

    return affine(operand, used, bias, residual), pull


def gradient(parameter: Tensor) -> Tensor:
    """The gradient a parameter holds: zeros to begin with."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def add_gradient(parameter: Tensor, part: Tensor) -> None:
    """Add a part to the gradient that a parameter holds."""
    gradient(parameter).add_(part)
