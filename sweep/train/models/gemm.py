"""Matrix products on the CPU: the fastest that torch carries there, in fp32 or of bf16 operands.

torch sends fp32 products to MKL, which gives AMD's CPUs with AVX-512 a slow code path; oneDNN, in the same
wheel, is twice as fast there (docs/performance.md). Which of the two is used depends on the machine and the
sizes alone, never on a timing: the same machine always takes the same path. Other devices have torch's own.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

MIN_ONEDNN_MACS = 2**20
"""Multiply-adds from which oneDNN's product is faster than MKL's, its call included; measured on Zen 5."""


def times_transposed(x: Tensor, weight: Tensor) -> Tensor:
    """x @ weight.T: shapes (n, k) and (m, k) to (n, m)."""
    if _suits_onednn(x, x.size(0) * x.size(1) * weight.size(0)):
        return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return _product(x, weight.t())


def times(grad: Tensor, weight: Tensor) -> Tensor:
    """grad @ weight: shapes (n, m) and (m, k) to (n, k)."""
    return times_transposed(grad, weight.t())


def transposed_times(grad: Tensor, x: Tensor) -> Tensor:
    """grad.T @ x: shapes (n, m) and (n, k) to (m, k), the gradient of a weight; perhaps not contiguous."""
    if not _suits_onednn(x, grad.size(0) * grad.size(1) * x.size(1)):
        return _product(grad.t(), x)
    if grad.size(1) > x.size(1):  # oneDNN copies its second operand: the narrow one
        return times_transposed(x.t(), grad.t()).t()
    return times_transposed(grad.t(), x.t())


def add_transposed_times(total: Tensor, grad: Tensor, x: Tensor, scale: float = 1.0) -> None:
    """total += scale · grad.T @ x in place: shapes (m, k), (n, m) and (n, k)."""
    if x.dtype == total.dtype and not _suits_onednn(x, grad.size(0) * grad.size(1) * x.size(1)):
        total.addmm_(grad.t(), x, alpha=scale)
    else:
        total.add_(transposed_times(grad, x), alpha=scale)


def affine(x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None) -> Tensor:
    """x W^T + b + r: shapes (n, k), (m, k), (m,) and (n, m) to (n, m), in as few passes as there are.

    Of bf16 operands the product is bf16, and what is added to it makes it fp32.
    """
    if x.dtype == torch.bfloat16:
        y = times_transposed(x, weight)
        y = y if bias is None else y + bias
        return y if residual is None else residual + y  # one pass adds and widens
    if _suits_onednn(x, x.size(0) * x.size(1) * weight.size(0)):
        if residual is None:
            return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return torch.ops.mkldnn._linear_pointwise.binary(x, residual, weight, bias, "add")
    if bias is None:
        return x @ weight.t() if residual is None else torch.addmm(residual, x, weight.t())
    y = torch.addmm(bias, x, weight.t())
    return y if residual is None else y.add_(residual)


@functools.cache
def onednn_is_faster() -> bool:
    """Whether large fp32 products go to oneDNN: where torch has it, on AMD's CPUs with AVX-512.

    With AVX2 alone MKL is the faster of the two on AMD's as well (docs/performance.md).
    """
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):  # type: ignore[no-untyped-call]
        return False
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and "AuthenticAMD" in _cpu_words()


@functools.cache
def bf16_is_native() -> bool:
    """Whether the CPU multiplies bf16 numbers itself: where not, torch takes ten times as long as for fp32.

    Where the system does not tell, torch is left to it.
    """
    words = _cpu_words()
    return not words or not words.isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})


@functools.cache
def _cpu_words() -> frozenset[str]:
    """Maker and features as Linux tells them; empty elsewhere."""
    cpuinfo = Path("/proc/cpuinfo")
    return frozenset(cpuinfo.read_text().split()) if cpuinfo.exists() else frozenset()


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b; bf16 operands give the same numbers, to rounding, on every CPU."""
    if a.dtype == torch.bfloat16 and a.device.type == "cpu" and not bf16_is_native():
        return (a.float() @ b.float()).bfloat16()
    return a @ b


def wide(tensor: Tensor) -> torch.dtype:
    """What sums over `tensor` are kept in: fp32 for it and for narrower types."""
    return tensor.dtype if tensor.dtype == torch.float64 else torch.float32


def _suits_onednn(x: Tensor, n_macs: int) -> bool:
    on_cpu = x.device.type == "cpu"  # the fused head is a GPU's too, in a machine whose CPU oneDNN suits
    return on_cpu and x.dtype == torch.float32 and n_macs >= MIN_ONEDNN_MACS and onednn_is_faster()


def bf16_copy(weight: Tensor) -> Tensor:
    """A parameter in bf16, cast once between two calls of `weights_changed`; a replay casts anew."""
    if weight.device.type != "cpu":
        return weight.to(torch.bfloat16)
    known: tuple[object, Tensor] | None = getattr(weight, "_bf16_copy", None)
    version = (_changes.count, weight._version, weight.data_ptr())
    if known is not None and known[0] == version:
        return known[1]
    copy = weight.detach().bfloat16()
    weight._bf16_copy = (version, copy)  # type: ignore[attr-defined]
    return copy


def drop_bf16_copies(weights: Iterable[Tensor]) -> None:
    """Free the copies that these parameters have: the next call casts anew."""
    for weight in weights:
        weight._bf16_copy = None  # type: ignore[attr-defined]


def weights_changed() -> None:
    """Drop all bf16 copies: fused optimizers write weights without raising their version counters."""
    _changes.count += 1


@dataclass(slots=True)
class _Changes:
    count: int = 0


_changes = _Changes()
