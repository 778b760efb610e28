"""What a run will take: seconds, peak memory, cost and room on the disk, before it is started."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from sweep import flops
from sweep.config import EVALUATION_BATCH_TOKENS, EstimateConfig, ModelConfig, RunConfig

PROCESS_BYTES = 270_000_000  # resident, a worker that has imported all it needs; CPU build of torch 2.13
RUNTIME_BYTES = {
    "cpu": 110_000_000,  # pages of its libraries that a first run touches; torch 2.13
    "cuda": 32 << 20,  # the workspace of cuBLAS on Hopper, which torch's allocator counts
}
BYTES_PER_ACTIVATION = {"fp32": 4, "bf16": 3}  # bf16: outputs of linear maps are, residuals and norms are not
MLP_COPIES = {"relu2": 3, "gelu": 2, "gelu_exact": 2, "swiglu": 4}
FRAGMENTATION = {"cpu": 1.22, "cuda": 1.0}
"""Resident over asked for, of blocks as large as activations: the C library's heap against torch's allocator,
of which only what is allocated counts here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bytes at a run's peak, by what they hold."""

    parameters: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    runtime: int  # what libraries take for themselves once they are used
    process: int  # what was there before the run

    @property
    def rise(self) -> int:
        """What the run adds: `peak_memory_bytes` of its result."""
        return (
            self.parameters + self.gradients + self.optimizer + self.activations + self.logits + self.runtime
        )

    @property
    def total(self) -> int:
        """What a worker with this run needs."""
        return self.process + self.rise


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
    """Peak bytes of a worker with this run, on the CPU."""
    return memory(run, micro_batch_size).total


def memory(run: RunConfig, micro_batch_size: int | None, *, device: str = "cpu") -> Memory:
    """A run's peak memory by component: of its training or of its scoring pass, whichever needs more.

    On "cpu" it is the rise of the resident high-water mark, measured to be within 20 % above 200 MB; on
    "cuda" torch's max_memory_allocated in eager mode, from the same components and not yet measured.
    """
    passes = (_training_pass(run, micro_batch_size, device), _scoring_pass(run, device))
    return max(passes, key=lambda peak: peak.rise)


def _training_pass(run: RunConfig, micro_batch_size: int | None, device: str) -> Memory:
    """Logits thrice in fp32: themselves, as log-probabilities, and their gradient."""
    tokens = min(micro_batch_size or run.batch_size, run.batch_size) * run.model.seq_len
    kept = tokens * BYTES_PER_ACTIVATION[run.precision] * _activations_per_token(run.model)
    return _with_weights(
        run,
        device,
        gradients=4 * flops.n_params(run.model).total,
        activations=round(FRAGMENTATION[device] * kept),
        logits=tokens * 12 * run.model.vocab_size,
    )


def _scoring_pass(run: RunConfig, device: str) -> Memory:
    """In fp32 whatever the training: what one block has at once, and the logits in two forms."""
    model, tokens = run.model, min(EVALUATION_BATCH_TOKENS, run.evaluation.n_tokens)
    block = (flops.mlp_matrices(model) + 1) * model.d_ff + 8 * model.d_model
    return _with_weights(
        run, device, gradients=0, activations=tokens * 4 * block, logits=tokens * 8 * model.vocab_size
    )


def _with_weights(run: RunConfig, device: str, *, gradients: int, activations: int, logits: int) -> Memory:
    n_params = flops.n_params(run.model).total
    return Memory(
        parameters=4 * n_params,
        gradients=gradients,
        optimizer=8 * n_params,  # the two moments of AdamW
        activations=activations,
        logits=logits,
        runtime=RUNTIME_BYTES[device],
        process=PROCESS_BYTES if device == "cpu" else 0,
    )


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
    once more for each head of queries (2 d), the attention output twice (2 d), and what the MLP's activation
    takes and makes (MLP_COPIES d_ff).
    """
    d, d_kv = model.d_model, model.d_kv
    copies = 1 + model.qk_norm + (model.positions == "rope")
    shared = 0 if model.n_kv_heads == model.n_heads else 2 * d
    attention = copies * (d + d_kv) + d_kv + shared + 2 * d
    mlp = MLP_COPIES[model.activation] * model.d_ff
    return model.n_layers * (6 * d + attention + mlp) + 4 * d
