"""Causal attention and its pullback, from packed projections to mixed values.

Up to `MAX_DENSE_SEQ_LEN` positions the score matrix is kept and its products are batched; above, torch's
fused kernel takes over, and its own record of what the backward pass needs (docs/performance.md).
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from sweep.train.models.attention import Heads, fused_attention
from sweep.train.models.cpu.linear import Pullback
from sweep.train.models.gemm import wide

MAX_DENSE_SEQ_LEN = 256
"""Longest sequence whose scores are kept; measured on Zen 5."""

MIN_COLUMNS = 16
"""Of a batched product: below, its transpose is up to three times as fast; measured on Zen 3."""


def causal_attention(
    qkv: Tensor, seq_len: int, rotary: Tensor | None, heads: Heads, dtype: torch.dtype
) -> tuple[Tensor, Pullback]:
    """Shape (B·T, (n_heads + 2 n_kv_heads)·head_dim) to (B·T, n_heads·head_dim) in `dtype`.

    Whatever the dtype of `qkv`, attention is computed in fp32 or wider; the gradient of `qkv` has its dtype.
    """
    if seq_len > MAX_DENSE_SEQ_LEN:
        return _fused(qkv, seq_len, rotary, heads, dtype)
    dense = _Dense(qkv, seq_len, rotary, heads)
    return dense.mixed(dtype), dense.pull


def _fused(
    qkv: Tensor, seq_len: int, rotary: Tensor | None, heads: Heads, dtype: torch.dtype
) -> tuple[Tensor, Pullback]:
    with torch.enable_grad():
        leaf = qkv.detach().to(wide(qkv)).view(-1, seq_len, qkv.size(-1)).requires_grad_()
        mixed = fused_attention(leaf, rotary, heads)
    qkv_dtype = qkv.dtype

    def pull(g: Tensor) -> Tensor:
        (d_qkv,) = torch.autograd.grad(mixed, leaf, g.to(mixed.dtype).view_as(mixed))
        return d_qkv.flatten(0, 1).to(qkv_dtype)

    return mixed.detach().flatten(0, 1).to(dtype), pull


class _Dense:
    """softmax(scale · q k^T + mask) v; queries that share keys are rows of one product.

    Heads come first, as in (heads, B, T, head_dim): one copy brings all of them there.
    """

    def __init__(self, qkv: Tensor, seq_len: int, rotary: Tensor | None, heads: Heads) -> None:
        self.heads, self.rotary, self.dtype = heads, rotary, qkv.dtype
        self.n_turned, self.group = heads.n_heads + heads.n_kv_heads, heads.n_heads // heads.n_kv_heads
        self.shape = len(qkv) // seq_len, seq_len
        packed = self._heads_first(qkv)
        normed, self.norm_scale = _normalised(packed[: self.n_turned], heads.qk_gain)
        turned = normed if rotary is None else turn(normed, rotary)
        self.normed = None if heads.qk_gain is None else normed  # all that the backward pass has use for
        self.q = self._grouped(turned[: heads.n_heads])
        self.k = turned[heads.n_heads :].view(-1, seq_len, heads.head_dim)
        self.v = packed[self.n_turned :].view(-1, seq_len, heads.head_dim)
        mask = causal_mask(seq_len, self.group, self.q.dtype)
        scores = torch.baddbmm(mask, self.q, self.k.transpose(1, 2), alpha=heads.scale)
        self.weights = torch.softmax(scores, dim=-1)

    def mixed(self, dtype: torch.dtype) -> Tensor:
        """Weighted values as rows, (B·T, n_heads·head_dim)."""
        rows = self.v.new_empty((*self.shape, self.heads.n_heads, self.heads.head_dim), dtype=dtype)
        self._put(rows.permute(2, 0, 1, 3), batched_product(self.weights, self.v))
        return rows.view(-1, self.heads.n_heads * self.heads.head_dim)

    def pull(self, grad: Tensor) -> Tensor:
        """The gradient of the packed projections from that of the mixed values, both as rows."""
        heads, n_heads = self.heads, self.heads.n_heads
        g = self._grouped(self._heads_first(grad))
        d_scores = torch._softmax_backward_data(
            torch.bmm(g, self.v.transpose(1, 2)), self.weights, -1, g.dtype
        ).mul_(heads.scale)
        d_qkv = g.new_empty((*self.shape, self.n_turned + heads.n_kv_heads, heads.head_dim), dtype=self.dtype)
        target = d_qkv.permute(2, 0, 1, 3)
        self._put(target[self.n_turned :], batched_product(self.weights.transpose(1, 2), g))
        plain = self.rotary is None and self.norm_scale is None
        d_turned = target if plain else g.new_empty((self.n_turned, *self.shape, heads.head_dim))
        self._put(d_turned[:n_heads], batched_product(d_scores, self.k))
        self._put(d_turned[n_heads : self.n_turned], batched_product(d_scores.transpose(1, 2), self.q))
        if not plain:
            target[: self.n_turned] = self._unturned(d_turned)
        return d_qkv.view(len(grad), -1)

    def _unturned(self, d_turned: Tensor) -> Tensor:
        """The gradient of queries and keys before their norm and rotation."""
        d_normed = d_turned if self.rotary is None else turn(d_turned, self.rotary, back=True)
        if self.norm_scale is None:
            return d_normed
        assert self.heads.qk_gain is not None
        assert self.normed is not None
        return _normalised_backward(d_normed, self.normed, self.norm_scale, self.heads.qk_gain)

    def _heads_first(self, rows: Tensor) -> Tensor:
        """Rows (B·T, heads·head_dim) to (heads, B, T, head_dim), in fp32 or wider: one copy."""
        split = rows.view(*self.shape, -1, self.heads.head_dim).permute(2, 0, 1, 3)
        return rows.new_empty(split.shape, dtype=wide(rows)).copy_(split)

    def _grouped(self, queries: Tensor) -> Tensor:
        """(n_heads, B, T, head_dim) to (n_kv·B, group·T, head_dim): a view where no keys are shared."""
        split = queries.view(-1, self.group, *self.shape, self.heads.head_dim)
        return split.transpose(1, 2).reshape(-1, self.group * self.shape[1], self.heads.head_dim)

    def _put(self, target: Tensor, product: Tensor) -> None:
        """Copy (n_kv·B, group·T, head_dim) to where its heads are, a view of (heads, B, T, head_dim)."""
        batch, seq_len = self.shape
        split = product.view(-1, batch, product.size(1) // seq_len, seq_len, product.size(2)).transpose(1, 2)
        target.view(split.shape).copy_(split)


def batched_product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b: shapes (n, i, j) and (n, j, k) to (n, i, k), perhaps not contiguous.

    MKL makes a product of few columns faster as one of few rows.
    """
    if b.size(2) < MIN_COLUMNS:
        return torch.bmm(b.transpose(1, 2), a.transpose(1, 2)).transpose(1, 2)
    return torch.bmm(a, b)


