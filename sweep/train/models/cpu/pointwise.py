"""Norms and activations and their pullbacks, each in few sweeps over memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sweep.train.models.cpu.linear import Pullback, add_gradient
from sweep.train.models.layers import LayerNorm, RMSNorm

GELU_LINEAR = 2 * math.sqrt(2 / math.pi)
GELU_CUBIC = 0.044715 * GELU_LINEAR
"""The tanh form of GELU is x · sigmoid(GELU_LINEAR x + GELU_CUBIC x³): (1 + tanh u) / 2 = sigmoid(2u)."""


def rms_norm(x: Tensor, norm: RMSNorm) -> tuple[Tensor, Pullback]:
    """y = x r gain, r = (mean(x²) + eps)^-½; dx = r (h - x r mean(h x r)), h = g gain; dgain = Σ g x r."""
    scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    scale.square_().div_(x.size(-1)).add_(norm.eps).rsqrt_()
    unit = x * scale

    def pull(g: Tensor) -> Tensor:
        weighted = g * unit
        add_gradient(norm.gain, weighted.sum(0))
        projection = torch.mv(weighted, norm.gain).unsqueeze_(-1).div_(unit.size(-1))
        return g.mul_(norm.gain).addcmul_(unit, projection, value=-1).mul_(scale)

    return unit * norm.gain, pull


def layer_norm(x: Tensor, norm: LayerNorm) -> tuple[Tensor, Pullback]:
    """torch's own (Ba et al. 2016), forward and backward."""
    shape, gain, bias = x.shape[-1:], norm.gain, norm.bias
    y, mean, rstd = torch.native_layer_norm(x, shape, gain, bias, norm.eps)

    def pull(g: Tensor) -> Tensor:
        wanted = [True, True, bias is not None]
        dx, d_gain, d_bias = torch.ops.aten.native_layer_norm_backward(
            g, x, shape, mean, rstd, gain, bias, wanted
        )
        add_gradient(gain, d_gain)
        if bias is not None:
            add_gradient(bias, d_bias)
        return dx

    return y, pull


def norm(x: Tensor, module: nn.Module) -> tuple[Tensor, Pullback]:
    """The norm a module says: shape (n, d) to the same."""
    part: Callable[..., tuple[Tensor, Pullback]] = NORMS[type(module)]
    return part(x, module)


def relu2(x: Tensor) -> tuple[Tensor, Pullback]:
    """y = max(x, 0)²; dx = 2 max(x, 0) g."""
    positive = x.relu()
    return positive * positive, lambda g: (g * positive).mul_(2)


def gelu(x: Tensor) -> tuple[Tensor, Pullback]:
    """The tanh form: y = x s, s = sigmoid(u), u = a x + b x³; dx = g s (1 + x (1 - s)(a + 3 b x²))."""
    s = (x * x).mul_(GELU_CUBIC).add_(GELU_LINEAR).mul_(x).sigmoid_()

    def pull(g: Tensor) -> Tensor:
        slope = (x * x).mul_(3 * GELU_CUBIC).add_(GELU_LINEAR).mul_(x)
        return slope.addcmul_(slope, s, value=-1).add_(1).mul_(s).mul_(g)

    return x * s, pull


def gelu_exact(x: Tensor) -> tuple[Tensor, Pullback]:
    """x times the normal distribution function: torch's own, which takes bf16 as well."""
    return F.gelu(x), lambda g: torch.ops.aten.gelu_backward(g, x)


def gated_silu(gate: Tensor, up: Tensor) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, Tensor]]]:
    """y = silu(gate) · up (Shazeer 2020, equation 6); the pullback gives the gradients of both."""
    opened = F.silu(gate)

    def pull(g: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ops.aten.silu_backward(g * up, gate), g.mul_(opened)

    return opened * up, pull


NORMS: dict[type[nn.Module], Callable[..., tuple[Tensor, Pullback]]] = {
    RMSNorm: rms_norm,
    LayerNorm: layer_norm,
}
ACTIVATIONS: dict[str, Callable[[Tensor], tuple[Tensor, Pullback]]] = {
    "gelu": gelu,
    "gelu_exact": gelu_exact,
    "relu2": relu2,
}
TAKES_BF16: frozenset[Any] = frozenset({"gelu_exact"})
"""Activations that compute in fp32 and round once, of bf16 as of fp32: casts around them change nothing."""
