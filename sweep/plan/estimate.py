"""What a run will take: seconds, peak memory, cost and room on the disk, before it is started."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from sweep import flops
from sweep.config import EVALUATION_BATCH_TOKENS, EstimateConfig, ModelConfig, RunConfig

PROCESS_BYTES = 380_000_000  # resident, a worker that has trained next to nothing; CPU build of torch 2.13
OPTIMIZER_BYTES_PER_PARAM = 16  # fp32 weight, gradient and the two AdamW moments

CHECKPOINT_BYTES_PER_PARAM = 12  # fp32 weight and the two AdamW moments
CHECKPOINTS_AT_ONCE = 4  # of a run in progress: two kept, and two of the attempt before while they are copied
CHECKPOINTS_KEPT = 2
RUN_BYTES = 98_304  # config, claim, metrics, curve and result: a dozen files, mostly of one block
SWEEP_BYTES = 16_777_216  # plans, tables, fit, figures and logs


def time_s(run: RunConfig, estimate: EstimateConfig) -> float:
    """Seconds on one worker: FLOPs, the optimizer's own too, at the sustained rate plus a fixed cost a step.

    The held-out evaluation is one forward pass, a third of a training pass, over its tokens.
    """
    training = flops.count(run.model, run.n_tokens).flops
    training += flops.optimizer_flops_per_step(run.model, run.optimizer) * run.n_steps
    evaluation = flops.flops_per_token(run.model) * run.evaluation.n_tokens / 3
    return (training + evaluation) / estimate.flops_per_second + run.n_steps * estimate.step_overhead_s


def cost(seconds: float, estimate: EstimateConfig) -> float:
    """What `seconds` of one worker's device cost."""
    return seconds / 3600 * estimate.price_per_hour


def memory_bytes(run: RunConfig, micro_batch_size: int | None) -> int:
    """Peak bytes: process, parameters with AdamW state, and the larger of a training and a scoring pass.

    Either pass holds the logits three times in fp32: as themselves, as log-probabilities, and as a gradient
    or as losses in fp64. Training holds the saved activations too.
    """
    tokens = min(micro_batch_size or run.batch_size, run.batch_size) * run.model.seq_len
    element = 2 if run.precision == "bf16" else 4
    logits = 12 * run.model.vocab_size
    training = tokens * (element * _activations_per_token(run.model) + logits)
    scoring = min(EVALUATION_BATCH_TOKENS, run.evaluation.n_tokens) * logits
    weights = OPTIMIZER_BYTES_PER_PARAM * flops.n_params(run.model).total
    return PROCESS_BYTES + weights + max(training, scoring)


def disk_bytes(runs: Sequence[RunConfig], n_workers: int, *, keep_checkpoint: bool) -> int:
    """Most bytes that training `runs` writes: the largest runs' checkpoints at once, and what each leaves."""
    checkpoints = [CHECKPOINT_BYTES_PER_PARAM * flops.n_params(run.model).total for run in runs]
    kept = CHECKPOINTS_KEPT * sum(checkpoints) if keep_checkpoint else 0
    under_way = CHECKPOINTS_AT_ONCE * sum(heapq.nlargest(n_workers, checkpoints))
    return SWEEP_BYTES + RUN_BYTES * len(runs) + kept + under_way


def _activations_per_token(model: ModelConfig) -> int:
    """Numbers kept for the backward pass by one position.

    A block keeps the inputs of two norms and two residual sums (4 d), the norms' outputs (2 d), queries and
    keys once, and again after normalisation and after rotation, the values (d_kv), shared keys and values
    once more for each head of queries (2 d), the attention output twice (2 d), and the MLP before, within and
    after its activation (3 d_ff; 4 d_ff with a gate).
    """
    d, d_kv = model.d_model, model.d_kv
    copies = 1 + model.qk_norm + (model.positions == "rope")
    shared = 0 if model.n_kv_heads == model.n_heads else 2 * d
    attention = copies * (d + d_kv) + d_kv + shared + 2 * d
    mlp = (flops.mlp_matrices(model) + 1) * model.d_ff
    return model.n_layers * (6 * d + attention + mlp) + 4 * d
