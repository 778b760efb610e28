"""The parts of a decoder block: norms, rotary positions, attention, MLPs."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sweep.config import ModelConfig
from sweep.models.attention import Heads, causal_attention, is_dense
from sweep.models.gemm import Linear
from sweep.models.pointwise import rms_norm, squared_relu, tanh_gelu


def gelu(x: Tensor) -> Tensor:
    """GELU in the tanh form of GPT-2 (Hendrycks & Gimpel 2016), any shape."""
    return tanh_gelu(x) if x.device.type == "cpu" else F.gelu(x, approximate="tanh")


def relu2(x: Tensor) -> Tensor:
    """max(x, 0)² (So et al. 2021, Primer), any shape."""
    return squared_relu(x) if x.device.type == "cpu" else F.relu(x).square()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": gelu,
    "gelu_exact": F.gelu,  # x times the normal distribution function, by the error function
    "relu2": relu2,
}


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps), times a learned gain (Zhang & Sennrich 2019). It has no bias."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.gain = nn.Parameter(torch.ones(config.d_model))

    def forward(self, x: Tensor) -> Tensor:
        """Shape (..., d_model) to the same."""
        if x.device.type == "cpu":
            return rms_norm(x, self.gain, self.eps)
        return F.rms_norm(x, (x.size(-1),), self.gain, self.eps)


class LayerNorm(nn.Module):
    """(x - mean(x)) / sqrt(var(x) + eps), times a learned gain, plus a bias if any (Ba et al. 2016)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.gain = nn.Parameter(torch.ones(config.d_model))
        self.bias = nn.Parameter(torch.zeros(config.d_model)) if config.bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Shape (..., d_model) to the same."""
        return F.layer_norm(x, (x.size(-1),), self.gain, self.bias, self.eps)


NORMS: dict[str, Callable[[ModelConfig], nn.Module]] = {"rms": RMSNorm, "layer": LayerNorm}


def rotary_table(seq_len: int, head_dim: int, base: float) -> Tensor:
    """Cosines and sines of position times frequency, shape (2, seq_len, head_dim / 2).

    Source: Su et al. 2021 (RoFormer), section 3.2.2; frequency i is base^(-2i / head_dim).
    """
    frequencies = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angles = torch.arange(seq_len, dtype=torch.float64)[:, None] * frequencies
    return torch.stack((angles.cos(), angles.sin())).float()


def rotate(x: Tensor, rotary: Tensor) -> Tensor:
    """Rotate the pairs (i, i + head_dim/2) of `x`, shape (B, heads, T, head_dim), by their positions.

    `rotary` is the table's first T positions, shape (2, T, head_dim / 2).
    """
    cos, sin = rotary.unbind(0)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Attention(nn.Module):
    """Causal self-attention in heads, with rotary positions and QK-norm where the config has them.

    Each head of keys and values serves n_heads / n_kv_heads heads of queries, its neighbours (Ainslie et al.
    2023, grouped-query attention). QK-norm divides queries and keys by their root mean square (Dehghani et
    al. 2023) and multiplies both by `qk_gain`, a constant: without a learned gain, sharper attention is a
    setting.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim = config.n_heads, config.n_kv_heads, config.head_dim
        self.qk_norm, self.qk_gain = config.qk_norm, config.qk_gain
        # None is 1/sqrt(head_dim)
        self.scale = None if config.attention_scale == 1 else config.attention_scale * self.head_dim**-0.5
        self.qkv = Linear(config.d_model, config.d_model + 2 * config.d_kv, bias=config.bias)
        self.out = Linear(config.d_model, config.d_model, bias=config.bias)

    def forward(self, x: Tensor, rotary: Tensor | None, residual: Tensor | None = None) -> Tensor:
        """Shape (B, T, d_model) to the same; `rotary` as in `rotate`, `residual` is added to the result."""
        qkv = self.qkv(x)
        if qkv.device.type == "cpu" and is_dense(qkv.size(1)):
            gain = self.qk_gain if self.qk_norm else None
            scale = self.head_dim**-0.5 if self.scale is None else self.scale
            heads = Heads(self.n_heads, self.n_kv_heads, self.head_dim, gain, scale)
            return self.out(causal_attention(qkv, rotary, heads), residual)
        return self.out(self._attend(qkv, rotary), residual)

    def _attend(self, qkv: Tensor, rotary: Tensor | None) -> Tensor:
        """Shape (B, T, d_model + 2 d_kv) to (B, T, d_model), by torch's fused attention."""
        batch, seq_len, _ = qkv.shape
        heads = qkv.view(batch, seq_len, -1, self.head_dim).transpose(1, 2)
        query_key, value = heads.split((self.n_heads + self.n_kv_heads, self.n_kv_heads), dim=1)  # type: ignore[no-untyped-call]
        if self.qk_norm:
            query_key = F.rms_norm(query_key, (self.head_dim,)) * self.qk_gain
        if rotary is not None:
            query_key = rotate(query_key, rotary)
        query, key = query_key.split((self.n_heads, self.n_kv_heads), dim=1)
        mixed = F.scaled_dot_product_attention(
            query, self._shared(key), self._shared(value), is_causal=True, scale=self.scale
        )
        return mixed.transpose(1, 2).reshape(batch, seq_len, -1)

    def _shared(self, heads: Tensor) -> Tensor:
        """Keys or values, one copy for each head of queries: not every fused kernel takes fewer heads."""
        if self.n_kv_heads == self.n_heads:
            return heads
        return heads.repeat_interleave(self.n_heads // self.n_kv_heads, dim=1)


class MLP(nn.Module):
    """Two linear maps with an activation between."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.up = Linear(config.d_model, config.d_ff, bias=config.bias)
        self.down = Linear(config.d_ff, config.d_model, bias=config.bias)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Shape (B, T, d_model) to the same; `residual` is added to the result."""
        return self.down(self.activation(self.up(x)), residual)


class SwiGLU(nn.Module):
    """down(silu(gate(x)) · up(x)), three linear maps (Shazeer 2020, equation 6)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = Linear(config.d_model, config.d_ff, bias=config.bias)
        self.up = Linear(config.d_model, config.d_ff, bias=config.bias)
        self.down = Linear(config.d_ff, config.d_model, bias=config.bias)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Shape (B, T, d_model) to the same; `residual` is added to the result."""
        return self.down(F.silu(self.gate(x)) * self.up(x), residual)


class Block(nn.Module):
    """Pre-norm residual block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        norm = NORMS[config.norm]
        self.attention_norm, self.attention = norm(config), Attention(config)
        self.mlp_norm, self.mlp = (
            norm(config),
            SwiGLU(config) if config.activation == "swiglu" else MLP(config),
        )

    def forward(self, x: Tensor, rotary: Tensor | None) -> Tensor:
        """Shape (B, T, d_model) to the same; `rotary` as in `rotate`."""
        x = self.attention(self.attention_norm(x), rotary, x)
        return self.mlp(self.mlp_norm(x), x)
