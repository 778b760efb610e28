"""Norms and activations on the CPU, each with a backward pass in few sweeps over memory."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

GELU_LINEAR = 2 * math.sqrt(2 / math.pi)
GELU_CUBIC = 0.044715 * GELU_LINEAR
"""The tanh form of GELU is x · sigmoid(GELU_LINEAR x + GELU_CUBIC x³): (1 + tanh u) / 2 = sigmoid(2u)."""


def rms_norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x²) + eps) · gain over the last dimension: shapes (..., d) and (d,)."""
    return _RMSNorm.apply(x, gain, eps)  # type: ignore[no-untyped-call]


def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0)², any shape."""
    return _SquaredReLU.apply(x)  # type: ignore[no-untyped-call]


def tanh_gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form (Hendrycks & Gimpel 2016, section 2), any shape."""
    return _TanhGELU.apply(x)  # type: ignore[no-untyped-call]


class _RMSNorm(torch.autograd.Function):
    """y = x r gain, r = (mean(x²) + eps)^-½; dx = r (h - x r mean(h x r)), h = g gain; dgain = Σ g x r."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = norm.square_().div_(x.size(-1)).add_(eps).rsqrt_()
        unit = x * scale
        ctx.save_for_backward(unit, gain, scale)
        return unit * gain

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        unit, gain, scale = ctx.saved_tensors
        weighted = grad * unit
        d_gain = weighted.flatten(0, -2).sum(0)
        projection = (weighted @ gain).unsqueeze(-1).div_(unit.size(-1))
        return torch.addcmul(grad * gain, unit, projection, value=-1).mul_(scale), d_gain, None


class _SquaredReLU(torch.autograd.Function):
    """y = max(x, 0)²; dx = 2 max(x, 0) g."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        positive = x.relu()
        ctx.save_for_backward(positive)
        return positive * positive

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        return (grad * positive).mul_(2)


class _TanhGELU(torch.autograd.Function):
    """y = x s, s = sigmoid(u), u = a x + b x³; dx = g s (1 + x (1 - s)(a + 3 b x²))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        s = (x * x).mul_(GELU_CUBIC).add_(GELU_LINEAR).mul_(x).sigmoid_()
        ctx.save_for_backward(x, s)
        return x * s

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, s = ctx.saved_tensors
        slope = (x * x).mul_(3 * GELU_CUBIC).add_(GELU_LINEAR).mul_(x)
        slope.addcmul_(slope, s, value=-1).add_(1).mul_(s)
        return slope.mul_(grad)
