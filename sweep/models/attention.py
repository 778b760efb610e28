"""Causal attention on the CPU as one differentiable function, from packed projections to mixed values.

Up to `MAX_DENSE_SEQ_LEN` positions the score matrix is kept and its products are batched; above, torch's
fused kernel takes over, which saves memory (docs/performance.md).
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

MAX_DENSE_SEQ_LEN = 256
"""Longest sequence whose scores are kept; measured on Zen 5."""


class Heads(NamedTuple):
    """How packed projections divide: heads of queries, then of keys, then of values."""

    n_heads: int
    n_kv_heads: int
    head_dim: int
    qk_gain: float | None  # QK-norm's constant; None without QK-norm
    scale: float  # of the products of queries and keys: 1/sqrt(head_dim), but for mup


def causal_attention(qkv: Tensor, rotary: Tensor | None, heads: Heads) -> Tensor:
    """Attend: shape (B, T, (n_heads + 2 n_kv_heads)·head_dim) to (B, T, n_heads·head_dim).

    Queries and keys are normalised to a root mean square of `qk_gain` and rotated by `rotary`, shape
    (2, T, head_dim / 2), where these are given.
    """
    return _CausalAttention.apply(qkv, rotary, heads)  # type: ignore[no-untyped-call]


def is_dense(seq_len: int) -> bool:
    """Whether `causal_attention` is the faster way at this length."""
    return seq_len <= MAX_DENSE_SEQ_LEN


class _CausalAttention(torch.autograd.Function):
    """softmax(scale · q k^T + mask) v; queries that share keys are rows of one product."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, rotary: Tensor | None, heads: Heads) -> Tensor:
        batch, seq_len, _ = qkv.shape
        n_heads, n_kv, head_dim, gain, factor = heads
        split = qkv.view(batch, seq_len, -1, head_dim).transpose(1, 2)
        raw = split[:, : n_heads + n_kv]
        normed, scale = _normalised(raw, gain)
        turned = normed if rotary is None else _turn(normed, rotary)
        q = turned[:, :n_heads].reshape(batch * n_kv, -1, head_dim)
        k = turned[:, n_heads:].reshape(batch * n_kv, seq_len, head_dim)
        v = split[:, n_heads + n_kv :].reshape(batch * n_kv, seq_len, head_dim)
        mask = causal_mask(seq_len, n_heads // n_kv, q.dtype)
        scores = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=factor)
        weights = torch.softmax(scores, dim=-1)
        mixed = torch.bmm(weights, v).view(batch, n_heads, seq_len, head_dim)
        ctx.heads, ctx.shape = heads, qkv.shape
        ctx.save_for_backward(q, k, v, weights, rotary, normed if gain is not None else None, scale)
        return mixed.transpose(1, 2).reshape(batch, seq_len, -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        q, k, v, weights, rotary, normed, scale = ctx.saved_tensors
        batch, seq_len, _ = ctx.shape
        n_heads, n_kv, head_dim, gain, factor = ctx.heads
        g = grad.view(batch, seq_len, n_heads, head_dim).transpose(1, 2).reshape(q.shape)
        d_qkv = grad.new_empty(ctx.shape)
        d_split = d_qkv.view(batch, seq_len, -1, head_dim).transpose(1, 2)
        d_split[:, n_heads + n_kv :] = torch.bmm(weights.transpose(1, 2), g).view(batch, n_kv, seq_len, -1)
        d_weights = torch.bmm(g, v.transpose(1, 2))
        d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype)
        d_scores *= factor
        d_turned = d_split[:, : n_heads + n_kv]
        d_turned[:, :n_heads] = torch.bmm(d_scores, k).view(batch, n_heads, seq_len, head_dim)
        d_turned[:, n_heads:] = torch.bmm(d_scores.transpose(1, 2), q).view(batch, n_kv, seq_len, head_dim)
        if rotary is not None or gain is not None:
            d_normed = d_turned if rotary is None else _turn(d_turned, _back(rotary))
            d_split[:, : n_heads + n_kv] = (
                d_normed if gain is None else _normalised_backward(d_normed, normed, scale, gain)
            )
        return d_qkv, None, None


def _normalised(x: Tensor, gain: float | None) -> tuple[Tensor, Tensor | None]:
    """x · s with s = gain / sqrt(mean(x²) + eps), and s, shape (..., 1); x itself without a gain."""
    if gain is None:
        return x, None
    mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.size(-1))
    scale = mean_square.add_(torch.finfo(x.dtype).eps).rsqrt_().mul_(gain)
    return x * scale, scale


def _normalised_backward(grad: Tensor, y: Tensor, scale: Tensor, gain: float) -> Tensor:
    """dx = s · (g - y · mean(g · y) / gain²), from y = x s."""
    projection = (grad * y).sum(-1, keepdim=True).mul_(1 / (gain * gain * y.size(-1)))
    return torch.addcmul(grad, y, projection, value=-1).mul_(scale)


def _turn(x: Tensor, rotary: Tensor) -> Tensor:
    """Rotate the pairs (i, i + head_dim/2): as `layers.rotate`, in fewer passes."""
    cos, sin = rotary.unbind(0)
    first, second = x.chunk(2, dim=-1)
    turned = torch.empty(x.shape, dtype=x.dtype)
    one, two = turned.chunk(2, dim=-1)
    torch.mul(first, cos, out=one)
    one.addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=two)
    two.addcmul_(first, sin)
    return turned


def _back(rotary: Tensor) -> Tensor:
    """The table of the opposite rotation."""
    return torch.stack((rotary[0], -rotary[1]))


@functools.lru_cache(maxsize=16)
def causal_mask(seq_len: int, n_repeats: int, dtype: torch.dtype) -> Tensor:
    """0 where a key may be seen and -inf elsewhere, `n_repeats` squares on top of one another."""
    mask = torch.full((seq_len, seq_len), -math.inf, dtype=dtype).triu_(1)
    return mask.repeat(n_repeats, 1)
