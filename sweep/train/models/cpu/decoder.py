"""The whole decoder, from tokens to the gradients on its parameters."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sweep.train.models.cpu.attention import causal_attention
from sweep.train.models.cpu.linear import Pullback, add_gradient, gradient, linear
from sweep.train.models.cpu.pointwise import ACTIVATIONS, TAKES_BF16, gated_silu, norm
from sweep.train.models.cross_entropy import CPU_CHUNK_ELEMENTS, chunk_rows, loss_and_gradients
from sweep.train.models.gpt import GPT
from sweep.train.models.layers import MLP, Attention, Block, SwiGLU


def suits(model: nn.Module) -> bool:
    """Whether a model's passes can be these: its weights whole, in fp32, on the CPU."""
    return all(
        type(p) is nn.Parameter and p.device.type == "cpu" and p.dtype == torch.float32
        for p in model.parameters()
    )


@torch.no_grad()
def add_gradients(model: GPT, tokens: Tensor, *, n_batch_tokens: int, bf16: bool) -> Tensor:
    """Add the gradient of the cross-entropy of `tokens`, shape (B, T + 1), over n_batch_tokens.

    Returns that loss, shape (), in nats. With `bf16` linear maps multiply bf16 operands, as
    `sweep.train.models.layers.bf16_linear_maps` says it of the modules.
    """
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    rotary = None if model.rotary is None else model.rotary[:, : inputs.size(1)]
    x, pull = _embed(model, inputs)
    pullbacks = [pull]
    for block in model.blocks:
        assert isinstance(block, Block)
        x, pull = _block(x, block, inputs.size(1), rotary, bf16)
        pullbacks.append(pull)
    x, pull = norm(x, model.norm)
    pullbacks.append(pull)
    loss, g = _head(model, x, targets.flatten(), n_batch_tokens, bf16)
    del x, pull  # else they would hold the last block's longer than it is needed
    while pullbacks:
        g = pullbacks.pop()(g)  # and what it kept is free
    return loss


def _embed(model: GPT, tokens: Tensor) -> tuple[Tensor, Pullback]:
    """(token + position) · input_scale: shape (B, T) to (B·T, d). The pullback returns its gradient."""
    batch, seq_len = tokens.shape
    x = F.embedding(tokens, model.embedding.weight)
    if model.positions is not None:
        x.add_(model.positions.weight[:seq_len])
    if model.input_scale != 1:
        x.mul_(model.input_scale)

    def pull(g: Tensor) -> Tensor:
        if model.input_scale != 1:
            g.mul_(model.input_scale)
        g = g.view(batch, seq_len, -1)
        weight = model.embedding.weight
        add_gradient(weight, torch.ops.aten.embedding_dense_backward(g, tokens, weight.size(0), -1, False))
        if model.positions is not None:
            gradient(model.positions.weight)[:seq_len].add_(g.sum(0))
        return g

    return x.flatten(0, 1), pull


def _block(
    x: Tensor, block: Block, seq_len: int, rotary: Tensor | None, bf16: bool
) -> tuple[Tensor, Pullback]:
    """Shape (B·T, d) to the same."""
    mixed, pull_attention = _attend(x, block, seq_len, rotary, bf16)
    y, pull_mlp = _transform(mixed, block, bf16)
    return y, lambda g: pull_attention(pull_mlp(g))


def _attend(
    x: Tensor, block: Block, seq_len: int, rotary: Tensor | None, bf16: bool
) -> tuple[Tensor, Pullback]:
    """x + attention(norm(x))."""
    attention: Attention = block.attention
    h, pull_norm = norm(x, block.attention_norm)
    qkv, pull_qkv = linear(h, attention.qkv, bf16=bf16)
    operand = torch.bfloat16 if bf16 else x.dtype
    mixed, pull_mixed = causal_attention(qkv, seq_len, rotary, attention.heads, operand)
    y, pull_out = linear(mixed, attention.out, bf16=bf16, residual=x)

    def pull(g: Tensor) -> Tensor:
        return pull_norm(pull_qkv(pull_mixed(pull_out(g))).to(g.dtype)).add_(g)

    return y, pull


def _transform(x: Tensor, block: Block, bf16: bool) -> tuple[Tensor, Pullback]:
    """x + mlp(norm(x))."""
    mlp = block.mlp
    h, pull_norm = norm(x, block.mlp_norm)
    inner, pull_inner = _gated(h, mlp, bf16) if isinstance(mlp, SwiGLU) else _activated(h, mlp, bf16)
    y, pull_down = linear(inner, mlp.down, bf16=bf16, residual=x)

    def pull(g: Tensor) -> Tensor:
        return pull_norm(pull_inner(pull_down(g)).to(g.dtype)).add_(g)

    return y, pull


def _activated(h: Tensor, mlp: MLP, bf16: bool) -> tuple[Tensor, Pullback]:
    """activation(up(h)): shape (B·T, d) to (B·T, d_ff)."""
    u, pull_up = linear(h, mlp.up, bf16=bf16)
    if mlp.activation not in TAKES_BF16:
        u = u.to(h.dtype)
    y, pull_activation = ACTIVATIONS[mlp.activation](u)
    dtype = u.dtype  # of u a closure would keep all
    return y, lambda g: pull_up(pull_activation(g.to(dtype)))


def _gated(h: Tensor, mlp: SwiGLU, bf16: bool) -> tuple[Tensor, Pullback]:
    """silu(gate(h)) · up(h), likewise."""
    gate, pull_gate = linear(h, mlp.gate, bf16=bf16)
    up, pull_up = linear(h, mlp.up, bf16=bf16)
    dtype = h.dtype
    y, pull_silu = gated_silu(gate.to(dtype), up.to(dtype))

    def pull(g: Tensor) -> Tensor:
        d_gate, d_up = pull_silu(g.to(dtype))
        return pull_gate(d_gate).to(dtype).add_(pull_up(d_up))

    return y, pull


def _head(
    model: GPT, hidden: Tensor, targets: Tensor, n_batch_tokens: int, bf16: bool
) -> tuple[Tensor, Tensor]:
    """The loss of the rows, and the gradient of `hidden`; the head's is added to what its weight holds."""
    scale, weight = model.config.output_scale, model.head.weight
    scaled = hidden if scale == 1 else hidden * scale
    n_rows = chunk_rows(len(hidden), weight.size(0), CPU_CHUNK_ELEMENTS)
    total, d_hidden = loss_and_gradients(
        scaled, weight, targets, gradient(weight), n_rows=n_rows, bf16=bf16, scale=1 / n_batch_tokens
    )
    return total / n_batch_tokens, d_hidden if scale == 1 else d_hidden.mul_(scale)
