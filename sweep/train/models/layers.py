"""Modules of a decoder block: norms, attention, MLPs."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sweep.config import ModelConfig
from sweep.train.models.attention import Heads, fused_attention


def gelu(x: Tensor) -> Tensor:
    """Apply GELU in the tanh form of GPT-2 (Hendrycks & Gimpel 2016); any shape."""
    return F.gelu(x, approximate="tanh")


def relu2(x: Tensor) -> Tensor:
    """Return max(x, 0)² (So et al. 2021, Primer); any shape."""
    return F.relu(x).square()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": gelu,
    "gelu_exact": F.gelu,  # x times the normal CDF, through the error function
    "relu2": relu2,
}


class RMSNorm(nn.Module):
    """RMS norm: x / sqrt(mean(x²) + eps) times a learned gain, no bias (Zhang & Sennrich 2019)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.gain = nn.Parameter(torch.ones(config.d_model))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension: shape (..., d_model) to (..., d_model)."""
        return F.rms_norm(x, (x.size(-1),), self.gain, self.eps)


class LayerNorm(nn.Module):
    """Layer norm: (x - mean(x)) / sqrt(var(x) + eps) times a gain, plus an optional bias (Ba et al. 2016)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.gain = nn.Parameter(torch.ones(config.d_model))
        self.bias = nn.Parameter(torch.zeros(config.d_model)) if config.bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension: shape (..., d_model) to (..., d_model)."""
        return F.layer_norm(x, (x.size(-1),), self.gain, self.bias, self.eps)


NORMS: dict[str, Callable[[ModelConfig], nn.Module]] = {"rms": RMSNorm, "layer": LayerNorm}


class Attention(nn.Module):
    """Causal multi-head self-attention with optional rotary positions and QK-norm.

    Each head of keys and values serves n_heads / n_kv_heads consecutive heads of queries (grouped-query
    attention, Ainslie et al. 2023). QK-norm divides queries and keys by their root mean square (Dehghani et
    al. 2023) and multiplies both by the constant `qk_gain`; there is no learned gain.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = Heads(
            n_heads=config.n_heads,
            n_kv_heads=config.n_kv_heads,
            head_dim=config.head_dim,
            qk_gain=config.qk_gain if config.qk_norm else None,
            scale=config.attention_scale * config.head_dim**-0.5,
        )
        self.qkv = nn.Linear(config.d_model, config.d_model + 2 * config.d_kv, bias=config.bias)
        self.out = nn.Linear(config.d_model, config.d_model, bias=config.bias)

    def forward(self, x: Tensor, rotary: Tensor | None) -> Tensor:
        """Map shape (B, T, d_model) to the same shape; `rotary` as in `rotate`."""
        return self.out(fused_attention(self.qkv(x), rotary, self.heads))


class MLP(nn.Module):
    """Two linear maps with an activation in between."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.up = nn.Linear(config.d_model, config.d_ff, bias=config.bias)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map shape (B, T, d_model) to the same shape."""
        return self.down(ACTIVATIONS[self.activation](self.up(x)))


class SwiGLU(nn.Module):
    """Gated MLP down(silu(gate(x)) · up(x)), three linear maps (Shazeer 2020, equation 6)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.d_model, config.d_ff, bias=config.bias)
        self.up = nn.Linear(config.d_model, config.d_ff, bias=config.bias)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map shape (B, T, d_model) to the same shape."""
        return self.down(F.silu(self.gate(x)) * self.up(x))


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
        """Map shape (B, T, d_model) to the same shape; `rotary` as in `rotate`."""
        x = x + self.attention(self.attention_norm(x), rotary)
        return x + self.mlp(self.mlp_norm(x))
