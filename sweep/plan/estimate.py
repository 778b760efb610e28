"""What a run will take: seconds, peak memory, cost and room on the disk, before it is started."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sweep import flops
from sweep.config import EVALUATION_BATCH_TOKENS, EstimateConfig, ModelConfig, RunConfig

PROCESS_BYTES = 270_000_000  # resident, a worker that has imported all it needs; CPU build of torch 2.13
RUNTIME_BYTES = {
    "cpu": 110_000_000,  # pages of its libraries that a first run touches; torch 2.13
    "cuda": 32 << 20,  # the workspace of cuBLAS on Hopper, which torch's allocator counts
}
MLP_COPIES = {"relu2": 2, "gelu": 3, "gelu_exact": 2, "swiglu": 4}
"""Of the MLP's width, kept for the backward pass: what the activation goes by, and what it gives."""
MAX_DENSE_SEQ_LEN = 256  # as train.models.cpu.attention: up to here the CPU keeps the scores of attention
LOGITS_AT_ONCE = {"cpu": 2**20, "cuda": 2**29}  # at most, as train.models.cross_entropy and train.cuda
MIN_CHUNK_ROWS = 64
NOISE_PARTS = 8  # of a batch, as sweep.train.noise_scale
FRAGMENTATION = {("cpu", "fp32"): 1.1, ("cpu", "bf16"): 1.2, ("cuda", "fp32"): 1.0, ("cuda", "bf16"): 1.0}
"""Resident over asked for, of blocks as large as activations: the C library's heap, where passes before the
first replay, and casts above all, leave holes; of torch's allocator only what is allocated counts."""


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


def memory_bytes(run: RunConfig, micro_batch_size: int | None, *, measures_noise: bool = False) -> int:
    """Peak bytes of a worker with this run, on the CPU."""
    return memory(run, micro_batch_size, measures_noise=measures_noise).total


def memory(
    run: RunConfig, micro_batch_size: int | None, *, device: str = "cpu", measures_noise: bool = False
) -> Memory:
    """A run's peak memory by component: of training, scoring or measuring noise, whichever needs most.

    On "cpu" it is the rise of the resident high-water mark, measured to be within 20 % above 200 MB; on
    "cuda" torch's max_memory_allocated in eager mode, from the same components and not yet measured.
    """
    passes = [_training_pass(run, micro_batch_size, device), _scoring_pass(run, device)]
    if measures_noise:
        passes.append(_noise_pass(run, micro_batch_size, device))
    return max(passes, key=lambda peak: peak.rise)


def _training_pass(run: RunConfig, micro_batch_size: int | None, device: str) -> Memory:
    """What is kept for the backward pass, and a chunk's logits thrice in fp32: as they are, as probabilities
    and on their way there. A CPU makes the embedding's gradient beside the one it is added to.
    """
    model = run.model
    tokens = min(micro_batch_size or run.batch_size, run.batch_size) * model.seq_len
    kept = tokens * _activation_bytes_per_token(run, device)
    counts = flops.n_params(model)
    chunk = max(MIN_CHUNK_ROWS * model.vocab_size, LOGITS_AT_ONCE[device])
    return _with_weights(
        run,
        device,
        gradients=4 * (counts.total + (model.vocab_size * model.d_model if device == "cpu" else 0)),
        activations=round(FRAGMENTATION[device, run.precision] * kept),
        logits=12 * min(tokens * model.vocab_size, chunk),
    )


def _noise_pass(run: RunConfig, micro_batch_size: int | None, device: str) -> Memory:
    """A small part of the batch, with two sets of gradients beside the run's own: its own, and their mean.

    It goes through the modules, which on a CPU keep bf16 copies of the weights once more.
    """
    part = max(1, min(micro_batch_size or run.batch_size, run.batch_size // NOISE_PARTS))
    peak, n_params = _training_pass(run, part, device), flops.n_params(run.model).total
    copies = 2 * n_params if run.precision == "bf16" and device == "cpu" else 0
    return replace(peak, gradients=peak.gradients + 8 * n_params, parameters=peak.parameters + copies)


def _scoring_pass(run: RunConfig, device: str) -> Memory:
    """In fp32 whatever the training: what one block has at once, then the logits in two forms in its place.

    The gradients stay where they are.
    """
    model, tokens = run.model, min(EVALUATION_BATCH_TOKENS, run.evaluation.n_tokens)
    block = (flops.mlp_matrices(model) + 1) * model.d_ff + 8 * model.d_model
    activations = round(FRAGMENTATION[device, "fp32"] * tokens * 4 * block)
    return _with_weights(
        run,
        device,
        gradients=4 * flops.n_params(model).total,
        activations=activations,
        logits=max(0, tokens * 8 * model.vocab_size - activations),
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
    """Bytes kept for the backward pass by one position, and what that of one block adds to them."""
    model = run.model
    narrow = 2 if run.precision == "bf16" else 4
    if device == "cpu":
        per_block = _kept_on_cpu(model, narrow)
    else:
        per_block = (_kept_by_fused_attention(model) + 4 * model.d_model) * narrow
        per_block += MLP_COPIES[model.activation] * model.d_ff * narrow
    d, d_ff, scores = model.d_model, model.d_ff, _scores(model, device)
    return model.n_layers * per_block + 4 * max(3 * d_ff + 5 * d, 2 * scores + 9 * d)


def _kept_on_cpu(model: ModelConfig, narrow: int) -> int:
    """Bytes a position leaves in one block of `train.models.cpu`; operands of linear maps take `narrow` each.

    Both norms keep what they divide and leave what the next map multiplies. Attention keeps its scores and
    what it was given, queries and keys once more where they are normalised, where they are rotated, and
    queries where their keys are shared; the MLP what its activation goes by, then its result, an operand.
    """
    d, d_kv, d_ff = model.d_model, model.d_kv, model.d_ff
    norms = 2 * d * (4 + narrow)
    if _scores(model, "cpu"):
        again = (model.qk_norm + (model.positions == "rope")) * (d + d_kv)
        shared = d if model.n_kv_heads < model.n_heads else 0
        attention = 4 * (d + 2 * d_kv + again + shared + _scores(model, "cpu")) + narrow * d
    else:
        attention = 4 * _kept_by_fused_attention(model) + (narrow * d if narrow < 4 else 0)
    bare = narrow if model.activation == "gelu_exact" and not model.bias else 4
    mlp = d_ff * ((MLP_COPIES[model.activation] - 1) * bare + narrow)
    return norms + attention + mlp


def _kept_by_fused_attention(model: ModelConfig) -> int:
    """Numbers a position leaves: queries, keys and values as they come, queries and keys again where they are
    normalised or rotated, shared keys and values once for each head of queries, and what comes out, twice.
    """
    d, d_kv = model.d_model, model.d_kv
    shared = 0 if model.n_kv_heads == model.n_heads else 2 * d
    again = (model.qk_norm or model.positions == "rope") * (d + d_kv)
    return d + 2 * d_kv + again + shared + 2 * d + model.n_heads


def _scores(model: ModelConfig, device: str) -> int:
    """Scores of attention that one position has in memory."""
    dense = device == "cpu" and model.seq_len <= MAX_DENSE_SEQ_LEN
    return model.n_heads * model.seq_len if dense else 0
