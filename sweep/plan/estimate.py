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
MLP_COPIES = {"relu2": 2, "gelu": 3, "gelu_exact": 2, "swiglu": 4}  # kept between its two linear maps
MAX_DENSE_SEQ_LEN = 256  # as sweep.models.attention: up to here the CPU keeps the scores of attention
LOGITS_AT_ONCE = {"cpu": 2**20, "cuda": 2**29}  # at most, as sweep.models.cross_entropy and sweep.train.cuda
MIN_CHUNK_ROWS = 64
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
    """What is kept for the backward pass, and a chunk's logits thrice in fp32: as they are, as probabilities
    and on their way there.

    AdamW's flat gradient is gathered on the CPU from those of the parameters, so there are two; on a GPU one.
    """
    model = run.model
    tokens = min(micro_batch_size or run.batch_size, run.batch_size) * model.seq_len
    kept = tokens * _activation_bytes_per_token(run, device)
    copies = 2 if device == "cpu" and run.optimizer.name == "adamw" else 1
    chunk = max(MIN_CHUNK_ROWS * model.vocab_size, LOGITS_AT_ONCE[device])
    return _with_weights(
        run,
        device,
        gradients=4 * copies * flops.n_params(model).total,
        activations=round(FRAGMENTATION[device] * kept),
        logits=12 * min(tokens * model.vocab_size, chunk),
    )


def _scoring_pass(run: RunConfig, device: str) -> Memory:
    """In fp32 whatever the training: what one block has at once, and the logits in two forms.

    AdamW's flat gradient stays where it is.
    """
    model, tokens = run.model, min(EVALUATION_BATCH_TOKENS, run.evaluation.n_tokens)
    block = (flops.mlp_matrices(model) + 1) * model.d_ff + 8 * model.d_model + 2 * _scores(model, device)
    return _with_weights(
        run,
        device,
        gradients=4 * flops.n_params(model).total if run.optimizer.name == "adamw" else 0,
        activations=round(FRAGMENTATION[device] * tokens * 4 * block),
        logits=tokens * 8 * model.vocab_size,
    )


def _with_weights(run: RunConfig, device: str, *, gradients: int, activations: int, logits: int) -> Memory:
    n_params = flops.n_params(run.model).total
    copies = 2 * n_params if run.precision == "bf16" and device == "cpu" else 0
    return Memory(
        parameters=4 * n_params + copies,
        gradients=gradients,
        optimizer=_optimizer_bytes(run),
        activations=activations,
        logits=logits,
        runtime=RUNTIME_BYTES[device],
        process=PROCESS_BYTES if device == "cpu" else 0,
    )


def _optimizer_bytes(run: RunConfig) -> int:
    """Two moments of AdamW; one momentum of Muon on the matrices of the blocks; SGD's, where it has any."""
    total = flops.n_params(run.model).total
    if run.optimizer.name == "sgd":
        return 4 * total if run.optimizer.momentum else 0
    of_muon = flops.hidden_params(run.model) if run.optimizer.name == "muon" else 0
    return 8 * total - 4 * of_muon


def disk_bytes(runs: Sequence[RunConfig], n_workers: int, *, keep_checkpoint: bool) -> int:
    """Most bytes that training `runs` writes: the largest runs' checkpoints at once, and what each leaves."""
    checkpoints = [CHECKPOINT_BYTES_PER_PARAM * flops.n_params(run.model).total for run in runs]
    kept = CHECKPOINTS_KEPT * sum(checkpoints) if keep_checkpoint else 0
    under_way = CHECKPOINTS_AT_ONCE * sum(heapq.nlargest(n_workers, checkpoints))
    return SWEEP_BYTES + RUN_BYTES * len(runs) + kept + under_way


def _activation_bytes_per_token(run: RunConfig, device: str) -> int:
    """Bytes kept for the backward pass by one position, and what the backward pass of a block adds to them.

    In fp32 a block keeps what two norms take or divide and what they give (4 d), queries, keys and values as
    attention takes them, queries and keys before rotation with QK-norm and again where attention is fused
    and rotates, shared keys and values once for each head of queries (2 d) there, the scores of attention
    where they are kept, what it gives (d, twice where fused), and what the MLP's activation takes and makes
    (MLP_COPIES d_ff). In bf16 the operands of linear maps, and on a GPU their results, take half. The
    backward pass of the last block has two more of the scores, of the MLP's width, and a few of d.
    """
    model = run.model
    d, d_kv, d_ff = model.d_model, model.d_kv, model.d_ff
    scores = _scores(model, device)
    attention = (1 + model.qk_norm) * (d + d_kv) + d_kv + d + scores
    if not scores:
        shared = 0 if model.n_kv_heads == model.n_heads else 2 * d
        attention += (model.positions == "rope") * (d + d_kv) + shared + d
    block = 4 * d + attention + MLP_COPIES[model.activation] * d_ff
    narrow = 0
    if run.precision == "bf16":
        narrow = 3 * d + d_ff if device == "cpu" else block // 2
    once = 2 * scores + 2 * d_ff + 4 * d + 4 * d
    return 4 * (model.n_layers * block + once) - 2 * model.n_layers * narrow


def _scores(model: ModelConfig, device: str) -> int:
    """Scores of attention that one position has in memory."""
    dense = device == "cpu" and model.seq_len <= MAX_DENSE_SEQ_LEN
    return model.n_heads * model.seq_len if dense else 0
