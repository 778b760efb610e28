"""Frozen records shared by several layers: plans, results, points, and the interface of a trainer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from sweep.config import ExperimentConfig, RunConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """A corpus under a tokenizer, as far as a plan needs it."""

    corpus: str
    corpus_sha256: str
    n_copies: int | None = None  # documents dropped because they equal another; None for data on the hub
    n_blank: int | None = None  # rows and parts of files dropped because they have no text; None as above
    tokenizer: str
    tokenizer_sha256: str
    vocab_size: int
    sets: Mapping[str, str] = field(default_factory=dict)  # corpus_sha256 of the evaluation sets by name
    n_train_tokens: int | None  # None while the data is not prepared
    n_documents: int | None = None  # None for a recipe that was not read yet, as for the next
    n_documents_held_out: int | None = None
    n_tokens_held_out: int | None = None  # None while the data is not prepared, as for the next
    bytes_per_token: float | None = None  # of all text, separators counted as tokens
    parts: tuple[Mapping[str, Any], ...] = ()  # of a mixture that is prepared: tokens used and text left


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedRun:
    """One run of a plan, with its estimated cost."""

    run_key: str
    config: RunConfig
    flops: int  # exact training FLOPs
    n_params: int  # all unique trainable parameters
    budget_error: float  # flops / flops_budget - 1; 0 without a budget
    corpus_share: float | None  # n_tokens over those of the corpus; None while it is not prepared
    memory_bytes: int  # estimated peak
    time_s: float  # estimated, on one worker
    cost: float  # estimated, in the currency of estimate.price_per_hour
    flops_shared: int = 0  # of `flops`, those of a trunk that another run of the plan trains


@dataclass(frozen=True, kw_only=True, slots=True)
class DroppedCell:
    """A cell of the grid that is not trained, with the reason."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """An experiment and its runs."""

    experiment: ExperimentConfig
    runs: tuple[PlannedRun, ...]
    dropped: tuple[DroppedCell, ...]
    warnings: tuple[str, ...]
    validation: bool = False  # runs that test a prediction; the sweep's settings are those of its other plans
    suggested: bool = False  # runs added to a grid by `sweep suggest` or adaptive.enabled; settings likewise


@dataclass(frozen=True, kw_only=True, slots=True)
class CurvePoint:
    """One record of a training curve, taken at log-spaced steps."""

    step: int  # optimizer steps done
    n_tokens: int
    flops: int  # exact training FLOPs so far
    train_loss: float  # nats per token: mean over the steps since the record before
    lr: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SetScore:
    """The score of a run's final weights on one evaluation set."""

    name: str
    loss: float  # nats per token
    loss_stderr: float | None  # clustered by document
    bits_per_byte: float
    evaluation_sha256: str  # of the windows


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """The result of training one run. `loss` and the fields derived from it are None if the run diverged."""

    status: Literal["done", "diverged"]
    reason: str | None  # why it diverged
    loss: float | None  # held-out, nats per token
    loss_stderr: float | None  # clustered by document
    bits_per_byte: float | None
    train_loss: float | None  # nats per token, mean over the last tenth of the steps
    n_tokens_unique: int
    evaluation_sha256: str
    wall_time_s: float  # the last attempt, plus the time up to the checkpoint that it resumed
    tokens_per_second: float
    peak_memory_bytes: int
    device: str
    torch_version: str
    mfu: float | None  # None where the device's peak is not known
    curve: tuple[CurvePoint, ...]
    b_simple_tokens: float | None = None  # gradient-noise scale; None where not measured or not resolved
    ledger: Mapping[str, float] | None = None  # seconds by activity; their sum is wall_time_s
    choices: Mapping[str, str | int | float] | None = None  # execution choices made at run time
    n_tokens_shared: int = 0  # of the run's tokens, those of a trunk that another run had trained
    mfu_causal: float | None = None  # counting T(T+1)/2 attention pairs
    step_s: float | None = None  # seconds of a step of the last attempt; processor time on one core
    sets: tuple[SetScore, ...] = ()  # of a run that has not diverged


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One finished run, a row of points.csv. The fitter needs n_params, n_tokens, flops and loss only.

    Counts may be fractional in published tables. None is an unknown value, never a stand-in for a failure.
    """

    run_key: str | None = None
    name: str | None = None
    arm: str | None = None  # of an experiment with arms; laws are fitted to one arm at a time
    purpose: str | None = None  # None: a point of the grid; "hparam_check": never fitted
    status: Literal["done", "diverged"] = "done"
    flops_budget: float | None = None  # what the plan asked for; None outside IsoFLOP grids
    flops: float | None = None  # exact training FLOPs, forward + backward
    flops_causal: float | None = None  # the same, counting T(T+1)/2 attention pairs
    flops_6nd: float | None = None  # 6 n_params D
    flops_kaplan: float | None = None  # 6 n_params_non_embedding D
    flops_chinchilla: float | None = None  # Hoffmann et al. 2022, appendix F
    flops_optimizer: float | None = None  # matrix multiplications of the optimizer itself, not in the others
    flops_spent: float | None = None  # of `flops`, without those of a trunk that another run had trained
    n_params: float | None = None  # all unique trainable parameters
    n_params_non_embedding: float | None = None
    n_params_embedding: float | None = None
    n_params_head: float | None = None  # 0 when tied
    n_tokens: float | None = None
    n_tokens_unique: float | None = None
    epochs: float | None = None
    loss: float | None = None  # held-out, nats per token
    loss_stderr: float | None = None
    bits_per_byte: float | None = None
    train_loss: float | None = None
    b_simple_tokens: float | None = None  # gradient-noise scale late in training, where it was measured
    d_model: int | None = None
    n_layers: int | None = None
    n_heads: int | None = None
    n_kv_heads: int | None = None
    head_dim: int | None = None
    d_ff: int | None = None
    vocab_size: int | None = None
    seq_len: int | None = None
    batch_tokens: int | None = None
    n_steps: int | None = None
    lr_peak: float | None = None
    warmup_steps: int | None = None
    weight_decay: float | None = None
    beta2: float | None = None
    schedule: str | None = None
    optimizer: str | None = None
    parametrization: str | None = None
    precision: str | None = None
    seed: int | None = None
    trunk: str | None = None  # the training run this is a checkpoint or a branch of; they share its noise
    corpus: str | None = None
    corpus_sha256: str | None = None
    tokenizer: str | None = None
    tokenizer_sha256: str | None = None
    evaluation_sha256: str | None = None
    wall_time_s: float | None = None
    tokens_per_second: float | None = None
    mfu: float | None = None  # exact FLOPs over the device's bf16 peak
    mfu_causal: float | None = None  # the same, counting T(T+1)/2 attention pairs
    peak_memory_bytes: int | None = None
    device: str | None = None
    torch_version: str | None = None
    code_version: str | None = None
    started_at: str | None = None  # ISO 8601, UTC
    finished_at: str | None = None
    attempts: int | None = None
    provenance: str | None = None  # table and row of an imported point; None for a run of this sweep
    sets: tuple[SetScore, ...] = ()  # the columns loss_NAME and bits_per_byte_NAME

    def values(self) -> dict[str, Any]:
        """Return the value of every column, those of the evaluation sets included."""
        values = {name: getattr(self, name) for name in POINT_COLUMNS}
        for score in self.sets:
            values |= {f"loss_{score.name}": score.loss, f"bits_per_byte_{score.name}": score.bits_per_byte}
        return values


POINT_COLUMNS = tuple(field.name for field in dataclasses.fields(Point) if field.name != "sets")
"""Columns of every table of points."""


def set_columns(points: Iterable[Point]) -> tuple[str, ...]:
    """Return the columns of all evaluation sets of some points, by name."""
    names = sorted({score.name for point in points for score in point.sets})
    return tuple(f"{measure}_{name}" for name in names for measure in ("loss", "bits_per_byte"))


BOOKKEEPING_COLUMNS = frozenset(
    "wall_time_s tokens_per_second mfu mfu_causal peak_memory_bytes device torch_version code_version "
    "started_at finished_at attempts flops_spent provenance".split()
)
"""Columns that differ between two executions of the same run; all others are science."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trunk:
    """The part of a wsd run before its decay, which other runs of the sweep share step for step."""

    key: str
    directory: Path  # directory of its states, shared by all runs of the sweep
    own_step: int  # step at which the run itself branches off
    other_steps: tuple[int, ...]  # branch steps of runs without a result, ascending, up to `own_step`


