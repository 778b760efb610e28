"""The least a step can take: its matrix products and its attention, forward and backward, nothing else."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from scripts.benchmarks.shapes import Shape
from sweep.train.models import gemm
from sweep.train.models.attention import Heads
from sweep.train.models.cpu.attention import causal_attention

Product = Callable[[], Tensor]


def _maps(shape: Shape) -> list[tuple[int, int]]:
    """Inputs and outputs of every linear map, the head included."""
    d = shape.d_model
    return [(d, 3 * d), (d, d), (d, 4 * d), (4 * d, d)] * shape.n_layers + [(d, shape.vocab_size)]


def products(shape: Shape, precision: str, device: str, *, plain: bool) -> Callable[[], None]:
    """All three products of every linear map: by torch.mm where `plain`, else by the library we choose."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    n_rows = shape.batch_size * shape.seq_len
    operands = [
        tuple(torch.randn(s, dtype=dtype, device=device) for s in ((n_rows, k), (m, k), (n_rows, m)))
        for k, m in _maps(shape)
    ]
    ours = not plain and device == "cpu"

    def call() -> None:
        for x, weight, grad in operands:
            if ours:
                gemm.times_transposed(x, weight)
                gemm.times(grad, weight)
                gemm.transposed_times(grad, x)
            else:
                torch.mm(x, weight.t())
                torch.mm(grad, weight)
                torch.mm(grad.t(), x)

    return call


def attention(shape: Shape, precision: str, device: str, *, fused: bool) -> Callable[[], None]:
    """Attention of every layer, forward and backward, on packed projections: torch's fused one, or ours."""
    dtype = torch.bfloat16 if precision == "bf16" and device != "cpu" else torch.float32
    d, n_heads = shape.d_model, shape.n_heads
    size = (shape.batch_size, shape.seq_len, 3 * d)
    packed = torch.randn(size, dtype=dtype, device=device, requires_grad=True)
    grad = torch.randn(*size[:2], d, dtype=dtype, device=device)
    heads = Heads(n_heads, n_heads, d // n_heads, None, (d // n_heads) ** -0.5)

    def ours() -> None:
        rows = packed.detach().flatten(0, 1)
        for _ in range(shape.n_layers):
            _, pull = causal_attention(rows, shape.seq_len, None, heads, dtype)
            pull(grad.flatten(0, 1))

    def torchs() -> None:
        for _ in range(shape.n_layers):
            q, k, v = (t.unflatten(2, (n_heads, -1)).transpose(1, 2) for t in packed.split(d, dim=2))
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
            torch.autograd.grad(mixed, packed, grad)

    return torchs if fused else ours
