"""Exact training FLOPs and parameter counts of a decoder under all stored conventions; peak FLOP/s by device.

Legend: N parameters, D tokens, C FLOPs, T sequence length, V vocabulary, L layers, d width (of the residual
stream and of all queries), d_kv width of all keys and of all values, d_ff width in the MLP, m its matrices.
A multiply-add counts as 2 FLOPs; the backward pass costs twice the forward (Kaplan et al. 2020, section 2.1).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sweep.config import ModelConfig, RunOptimizer
from sweep.config.values import MLP_MATRICES

PEAK_FLOPS_PER_SECOND = {
    "GB200": 2500e12,
    "B200": 2250e12,
    "H200 NVL": 836e12,
    "H200": 989e12,
    "GH200": 989e12,
    "H100 NVL": 836e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H800": 989e12,
    "H20": 148e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "RTX 6000 Ada": 364e12,
    "A6000": 155e12,
    "A40": 150e12,
    "A10G": 70e12,
    "A10": 125e12,
    "RTX 5090": 210e12,
    "RTX 4090": 165e12,
}
"""Dense bf16, from NVIDIA's data sheets; the first key that a name contains as whole words applies."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ParamCount:
    """Unique trainable parameters by group: total = non_embedding + embedding + head."""

    non_embedding: int  # blocks and norms
    embedding: int  # token table, and the table of learned positions
    head: int  # 0 when tied to the embedding

    @property
    def total(self) -> int:
        """Number of unique trainable parameters, N in Hoffmann et al. 2022."""
        return self.non_embedding + self.embedding + self.head


@dataclass(frozen=True, kw_only=True, slots=True)
class FlopCount:
    """Training FLOPs of one run under each convention."""

    flops: int  # all matrix multiplications, attention over the full T x T square
    flops_causal: int  # the same with T(T+1)/2 attention pairs
    flops_6nd: int  # 6 N D, N all parameters
    flops_kaplan: int  # 6 N D, N without embedding and head (Kaplan et al. 2020, section 2.1)
    flops_chinchilla: int  # Hoffmann et al. 2022, appendix F


def n_params(model: ModelConfig) -> ParamCount:
    """Count the parameters of `model` by group.

    A block has 2 d² + 2 d·d_kv in attention (queries and output; keys and values), m·d·d_ff in the MLP and
    two norms; one more norm stands before the head. A norm has d gains, and d biases if it is a layer norm
    with biases. Biases of linear maps are as many as their outputs. Rotary positions have no parameters.
    """
    d = model.d_model
    norm = 2 * d if model.norm == "layer" and model.bias else d
    block = _block_weights(model) + 2 * norm
    if model.bias:
        block += (d + 2 * model.d_kv) + d + (mlp_matrices(model) - 1) * model.d_ff + d
    tokens = model.vocab_size * d
    positions = model.seq_len * d if model.positions == "learned" else 0
    return ParamCount(
        non_embedding=model.n_layers * block + norm,
        embedding=tokens + positions,
        head=0 if model.tied else tokens,
    )


def mlp_matrices(model: ModelConfig) -> int:
    """Return m, the matrices of the MLP: up, down and, if gated, the gate (Shazeer 2020, section 2)."""
    return MLP_MATRICES[model.activation]


def _block_weights(model: ModelConfig) -> int:
    """Return the elements of a block's matrices; each costs one multiply-add per position."""
    d = model.d_model
    return 2 * d * d + 2 * d * model.d_kv + mlp_matrices(model) * d * model.d_ff


def hidden_params(model: ModelConfig) -> int:
    """Return the elements of all blocks' matrices, the parameters that Muon updates."""
    return model.n_layers * _block_weights(model)


