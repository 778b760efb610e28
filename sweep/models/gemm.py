"""Linear maps on the CPU: the fastest matrix product torch carries there, in fp32 or in bf16.

torch sends fp32 products to MKL, which gives CPUs that are not Intel's a slow code path; oneDNN, in the same
wheel, is twice as fast there (docs/performance.md). Which of the two is used depends on the machine and the
sizes alone, never on a timing: the same machine always takes the same path.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

MIN_ONEDNN_MACS = 2**20
"""Multiply-adds from which oneDNN's product is faster than MKL's, its call included; measured on Zen 5."""

_BF16: ContextVar[bool] = ContextVar("bf16_linear_maps", default=False)


@contextlib.contextmanager
def bf16_linear_maps(enabled: bool) -> Iterator[None]:
    """Within, linear maps on the CPU multiply bf16 operands; sums, results and weights stay fp32.

    A CPU without bf16 arithmetic gives the same numbers to rounding, only slowly.
    """
    token = _BF16.set(enabled)
    try:
        yield
    finally:
        _BF16.reset(token)


def is_bf16(device_type: str = "cpu") -> bool:
    """Whether linear maps multiply bf16 operands now: inside `bf16_linear_maps` or torch's autocast."""
    return _BF16.get() if device_type == "cpu" else torch.is_autocast_enabled(device_type)


@functools.cache
def onednn_is_faster() -> bool:
    """Whether fp32 products go to oneDNN: where torch has it, and the CPU is not of MKL's maker."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):  # type: ignore[no-untyped-call]
        return False
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "AuthenticAMD" in cpuinfo.read_text()


def times_transposed(x: Tensor, weight: Tensor) -> Tensor:
    """x @ weight.T: shapes (n, k) and (m, k) to (n, m)."""
    if _suits_onednn(x, x.size(0) * x.size(1) * weight.size(0)):
        return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return x @ weight.t()


def times(grad: Tensor, weight: Tensor) -> Tensor:
    """grad @ weight: shapes (n, m) and (m, k) to (n, k)."""
    return times_transposed(grad, weight.t())


def transposed_times(grad: Tensor, x: Tensor) -> Tensor:
    """grad.T @ x: shapes (n, m) and (n, k) to (m, k), the gradient of a weight; perhaps not contiguous."""
    if not _suits_onednn(x, grad.size(0) * grad.size(1) * x.size(1)):
        return grad.t() @ x
    if grad.size(1) > x.size(1):  # oneDNN copies its second operand: the narrow one
        return times_transposed(x.t(), grad.t()).t()
    return times_transposed(grad.t(), x.t())


def _suits_onednn(x: Tensor, n_macs: int) -> bool:
    on_cpu = x.device.type == "cpu"  # the fused head is a GPU's too, in a machine whose CPU oneDNN suits
    return on_cpu and x.dtype == torch.float32 and n_macs >= MIN_ONEDNN_MACS and onednn_is_faster()


class Linear(nn.Linear):
    """nn.Linear whose products on the CPU are those of this module; elsewhere nn.Linear itself.

    `residual`, if given, is added to the result.
    """

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Shape (..., in_features) to (..., out_features); `residual` has the shape of the result."""
        if x.device.type != "cpu":
            y = super().forward(x)
            return y if residual is None else residual + y
        return linear(x, self.weight, self.bias, residual)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, residual: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias + residual on the CPU: (..., k) and (m, k) to (..., m), in bf16 where asked for."""
    if _BF16.get():
        return _Bf16Linear.apply(x, weight, bf16_copy(weight), bias, residual)  # type: ignore[no-untyped-call]
    return _Linear.apply(x, weight, bias, residual)  # type: ignore[no-untyped-call]


def bf16_copy(weight: Tensor) -> Tensor:
    """A parameter in bf16, cast once between two calls of `weights_changed`: micro-batches share the copy."""
    if weight.device.type != "cpu":
        return weight.to(torch.bfloat16)
    known: tuple[object, Tensor] | None = getattr(weight, "_bf16_copy", None)
    version = (_changes.count, weight._version, weight.data_ptr())
    if known is not None and known[0] == version:
        return known[1]
    copy = weight.detach().bfloat16()
    weight._bf16_copy = (version, copy)  # type: ignore[attr-defined]
    return copy


def weights_changed() -> None:
    """Drop all bf16 copies: fused optimizers write weights without raising their version counters."""
    _changes.count += 1


@dataclass(slots=True)
class _Changes:
    count: int = 0


_changes = _Changes()


class _Linear(torch.autograd.Function):
    """y = x W^T + b + r; dx = g W, dW = g^T x, db = sum of g over rows, dr = g."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None) -> Tensor:
        rows = x.reshape(-1, x.size(-1))
        ctx.save_for_backward(rows, weight)
        ctx.shape, ctx.has_bias, ctx.has_residual = x.shape, bias is not None, residual is not None
        y = _forward(rows, weight, bias, residual)
        return _reshaped(y, *x.shape[:-1], weight.size(0))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        g = grad.reshape(-1, grad.size(-1))
        dx = times(g, weight).view(ctx.shape) if ctx.needs_input_grad[0] else None
        dw = transposed_times(g, rows) if ctx.needs_input_grad[1] else None
        return dx, dw, g.sum(0) if ctx.has_bias else None, grad if ctx.has_residual else None


def _reshaped(y: Tensor, *shape: int) -> Tensor:
    """A product in another shape, which autograd does not take for a view: nothing else refers to it."""
    return torch.ops.aten._unsafe_view(y, shape)


def _forward(rows: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None) -> Tensor:
    """x W^T + b + r, the additions inside oneDNN's product where it makes it."""
    if _suits_onednn(rows, rows.size(0) * rows.size(1) * weight.size(0)):
        if residual is None:
            return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
        other = residual.reshape(-1, residual.size(-1))
        return torch.ops.mkldnn._linear_pointwise.binary(rows, other, weight, bias, "add")
    y = rows @ weight.t() if bias is None else torch.addmm(bias, rows, weight.t())
    return y if residual is None else y.add_(residual.reshape(-1, residual.size(-1)))


class _Bf16Linear(torch.autograd.Function):
    """As `_Linear`, with operands rounded to bf16 in all three products; `half` is the weight's copy."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, half: Tensor, bias: Tensor | None, residual: Tensor | None
    ) -> Tensor:
        rows = x.reshape(-1, x.size(-1)).bfloat16()
        ctx.save_for_backward(rows, half)
        ctx.shape, ctx.has_bias, ctx.has_residual = x.shape, bias is not None, residual is not None
        y = _reshaped(rows @ half.t(), *x.shape[:-1], half.size(0))
        if residual is not None:
            y = residual + y  # one pass adds and widens
        return y.float() if bias is None else y.float().add_(bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, half = ctx.saved_tensors
        g = grad.reshape(-1, grad.size(-1))
        narrow = g.bfloat16()
        dx = (narrow @ half).view(ctx.shape).float() if ctx.needs_input_grad[0] else None
        dw = (narrow.t() @ rows).float() if ctx.needs_input_grad[1] else None
        return dx, dw, None, g.sum(0) if ctx.has_bias else None, grad if ctx.has_residual else None
