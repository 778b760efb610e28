"""The head and its cross-entropy as one function that never holds the logits of more than a chunk of rows."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sweep.train.models.gemm import add_transposed_times, bf16_copy, times, times_transposed, wide

CPU_CHUNK_ELEMENTS = 2**20
"""Logits held at once on the CPU: 4 MB in fp32, which a level-2 or -3 cache holds."""

GPU_CHUNK_ELEMENTS = 2**27
"""On a GPU where nothing was timed: few launches, half a gigabyte in fp32."""

MIN_CHUNK_ROWS = 64


def chunk_rows(n_rows: int, vocab_size: int, n_elements: int = CPU_CHUNK_ELEMENTS) -> int:
    """Rows of one chunk: all of them, or about n_elements / vocab_size in equal parts.

    >>> chunk_rows(768, 65), chunk_rows(1536, 1024)
    (768, 768)
    """
    n_chunks = max(1, -(-n_rows * vocab_size // n_elements))
    return max(MIN_CHUNK_ROWS, -(-n_rows // n_chunks))


def summed_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, n_rows: int, bf16: bool = False
) -> Tensor:
    """Sum over rows of -log softmax(hidden weight^T)[target], in nats, fp32.

    Shapes (n, d), (V, d) and (n,); `n_rows` rows at a time. The gradients are computed with the value, while
    a chunk's probabilities p are at hand: dlogits = p - onehot(target), dhidden = dlogits weight,
    dweight = dlogits^T hidden. With `bf16` the operands of the three products are bf16. Under no_grad only
    the value is computed.
    """
    return _SummedCrossEntropy.apply(hidden, weight, targets, n_rows, bf16, torch.is_grad_enabled())  # type: ignore[no-untyped-call]


class _SummedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, n_rows: int, bf16: bool, learns: bool
    ) -> Tensor:
        if not learns:
            return _loss(hidden, weight, targets, n_rows, bf16)
        d_weight = torch.zeros_like(weight, dtype=wide(weight))
        total, d_hidden = loss_and_gradients(hidden, weight, targets, d_weight, n_rows=n_rows, bf16=bf16)
        ctx.save_for_backward(d_hidden, d_weight)
        ctx.dtypes = hidden.dtype, weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_weight = ctx.saved_tensors
        of_hidden, of_weight = ctx.dtypes
        return (d_hidden * grad).to(of_hidden), (d_weight * grad).to(of_weight), None, None, None, None


def loss_and_gradients(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    d_weight: Tensor,
    *,
    n_rows: int,
    bf16: bool,
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """`summed_cross_entropy` and `scale` times its gradients: that of `weight` is added to `d_weight`.

    Returns the loss, shape (), unscaled, and the scaled gradient of `hidden`, shape (n, d), both fp32.
    """
    narrow = bf16_copy(weight) if bf16 else weight
    total = torch.zeros((), dtype=wide(hidden), device=hidden.device)
    d_hidden = torch.empty_like(hidden, dtype=wide(hidden))
    for start in range(0, hidden.size(0), n_rows):
        rows = hidden[start : start + n_rows].to(narrow.dtype)
        loss, d_logits = _chunk(rows, narrow, targets[start : start + n_rows])
        total += loss
        d_logits = d_logits.to(narrow.dtype)
        d_hidden[start : start + n_rows] = times(d_logits, narrow)
        add_transposed_times(d_weight, d_logits, rows, scale)
    return total, d_hidden if scale == 1 else d_hidden.mul_(scale)


def _loss(hidden: Tensor, weight: Tensor, targets: Tensor, n_rows: int, bf16: bool) -> Tensor:
    narrow = bf16_copy(weight) if bf16 else weight
    total = torch.zeros((), dtype=wide(hidden), device=hidden.device)
    for start in range(0, hidden.size(0), n_rows):
        rows = hidden[start : start + n_rows].to(narrow.dtype)
        logits = times_transposed(rows, narrow)
        total += F.cross_entropy(logits.to(wide(logits)), targets[start : start + n_rows], reduction="sum")
    return total


def _chunk(rows: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The summed loss of some rows, and the gradient of their logits.

    With m the largest logit and p_max the largest probability, log sum exp = m - log p_max: the softmax is
    the only pass that exponentiates, and nothing underflows.
    """
    logits = times_transposed(rows, weight)
    logits = logits.to(wide(logits))
    picked = targets[:, None]
    at_target = logits.gather(1, picked)
    largest = logits.amax(1, keepdim=True)
    p = torch.softmax(logits, dim=1)
    loss = (largest - at_target - p.amax(1, keepdim=True).log()).sum()
    p.scatter_add_(1, picked, p.new_full((), -1.0).expand(picked.shape))
    return loss, p