def forward_flops_per_sequence(model: ModelConfig, *, causal: bool = False) -> int:
    """Return the FLOPs of the forward matrix multiplications over one sequence of T positions.

    Per layer: QKV 2·T·d·(d + 2 d_kv), scores 2·d per pair, values 2·d per pair, output 2·T·d², MLP
    2·T·m·d·d_ff; then the head 2·T·d·V. Pairs are T², or T(T+1)/2 when `causal`. Shared keys and values do
    not reduce them. Biases, norms and look-ups are not matrix multiplications.
    """
    seq_len, d = model.seq_len, model.d_model
    pairs = seq_len * (seq_len + 1) // 2 if causal else seq_len * seq_len
    layer = 2 * seq_len * _block_weights(model) + 4 * pairs * d
    return model.n_layers * layer + 2 * seq_len * d * model.vocab_size


def flops_per_token(model: ModelConfig) -> int:
    """Return the exact training FLOPs per position: 3 x the forward pass, attention over the full square."""
    return 3 * forward_flops_per_sequence(model) // model.seq_len


def count(model: ModelConfig, n_tokens: int) -> FlopCount:
    """Return the training FLOPs of `n_tokens` positions under every convention.

    Raises ValueError when `n_tokens` is not a multiple of seq_len.
    """
    n_sequences, rest = divmod(n_tokens, model.seq_len)
    if rest:
        raise ValueError(f"n_tokens={n_tokens} is not a multiple of seq_len={model.seq_len}")
    params = n_params(model)
    return FlopCount(
        flops=3 * n_sequences * forward_flops_per_sequence(model),
        flops_causal=3 * n_sequences * forward_flops_per_sequence(model, causal=True),
        flops_6nd=6 * params.total * n_tokens,
        flops_kaplan=6 * params.non_embedding * n_tokens,
        flops_chinchilla=n_sequences * _chinchilla_flops_per_sequence(model),
    )


def optimizer_flops_per_step(model: ModelConfig, optimizer: RunOptimizer) -> int:
    """Return the matrix-multiplication FLOPs of one optimizer update: Muon's Newton-Schulz, otherwise 0.

    For each matrix of a block, a x b with r = min(a, b) and c = max(a, b), every iteration multiplies X by
    its transpose, that product by itself and the result by X: 2 r² c + 2 r³ + 2 r² c (Jordan et al. 2024).
    They do not depend on the batch size, so at small batches they are a considerable part of a step.
    """
    if optimizer.name != "muon":
        return 0
    d = model.d_model
    shapes = [(d + 2 * model.d_kv, d), (d, d), *[(model.d_ff, d)] * mlp_matrices(model)]
    iteration = sum(4 * min(a, b) ** 2 * max(a, b) + 2 * min(a, b) ** 3 for a, b in shapes)
    return model.n_layers * optimizer.ns_steps * iteration


def _chinchilla_flops_per_sequence(model: ModelConfig) -> int:
    """Return the FLOPs of Hoffmann et al. 2022, appendix F, which include the embedding and the softmax.

    Forward: embeddings 2·T·V·d; per layer QKV 2·3·T·d·(key·heads), K@Q logits 2·T²·(key·heads), softmax
    3·heads·T², softmax@query reduction 2·T²·(key·heads), linear 2·T·(key·heads)·d, dense 2·T·(2·d·ff);
    final logits 2·T·d·V. Backward is twice the forward. The paper's models have as many heads of keys as of
    queries and two MLP matrices; here projections of shared keys and a third matrix are counted exactly.
    """
    seq_len, d = model.seq_len, model.d_model
    embeddings = 2 * seq_len * model.vocab_size * d
    projections = 2 * seq_len * _block_weights(model)  # QKV, linear and dense
    attention = 4 * seq_len**2 * d + 3 * model.n_heads * seq_len**2
    logits = 2 * seq_len * d * model.vocab_size
    return 3 * (embeddings + model.n_layers * (projections + attention) + logits)


def peak_flops_per_second(device: str) -> float | None:
    """Return the peak bf16 FLOP/s of a device by its vendor's name, or None if unknown.

    >>> peak_flops_per_second("NVIDIA H200"), peak_flops_per_second("NVIDIA RTX A1000")
    (989000000000000.0, None)
    """
    peaks = PEAK_FLOPS_PER_SECOND.items()
    return next((peak for key, peak in peaks if re.search(rf"(?<!\w){key}(?!\w)", device)), None)
