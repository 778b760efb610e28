"""The decoder: embedding, blocks, head and initialisation."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sweep.config import ModelConfig
from sweep.plan.estimate import LOGITS_AT_ONCE
from sweep.train.models.attention import rotary_table
from sweep.train.models.cross_entropy import chunk_rows, summed_cross_entropy
from sweep.train.models.layers import NORMS, Block

RunBlock = Callable[[nn.Module, Tensor, Tensor | None], Tensor]
"""A call of one block: (block, x, rotary) to the new x, shapes as in `Block.forward`."""

POSITION_STD = 0.5
"""Initial std of learned positions over that of token embeddings: 0.01 / 0.02 in GPT-2's released code."""


class GPT(nn.Module):
    """Pre-norm decoder-only transformer, configured entirely by `ModelConfig`.

    Initialisation (normal, by standard deviation): every matrix 1/sqrt(fan_in), so that unit-variance inputs
    give unit-variance outputs (LeCun et al. 1998); the two matrices that write to the residual stream are
    divided by sqrt(2 L) more (Radford et al. 2019, section 2.3); embedding and head 1/sqrt(d_model), so that
    logits have variance 1 at the start and the loss there is ln V + 1/2; learned positions half of that. The
    sum of token and position is multiplied by embedding_scale·sqrt(d_model), which makes the root mean square
    of the embedded tokens embedding_scale. With init_std, that number replaces 1/sqrt(fan_in) and the
    standard deviation of the embedding tables, and their sum is not scaled (nanoGPT uses 0.02). Gains start
    at 1, biases at 0. mup draws the same weights as without init_std and changes output_scale,
    attention_scale and the learning rates (`sweep.plan.parametrization`).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.positions = (
            nn.Embedding(config.seq_len, config.d_model) if config.positions == "learned" else None
        )
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = NORMS[config.norm](config)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tied:
            self.head.weight = self.embedding.weight
        self.rotary: Tensor | None
        self.register_buffer("rotary", _rotary(config), persistent=False)
        self.input_scale = config.input_scale

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights in a fixed order: the same generator state gives the same weights."""
        residual = 1 / math.sqrt(2 * self.config.n_layers)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.dim() < 2:
                    parameter.fill_(0 if name.endswith("bias") else 1)
                    continue
                std = self.config.init_std or parameter.size(-1) ** -0.5
                if name.endswith(("attention.out.weight", "mlp.down.weight")):
                    std *= residual
                if name == "positions.weight" and self.config.init_std is None:
                    std *= POSITION_STD
                parameter.normal_(std=std, generator=generator)

    def hidden(self, tokens: Tensor, run_block: RunBlock | None = None) -> Tensor:
        """Return the input of the head, the last norm times output_scale: (B, T) ids to (B, T, d_model).

        `run_block` applies a block in place of its own call, for instance compiled. Raises ValueError for
        more positions than the config's seq_len.
        """
        seq_len = tokens.size(1)
        if seq_len > self.config.seq_len:
            raise ValueError(f"{seq_len} positions are more than the model's seq_len={self.config.seq_len}")
        x = self.embedding(tokens)
        if self.positions is not None:
            x = x + self.positions.weight[:seq_len]
        x = x * self.input_scale
        rotary = None if self.rotary is None else self.rotary[:, :seq_len]
        for block in self.blocks:
            x = block(x, rotary) if run_block is None else run_block(block, x, rotary)
        x = self.norm(x)
        return x if self.config.output_scale == 1 else x * self.config.output_scale

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits: shape (B, T) token ids to (B, T, vocab_size)."""
        return self.head(self.hidden(tokens))

    def total_loss(self, tokens: Tensor, targets: Tensor, *, n_rows: int | None = None) -> Tensor:
        """Return the cross-entropy summed over all positions in nats, fp32: shapes (B, T) and (B, T) to ().

        The logits of `n_rows` positions are in memory at once; None chooses by device. Inside an autocast
        region the products of the head have bf16 operands.
        """
        hidden = self.hidden(tokens).flatten(0, 1)
        device_type = hidden.device.type
        at_once = LOGITS_AT_ONCE["cpu" if device_type == "cpu" else "cuda"]
        rows = n_rows or chunk_rows(hidden.size(0), self.config.vocab_size, at_once)
        bf16 = torch.is_autocast_enabled(device_type)
        return summed_cross_entropy(hidden, self.head.weight, targets.flatten(), n_rows=rows, bf16=bf16)

    def losses(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of every position in nats, fp32: shapes (B, T) and (B, T) to (B·T,)."""
        logits = self(tokens).flatten(0, 1).float()
        return F.cross_entropy(logits, targets.flatten(), reduction="none")


def _rotary(config: ModelConfig) -> Tensor | None:
    if config.positions != "rope":
        return None
    return rotary_table(config.seq_len, config.head_dim, config.rope_base)