def _normalised(x: Tensor, gain: float | None) -> tuple[Tensor, Tensor | None]:
    """x · s with s = gain / sqrt(mean(x²) + eps), and s, shape (..., 1); x itself without a gain."""
    if gain is None:
        return x, None
    scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.size(-1))
    scale.add_(torch.finfo(x.dtype).eps).rsqrt_().mul_(gain)
    return x * scale, scale


def _normalised_backward(grad: Tensor, y: Tensor, scale: Tensor, gain: float) -> Tensor:
    """dx = s · (g - y · mean(g · y) / gain²), from y = x s."""
    projection = (grad * y).sum(-1, keepdim=True).mul_(1 / (gain * gain * y.size(-1)))
    return torch.addcmul(grad, y, projection, value=-1).mul_(scale)


def turn(x: Tensor, rotary: Tensor, *, back: bool = False) -> Tensor:
    """Rotate the pairs (i, i + head_dim/2): as `layers.rotate`, in fewer passes; or rotate them back."""
    cos, sin = rotary.unbind(0)
    sign = -1 if back else 1
    first, second = x.chunk(2, dim=-1)
    turned = torch.empty(x.shape, dtype=x.dtype)
    one, two = turned.chunk(2, dim=-1)
    torch.mul(first, cos, out=one)
    one.addcmul_(second, sin, value=-sign)
    torch.mul(second, cos, out=two)
    two.addcmul_(first, sin, value=sign)
    return turned


@functools.lru_cache(maxsize=16)
def causal_mask(seq_len: int, n_repeats: int, dtype: torch.dtype) -> Tensor:
    """0 where a key may be seen and -inf elsewhere, `n_repeats` squares on top of one another."""
    mask = torch.full((seq_len, seq_len), -math.inf, dtype=dtype).triu_(1)
    return mask.repeat(n_repeats, 1)
