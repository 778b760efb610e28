"""Estimates of a run's time, peak memory, cost and disk space, before it starts.

Constants that training shares with the memory estimate are defined here, where torch is not needed.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sweep import flops
from sweep.config import EVALUATION_BATCH_TOKENS, EstimateConfig, ModelConfig, RunConfig

PROCESS_BYTES = {
    "cpu": 270_000_000,  # resident size of a worker after its imports; CPU build of torch 2.13
    "cuda": 700_000_000,  # of device memory: CUDA context and libraries, 0.5 to 0.8 GB; not yet measured
}
RUNTIME_BYTES = {
    "cpu": 110_000_000,  # library pages first touched by a run; torch 2.13
    "cuda": 4 * (32 << 20),  # cuBLAS workspaces on Hopper: two streams, on the caller's and autograd's thread
}
COMPILE_S = 4.0
"""Compilation of one GPU run, by estimate: 7 s for the first of a width, 2 s with a warm cache, none for
later runs of the process."""

COMPILE_PAYS = 10  # a run is compiled if it takes this many times COMPILE_S
LOGITS_AT_ONCE = {"cpu": 2**20, "cuda": 2**27}
"""Most logits the head has in memory at once in eager code, in three fp32 tensors: 4 MB each on the CPU, the
size of a level-2 or -3 cache, and 0.5 GB on a GPU."""

LOGITS_COMPILED = 2**30
"""The same in compiled code: logits and their gradient in the run's precision, 2 GiB each in bf16."""

MIN_CHUNK_ROWS = 64  # rows of one chunk of the head, at least
NOISE_PARTS = 8  # parts of a batch for the noise scale; its small batch is one part, or one sequence
MLP_COPIES = {"relu2": 2, "gelu": 2, "gelu_exact": 2, "swiglu": 4}
"""Tensors of width d_ff that one MLP keeps for the backward pass."""

USABLE_FRAC = 0.9  # of a device's memory; the rest is for the allocator's fragmentation

FRAGMENTATION = {"cpu": 1.25, "cuda": 1.0}
"""Resident over requested bytes of activations. Measured on a CPU, where the heap has holes; a GPU's figure
counts requested bytes only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bytes at a run's peak, by component."""

    parameters: int
    gradients: int
    optimizer: int
    activations: int  # kept by the blocks for the backward pass
    head: int  # logits and gradients of the head, or a block's temporary tensors, whichever is larger
    runtime: int  # allocated by libraries on first use
    process: int  # resident before the run

    @property
    def rise(self) -> int:
        """Memory added by the run: `peak_memory_bytes` of its result."""
        return self.parameters + self.gradients + self.optimizer + self.activations + self.head + self.runtime

    @property
    def total(self) -> int:
        """Memory of a worker with this run."""
        return self.process + self.rise


ASSUMED_FLOPS_PER_SECOND = 3.5e10  # of a core, where this machine was not measured
CHECKPOINT_BYTES_PER_PARAM = 12  # fp32 weight and the two AdamW moments
CHECKPOINTS_AT_ONCE = 4  # per run in progress: its own two, and two of the previous attempt being copied
CHECKPOINTS_KEPT = 2
RUN_BYTES = 98_304  # config, claim, metrics, curve and result: a dozen files, mostly of one disk block
SWEEP_BYTES = 16_777_216  # plans, tables, fit, figures and logs


def time_s(run: RunConfig, estimate: EstimateConfig, *, device: str = "cpu") -> float:
    """Return seconds on one worker: all FLOPs at the sustained rate, plus a fixed overhead per step.

    On a GPU also the compilation, where it pays. FLOPs include the optimizer's. The held-out evaluation costs
    a third of a training pass over its tokens.
    """
    training = flops.count(run.model, run.n_tokens).flops
    training += flops.optimizer_flops_per_step(run.model, run.optimizer) * run.n_steps
    n_scored = run.evaluation.n_tokens * (1 + len(run.evaluation.sets))
    evaluation = flops.flops_per_token(run.model) * n_scored / 3
    seconds = (training + evaluation) / rate(estimate) + run.n_steps * estimate.step_overhead_s
    return with_compilation(seconds, device)


def rate(estimate: EstimateConfig) -> float:
    """Return the FLOP/s that are configured, else assumed."""
    return estimate.flops_per_second or ASSUMED_FLOPS_PER_SECOND


