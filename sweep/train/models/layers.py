"""The parts of a decoder block as torch modules: norms, linear maps, attention, MLPs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sweep.config import ModelConfig
from sweep.train.models.attention import Heads, fused_attention
from sweep.train.models.gemm import affine, bf16_is_native

_BF16: ContextVar[bool] = ContextVar("bf16_linear_maps", default=False)


@contextlib.contextmanager
def bf16_linear_maps(enabled: bool) -> Iterator[None]:
    """Within, linear maps on the CPU multiply bf16 operands; sums, results and weights stay fp32."""
    token = _BF16.set(enabled)
    try:
        yield
    finally:
        _BF16.reset(token)


def is_bf16(device_type: str = "cpu") -> bool:
    """Whether linear maps multiply bf16 operands now: inside `bf16_linear_maps` or torch's autocast."""
    return _BF16.get() if device_type == "cpu" else torch.is_autocast_enabled(device_type)


class Linear(nn.Linear):
    """nn.Linear, and on the CPU, in fp32, the products of `train.models.gemm` where no gradient is wanted."""

    def forward(self, x: Tensor) -> Tensor:
        """Shape (..., in_features) to (..., out_features)."""
        if x.device.type != "cpu":
            return super().forward(x)
        if _BF16.get():
            x, weight = x.bfloat16(), self.weight.bfloat16()
            if not bf16_is_native():
                x, weight = x.float(), weight.float()  # the product is rounded all the same
            y = F.linear(x, weight).bfloat16().float()
            return y if self.bias is None else y + self.bias
        if torch.is_grad_enabled():
            return super().forward(x)
        y = affine(x.reshape(-1, x.size(-1)), self.weight, self.bias, None)
        return y.view(*x.shape[:-1], -1)


def gelu(x: Tensor) -> Tensor:
    """GELU in the tanh form of GPT-2 (Hendrycks & Gimpel 2016), any shape."""
    return F.gelu(x, approximate="tanh")


def relu2(x: Tensor) -> Tensor:
    """max(x, 0)² (So et al. 2021, Primer), any shape."""
    return F.relu(x).square()


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


class Attention(nn.Module):
    """Causal self-attention in heads, with rotary positions and QK-norm where the config has them.

    Each head of keys and values serves n_heads / n_kv_heads heads of queries, its neighbours (Ainslie et al.
    2023, grouped-query attention). QK-norm divides queries and keys by their root mean square (Dehghani et
    al. 2023) and multiplies both by `qk_gain`, a constant: without a learned gain, sharper attention is a
    setting.
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
        self.qkv = Linear(config.d_model, config.d_model + 2 * config.d_kv, bias=config.bias)
        self.out = Linear(config.d_model, config.d_model, bias=config.bias)

    def forward(self, x: Tensor, rotary: Tensor | None) -> Tensor:
        """Shape (B, T, d_model) to the same; `rotary` as in `rotate`."""
        return self.out(fused_attention(self.qkv(x), rotary, self.heads))


class MLP(nn.Module):
    """Two linear maps with an activation between."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.up = Linear(config.d_model, config.d_ff, bias=config.bias)
        self.down = Linear(config.d_ff, config.d_model, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, T, d_model) to the same."""
        return self.down(ACTIVATIONS[self.activation](self.up(x)))


class SwiGLU(nn.Module):
    """down(silu(gate(x)) · up(x)), three linear maps (Shazeer 2020, equation 6)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = Linear(config.d_model, config.d_ff, bias=config.bias)
        self.up = Linear(config.d_model, config.d_ff, bias=config.bias)
        self.down = Linear(config.d_ff, config.d_model, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, T, d_model) to the same."""
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
        """Shape (B, T, d_model) to the same; `rotary` as in `rotate`."""
        x = x + self.attention(self.attention_norm(x), rotary)
        return x + self.mlp(self.mlp_norm(x))
