"""The output head fused with its cross-entropy, computed over chunks of rows to bound memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sweep.plan.estimate import LOGITS_AT_ONCE, MIN_CHUNK_ROWS

MAX_EXTRA_CHUNKS = 4  # factor on the number of chunks that may be added for equal ones

Chunk = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Maps rows (n, d), weight (V, d) and targets (n,) to the summed loss and the gradient of logits (n, V)."""


def chunk_rows(n_rows: int, vocab_size: int, n_elements: int = LOGITS_AT_ONCE["cpu"]) -> int:
    """Return the number of rows per chunk: all of them, or at most n_elements / vocab_size in equal parts.

    Parts of one size need one compilation; where `n_rows` has no suitable divisor, the last part is smaller.

    >>> chunk_rows(768, 65), chunk_rows(1536, 1024), chunk_rows(1536, 2048)
    (768, 768, 512)
    """
    n_chunks = max(1, -(-n_rows * vocab_size // n_elements))
    equal = (n for n in range(n_chunks, MAX_EXTRA_CHUNKS * n_chunks) if n_rows % n == 0)
    return min(n_rows, max(MIN_CHUNK_ROWS, -(-n_rows // next(equal, n_chunks))))


def summed_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    n_rows: int,
    bf16: bool = False,
    chunk: Chunk | None = None,
) -> Tensor:
    """Return the sum over rows of -log softmax(hidden weight^T)[target], in nats, fp32.

    Shapes (n, d), (V, d) and (n,); the logits of `n_rows` rows are in memory at once. The forward pass also
    computes the gradients from the probabilities p of a chunk: dlogits = p - onehot(target),
    dhidden = dlogits weight, dweight = dlogits^T hidden. With `bf16` the operands of the three products are
    bf16. Under no_grad only the value is computed. `chunk` computes the loss and dlogits of one chunk, by
    default `chunk_loss`.
    """
    return _SummedCrossEntropy.apply(
        hidden, weight, targets, n_rows, bf16, torch.is_grad_enabled(), chunk or chunk_loss
    )  # type: ignore[no-untyped-call]


class _SummedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        n_rows: int,
        bf16: bool,
        needs_grad: bool,
        chunk: Chunk,
    ) -> Tensor:
        narrow = weight.to(torch.bfloat16) if bf16 else weight
        if not needs_grad:
            return _loss(hidden, narrow, targets, n_rows)
        total, d_hidden, d_weight = _loss_and_gradients(hidden, narrow, targets, n_rows, chunk)
        ctx.save_for_backward(d_hidden, d_weight)
        ctx.dtypes = hidden.dtype, weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_weight = ctx.saved_tensors
        hidden_dtype, weight_dtype = ctx.dtypes
        return (d_hidden * grad).to(hidden_dtype), (d_weight * grad).to(weight_dtype), *(None,) * 5


def _loss_and_gradients(
    hidden: Tensor, weight: Tensor, targets: Tensor, n_rows: int, chunk: Chunk
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the summed loss and its gradients of `hidden` and `weight`, in fp32 or wider."""
    total = torch.zeros((), dtype=_wide(hidden), device=hidden.device)
    d_hidden = torch.empty_like(hidden, dtype=_wide(hidden))
    d_weight = torch.zeros_like(weight, dtype=_wide(weight))
    for start in range(0, hidden.size(0), n_rows):
        rows = hidden[start : start + n_rows].to(weight.dtype)
        loss, d_logits = chunk(rows, weight, targets[start : start + n_rows])
        total += loss
        d_logits = d_logits.to(weight.dtype)
        d_hidden[start : start + n_rows] = d_logits @ weight
        if rows.dtype == d_weight.dtype:
            d_weight.addmm_(d_logits.t(), rows)
        elif rows.device.type == "cuda":  # the product of bf16 operands is not rounded to bf16
            d_weight.add_(torch.mm(d_logits.t(), rows, out_dtype=d_weight.dtype))
        else:
            d_weight.add_(d_logits.t() @ rows)
    return total, d_hidden, d_weight


def _loss(hidden: Tensor, weight: Tensor, targets: Tensor, n_rows: int) -> Tensor:
    total = torch.zeros((), dtype=_wide(hidden), device=hidden.device)
    for start in range(0, hidden.size(0), n_rows):
        logits = hidden[start : start + n_rows].to(weight.dtype) @ weight.t()
        total += F.cross_entropy(logits.to(_wide(logits)), targets[start : start + n_rows], reduction="sum")
    return total


def fusible_chunk_loss(rows: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `chunk_loss` does, the gradient in the dtype of `rows`, in a form that a compiler fuses.

    torch.compile makes two kernels of it that read the logits twice and write the gradient once: with the
    product in bf16, 12 bytes of traffic a logit. Eager, it is slower than `chunk_loss`.
    """
    logits = rows @ weight.t()
    logits = logits.to(_wide(logits))
    total = torch.logsumexp(logits, 1, keepdim=True)
    picked = targets[:, None]
    loss = (total - logits.gather(1, picked)).sum()
    is_target = torch.arange(weight.size(0), device=rows.device) == picked
    return loss, (torch.exp(logits - total) - is_target.to(logits.dtype)).to(rows.dtype)


def chunk_loss(rows: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed loss of some rows and the gradient of their logits.

    With m the largest logit and p_max the largest probability, log sum exp = m - log p_max: the softmax is
    the only pass that exponentiates, and nothing underflows.
    """
    logits = rows @ weight.t()
    logits = logits.to(_wide(logits))
    picked = targets[:, None]
    at_target = logits.gather(1, picked)
    largest = logits.amax(1, keepdim=True)
    p = torch.softmax(logits, dim=1)
    loss = (largest - at_target - p.amax(1, keepdim=True).log()).sum()
    p.scatter_(1, picked, -1.0, reduce="add")  # unlike scatter_add_, deterministic without synchronising
    return loss, p


def _wide(tensor: Tensor) -> torch.dtype:
    """Return the dtype of sums over `tensor`: fp64 for fp64, fp32 for anything else."""
    return tensor.dtype if tensor.dtype == torch.float64 else torch.float32