def with_compilation(seconds: float, device: str) -> float:
    """Return the seconds of a run with its compilation, on a GPU and where it pays."""
    return seconds + (COMPILE_S if device == "cuda" and compilation_pays(seconds) else 0.0)


def compilation_pays(seconds: float) -> bool:
    """Return whether a GPU run that takes `seconds` by estimate is compiled."""
    return seconds >= COMPILE_PAYS * COMPILE_S


def equal_parts(n_sequences: int, at_most: int) -> int:
    """Return the sequences of one of the fewest micro-batches of at most `at_most`, as equal as possible.

    >>> equal_parts(66, 32), equal_parts(7, 3), equal_parts(4, 100)
    (22, 3, 4)
    """
    n_parts = -(-n_sequences // at_most)
    return -(-n_sequences // n_parts)


def fitting_micro_batch(run: RunConfig, n_sequences: int, device_bytes: int) -> int:
    """Return the largest of n, n/2, n/4, ... sequences that a GPU holds by estimate; at least 1."""
    while n_sequences > 1:
        if memory(run, n_sequences, device="cuda").total <= USABLE_FRAC * device_bytes:
            break
        n_sequences = (n_sequences + 1) // 2
    return n_sequences


def cost(seconds: float, estimate: EstimateConfig) -> float:
    """Return the price of `seconds` on one worker's device."""
    return seconds / 3600 * estimate.price_per_hour


def memory_bytes(
    run: RunConfig, micro_batch_size: int | None, *, device: str = "cpu", measures_noise: bool = False
) -> int:
    """Return the peak bytes of a worker with this run, in the memory of the device ("cpu" or "cuda")."""
    return memory(run, micro_batch_size, device=device, measures_noise=measures_noise).total


def memory(
    run: RunConfig, micro_batch_size: int | None, *, device: str = "cpu", measures_noise: bool = False
) -> Memory:
    """Return a run's peak memory by component: the largest of training, scoring and measuring noise.

    On "cpu" it estimates the rise of the resident high-water mark, measured to be within 20 % above 200 MB;
    on "cuda" the rise of torch's max_memory_allocated, not yet measured.
    """
    passes = [_training_pass(run, micro_batch_size, device), _scoring_pass(run, device)]
    if measures_noise:
        passes.append(_noise_pass(run, micro_batch_size, device))
    return max(passes, key=lambda peak: peak.rise)


def _training_pass(run: RunConfig, micro_batch_size: int | None, device: str) -> Memory:
    """Return the peak of a forward and backward pass: in the head's chunk, its backward pass, or a block's.

    The head keeps its gradients from its forward pass, and has each twice while it scales them. A chunk's
    logits are there three times in fp32, in compiled code as logits and gradient in the run's precision. The
    gradient of a tied embedding waits for the end of the pass.
    """
    model = run.model
    tokens = equal_parts(run.batch_size, micro_batch_size or run.batch_size) * model.seq_len
    table = 4 * model.vocab_size * model.d_model
    logits = tokens * model.vocab_size
    chunk = 12 * min(logits, max(MIN_CHUNK_ROWS * model.vocab_size, LOGITS_AT_ONCE[device]))
    if device == "cuda":  # compiled or not
        chunk = max(chunk, (4 if run.precision == "bf16" else 8) * min(logits, LOGITS_COMPILED))
    of_hidden = 4 * tokens * model.d_model
    in_block = tokens * 4 * (3 * model.d_ff + 5 * model.d_model)
    at_head = max(table + of_hidden + chunk, 2 * (table + of_hidden))
    further = max(at_head, in_block + (table if model.tied else 0), 2 * table)
    kept = tokens * model.n_layers * _kept_by_block(run, device)
    copies = 2 if device == "cuda" else 1  # while a graph is captured
    return _with_weights(
        run,
        device,
        gradients=copies * 4 * flops.n_params(model).total,
        activations=round(FRAGMENTATION[device] * kept),
        head=further,
    )


def _noise_pass(run: RunConfig, micro_batch_size: int | None, device: str) -> Memory:
    """Return the peak with a part of the batch and two more sets of gradients: the part's and their mean."""
    part = max(1, min(micro_batch_size or run.batch_size, run.batch_size // NOISE_PARTS))
    peak, n_params = _training_pass(run, part, device), flops.n_params(run.model).total
    return replace(peak, gradients=peak.gradients + 8 * n_params)


def _scoring_pass(run: RunConfig, device: str) -> Memory:
    """Return the peak of scoring, in fp32 at any precision: one block's tensors, or the logits twice.

    The gradients stay allocated.
    """
    model, tokens = run.model, min(EVALUATION_BATCH_TOKENS, run.evaluation.n_tokens)
    block = (flops.mlp_matrices(model) + 1) * model.d_ff + 8 * model.d_model
    activations = round(FRAGMENTATION[device] * tokens * 4 * block)
    return _with_weights(
        run,
        device,
        gradients=4 * flops.n_params(model).total,
        activations=activations,
        head=max(0, tokens * 8 * model.vocab_size - activations),
    )


def _with_weights(run: RunConfig, device: str, *, gradients: int, activations: int, head: int) -> Memory:
    n_params = flops.n_params(run.model).total
    return Memory(
        parameters=(6 if run.precision == "bf16" else 4) * n_params,  # autocast keeps a bf16 copy of each
        gradients=gradients,
        optimizer=_optimizer_bytes(run),
        activations=activations,
        head=head,
        runtime=RUNTIME_BYTES[device],
        process=PROCESS_BYTES[device],
    )


def _optimizer_bytes(run: RunConfig) -> int:
    """Return the bytes of optimizer state: two moments (AdamW), or one momentum (Muon on matrices, SGD)."""
    total = flops.n_params(run.model).total
    if run.optimizer.name == "sgd":
        return 4 * total if run.optimizer.momentum else 0
    of_muon = flops.hidden_params(run.model) if run.optimizer.name == "muon" else 0
    return 8 * total - 4 * of_muon


def disk_bytes(runs: Sequence[RunConfig], n_workers: int, *, keep_checkpoint: bool) -> int:
    """Return the most disk bytes used by `runs`: checkpoints of the largest at once, and all results."""
    checkpoints = [CHECKPOINT_BYTES_PER_PARAM * flops.n_params(run.model).total for run in runs]
    kept = CHECKPOINTS_KEPT * sum(checkpoints) if keep_checkpoint else 0
    under_way = CHECKPOINTS_AT_ONCE * sum(heapq.nlargest(n_workers, checkpoints))
    return SWEEP_BYTES + RUN_BYTES * len(runs) + kept + under_way


def _kept_by_block(run: RunConfig, device: str) -> int:
    """Return the bytes that one position of one block keeps for the backward pass.

    The residual stream is fp32; operands of linear maps and of attention take 2 bytes in bf16, else 4. A norm
    keeps its input and its output as an operand; RMS norm on a CPU also keeps the normalised input in fp32.
    Gate and up projection of a SwiGLU cast their common input separately.
    """
    model = run.model
    narrow = 2 if run.precision == "bf16" else 4
    norms = 2 * model.d_model * (4 + narrow + (4 if model.norm == "rms" and device == "cpu" else 0))
    if model.activation == "swiglu" and narrow < 4:
        norms += model.d_model * narrow
    return norms + _kept_by_attention(model, narrow) + MLP_COPIES[model.activation] * model.d_ff * narrow


def _kept_by_attention(model: ModelConfig, narrow: int) -> int:
    """Return the bytes that attention keeps per position, its output included.

    Queries and keys are new tensors where they are normalised or rotated, keys and values where each serves
    several heads of queries; else they are views of the packed projections. The output is copied where its
    layout is not that of the packed projections. The log-sum-exp takes 4 bytes a head. QK-norm in bf16 keeps
    an fp32 copy of its input.
    """
    d, d_kv, is_narrow = model.d_model, model.d_kv, narrow < 4
    is_shared = model.n_kv_heads < model.n_heads
    is_turned = model.qk_norm or model.positions == "rope"
    packed = d + 2 * d_kv if not (is_shared and is_turned and (is_narrow or not model.qk_norm)) else 0
    turned = (d + (0 if is_shared and is_narrow else d_kv)) if is_turned else 0
    repeated = 2 * d if is_shared else 0
    output = 2 * d if is_turned else d
    widened = 4 * (d + d_kv) if is_narrow and model.qk_norm else 0
    return narrow * (packed + turned + repeated + output) + widened + 4 * model.n_heads