def trunk_state(directory: Path, step: int) -> Path:
    """Return the directory of a trunk's state after `step` steps; it is created atomically."""
    return directory / f"step-{step:012d}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """Device, directories and options of a run; no field changes its result beyond rounding."""

    data_dir: Path
    device: str  # "cpu" or "cuda:0"
    n_threads: int
    micro_batch_size: int | None
    checkpoint_interval_s: float
    keep_checkpoint: bool = False  # leave the final weights in the session's checkpoint_dir
    measure_noise_scale: bool = False
    deterministic: bool = False  # repeat to the bit on a GPU; a CPU always does
    n_devices: int = 1  # that share every step; the worker's own and those after it
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"  # fsdp spreads the weights too
    compile: bool = True  # on a GPU; False where compiling is expected to take longer than it saves
    trunk: Trunk | None = None  # None: no other run shares one


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackedRun:
    """The description of a run that a tracker gets when the run starts."""

    sweep_dir: Path
    sweep_name: str
    run_key: str
    run_name: str
    config: Mapping[str, Any]


class TrainSession(Protocol):
    """The interface between a training run and its worker. All calls are cheap; only `log` does I/O."""

    checkpoint_dir: Path
    """Private to this attempt; holds the last attempt's checkpoint, if there is a valid one."""

    def should_stop(self) -> bool:
        """True once the run must save its state and raise Interrupted."""
        ...

    def progress(self, step: int) -> None:
        """Report to the heartbeat that `step` steps are done; a run without reports counts as stuck."""
        ...

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one record to the attempt's metrics.jsonl."""
        ...


TrainFunction = Callable[[RunConfig, Placement, TrainSession], RunResult]
"""Trains one run. Raises Interrupted when asked to stop; any other exception is a failed attempt."""
