"""Lower bound of a step's time: its matrix products and its attention alone, forward and backward."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812

from scripts.benchmarks.shapes import Shape


def _maps(shape: Shape) -> list[tuple[int, int]]:
    """Return inputs and outputs of every linear map, the head included."""
    d = shape.d_model
    return [(d, 3 * d), (d, d), (d, 4 * d), (4 * d, d)] * shape.n_layers + [(d, shape.vocab_size)]


def products(shape: Shape) -> Callable[[], None]:
    """Return a call of all three fp32 products of every linear map, by torch.mm on the CPU."""
    n_rows = shape.batch_size * shape.seq_len
    operands = [tuple(torch.randn(s) for s in ((n_rows, k), (m, k), (n_rows, m))) for k, m in _maps(shape)]

    def call() -> None:
        for x, weight, grad in operands:
            torch.mm(x, weight.t())
            torch.mm(grad, weight)
            torch.mm(grad.t(), x)

    return call


def attention(shape: Shape) -> Callable[[], None]:
    """Return a call of every layer's fp32 attention, forward and backward, on the CPU."""
    d, n_heads = shape.d_model, shape.n_heads
    packed = torch.randn(shape.batch_size, shape.seq_len, 3 * d, requires_grad=True)
    grad = torch.randn(shape.batch_size, shape.seq_len, d)

    def call() -> None:
        for _ in range(shape.n_layers):
            q, k, v = (t.unflatten(2, (n_heads, -1)).transpose(1, 2) for t in packed.split(d, dim=2))
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
            torch.autograd.grad(mixed, packed, grad)

    return call
