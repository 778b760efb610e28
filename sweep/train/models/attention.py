"""Causal attention on packed projections by torch's fused kernels, with rotary positions."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


class Heads(NamedTuple):
    """Layout of packed projections: heads of queries, then of keys, then of values."""

    n_heads: int
    n_kv_heads: int
    head_dim: int
    qk_gain: float | None  # QK-norm's constant; None without QK-norm
    scale: float  # of query-key products: 1/sqrt(head_dim), times attention_scale


def fused_attention(qkv: Tensor, rotary: Tensor | None, heads: Heads) -> Tensor:
    """Attend: shape (B, T, (n_heads + 2 n_kv_heads)·head_dim) to (B, T, n_heads·head_dim).

    If given, `qk_gain` normalises queries and keys to that root mean square, and `rotary` rotates them as in
    `rotate`. Each head of keys serves consecutive heads of queries.
    """
    batch, seq_len, _ = qkv.shape
    n_heads, n_kv_heads, head_dim, gain, scale = heads
    split = qkv.view(batch, seq_len, -1, head_dim).transpose(1, 2)
    query_key, value = split.split((n_heads + n_kv_heads, n_kv_heads), dim=1)  # type: ignore[no-untyped-call]
    if gain is not None:
        query_key = F.rms_norm(query_key, (head_dim,)) * gain
    if rotary is not None:
        query_key = rotate(query_key, rotary)
    query, key = query_key.split((n_heads, n_kv_heads), dim=1)
    key, value = (_shared(keys, n_heads // n_kv_heads) for keys in (key, value))
    mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)
    return mixed.transpose(1, 2).reshape(batch, seq_len, -1)


def _shared(heads: Tensor, n_copies: int) -> Tensor:
    """Repeat keys or values for each head of queries, since not every fused kernel accepts fewer heads."""
    return heads if n_copies == 1 else heads.repeat_interleave(n_copies, dim=1)


def rotary_table(seq_len: int, head_dim: int, base: float) -> Tensor:
    """Return cosines and sines of position times frequency, shape (2, seq_len, head_dim / 2).

    Source: Su et al. 2021 (RoFormer), section 3.2.2; frequency i is base^(-2i / head_dim).
    """
    frequencies = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angles = torch.arange(seq_len, dtype=torch.float64)[:, None] * frequencies
    return torch.stack((angles.cos(), angles.sin())).float()


def rotate(x: Tensor, rotary: Tensor) -> Tensor:
    """Rotate the pairs (i, i + head_dim/2) of `x`, shape (B, heads, T, head_dim), by their positions.

    `rotary` holds the first T positions of `rotary_table`, shape (2, T, head_dim / 2).
    """
    cos, sin = rotary.unbind(0)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
