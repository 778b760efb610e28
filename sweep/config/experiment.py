"""The experiment that a user writes: rules, budgets and a grid."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from sweep.config.architecture import ArchitectureConfig
from sweep.config.corpus import AnyTokenizerConfig, DataConfig
from sweep.config.fitting import FitConfig
from sweep.config.launch import LaunchConfig
from sweep.config.run import EvaluationOptions
from sweep.config.store import StoreConfig
from sweep.config.values import (
    STRICT,
    ClosedFraction,
    Count,
    DecayFraction,
    Flag,
    Float,
    Fraction,
    MuonScaling,
    Name,
    NewtonSchulzSteps,
    NonNegative,
    OpenFraction,
    OptimizerName,
    Parametrization,
    Positive,
    Precision,
    RuleName,
    ScheduleName,
    Seed,
)
from sweep.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class GridConfig:
    """The sizes trained at each budget.

    They are given in one of three ways: widths (`d_model`), target sizes (`n_params`), or, with both null,
    `n_sizes` sizes log-spaced in tokens per parameter over a factor `span` around `tokens_per_param`.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    d_model: tuple[Count, ...] | tuple[tuple[Count, ...], ...] | None = None
    """Widths: one list for all budgets, or one list for each budget. Unit: channels."""
    n_params: tuple[Positive, ...] | tuple[tuple[Positive, ...], ...] | None = None
    """Target sizes, in the same two forms; the family's nearest width is trained. Unit: parameters."""
    tokens_per_param: Positive = 20.0
    """Expected D/N at the optimum (Hoffmann et al. 2022): the centre of sizes chosen by the planner, and the
    ratio that a budget's sizes should enclose. Unit: tokens per parameter."""
    span: Annotated[Float, Field(gt=1, allow_inf_nan=False)] = 16.0
    """Largest over smallest D/N of a budget. Unit: ratio."""
    n_sizes: Count = 6
    """Sizes at each budget. Unit: sizes."""
    max_budget_error: OpenFraction = 0.02
    """Drop a cell with exact FLOPs further from its budget. Unit: fraction of the budget."""
    min_steps: Count = 50
    """Drop a cell with fewer optimizer steps. Unit: steps."""
    max_epochs: Positive = 4.0
    """Drop a cell that reads the corpus more often; up to about 4 times, repeated data is nearly as good as
    new (Muennighoff et al. 2023). Unit: epochs."""

    def __post_init__(self) -> None:
        if self.d_model is not None and self.n_params is not None:
            raise InputError("grid.d_model and grid.n_params are both given: set one of them to null")
        for key, sizes in (("d_model", self.d_model), ("n_params", self.n_params)):
            if sizes is not None and (not sizes or any(size == () for size in sizes)):
                raise InputError(
                    f"grid.{key}={list(sizes)} holds an empty list of sizes: give at least one size"
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """The optimizer. The learning rate, beta2 and weight decay are numbers or rules of `sweep.plan.rules`."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: OptimizerName
    """AdamW; Muon on the matrices of the blocks with AdamW on the rest; or SGD."""
    lr: Positive | RuleName = "step_law"
    """Peak learning rate: a number, a rule, or a power law such as '1.79 * N_non_embedding^-0.713 * D^0.307'.
    Unit: ratio."""
    lr_multiplier: Positive = 1.0
    """Factor on the rule or number. Unit: ratio."""
    lr_max: Positive | None = None
    """Upper bound on the rate of a rule, before lr_multiplier; null: none. Unit: ratio."""
    beta1: Fraction = 0.9
    """Decay of AdamW's first moment. Unit: ratio per step."""
    beta2: Fraction | RuleName = 0.95
    """Decay of AdamW's second moment: a number or a rule. Unit: ratio per step."""
    eps: Positive = 1e-8
    """Added to the root of AdamW's second moment. Unit: gradient."""
    weight_decay: NonNegative | RuleName = 0.1
    """Decoupled weight decay of matrices and tables (L2 under sgd): a number or a rule. Unit: per learning
    rate."""
    grad_clip: Positive = 1.0
    """Largest norm of the gradient over all parameters. Unit: gradient norm."""
    momentum: Fraction = 0.0
    """Momentum of muon and sgd. Unit: ratio per step."""
    nesterov: Flag = False
    """Nesterov momentum in muon and sgd."""
    ns_steps: NewtonSchulzSteps = 5
    """Newton-Schulz iterations of an update of muon. Unit: iterations."""
    muon_scaling: MuonScaling = "match_rms_adamw"
    """Size of muon's updates: that of AdamW's (Liu et al. 2025), or the original (Jordan et al. 2024)."""

    def __post_init__(self) -> None:
        if self.name == "adamw" and (self.momentum or self.nesterov):
            raise InputError(
                f"optimizer.momentum={self.momentum:g} and optimizer.nesterov={str(self.nesterov).lower()} "
                f"have no effect on adamw: leave them out, or choose optimizer=muon or optimizer=sgd"
            )
        if self.nesterov and not self.momentum:
            raise InputError(
                "optimizer.nesterov=true needs optimizer.momentum above 0, such as 0.9: it is 0 here"
            )
        for key in ("lr", "weight_decay"):
            self._refuse_rule_of_adamw(key)

    def _refuse_rule_of_adamw(self, key: str) -> None:
        """Raise InputError for a rule with an optimizer that makes other updates than AdamW's."""
        rule = getattr(self, key)
        if not isinstance(rule, str) or self.name == "adamw":
            return
        if self.name == "sgd":
            raise InputError(
                f"optimizer.{key}={rule} was measured with adamw, and its updates do not shrink with the "
                f"gradient: give sgd a number, such as optimizer.{key}={'0.3' if key == 'lr' else '0'}"
            )
        if self.muon_scaling == "original":
            raise InputError(
                f"optimizer.{key}={rule} was measured with adamw, and optimizer.muon_scaling=original makes "
                f"steps of another size: give a number, or choose optimizer.muon_scaling=match_rms_adamw"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """The learning-rate schedule, fitted to the number of tokens of each run."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: ScheduleName
    """Shape after the warmup (docs/architectures.md)."""
    warmup_frac: Fraction | None = 0.1
    """Linear warmup; null: by warmup_tokens. Unit: fraction of the run's steps."""
    warmup_tokens: NonNegative | RuleName | None = None
    """Linear warmup, a number or a rule; null: by warmup_frac. Unit: tokens."""
    decay_frac: DecayFraction | None = None
    """Decay at the end of a wsd run, which needs it; null for the other schedules. Unit: fraction of the
    run's steps."""
    final_lr_frac: ClosedFraction = 0.0
    """Learning rate at the end of the run. Unit: fraction of the peak."""
    cooldown_branches: Flag = False
    """Train the runs of one size and seed as branches that decay from one trunk (Hägele et al. 2024)."""

    def __post_init__(self) -> None:
        if (self.warmup_frac is None) == (self.warmup_tokens is None):
            raise InputError(
                f"schedule.warmup_frac={self.warmup_frac} and schedule.warmup_tokens={self.warmup_tokens}: "
                f"set exactly one of the two and the other to null"
            )
        if (self.name == "wsd") != (self.decay_frac is not None):
            raise InputError(
                f"schedule.name={self.name} and schedule.decay_frac={self.decay_frac}: "
                f"wsd needs the fraction of steps that its decay takes, such as 0.2, the others have none"
            )
        if self.cooldown_branches and self.name != "wsd":
            raise InputError(
                f"schedule.cooldown_branches=true and schedule.name={self.name}: only wsd has a trunk that "
                f"runs can branch from, choose schedule=wsd"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class HparamCheckConfig:
    """Settings of `sweep check-hparams`, which varies learning rate and batch at the grid's corners."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0, 1, 2)
    """Seeds of every setting of a corner. Unit: seeds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaptiveConfig:
    """Runs that `sweep run` adds to the grid, where they narrow the answer most for their FLOPs."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    enabled: Flag = False
    """Add runs until every budget brackets its minimum and the interval reaches the goal, or the allowance is
    spent."""
    target: Positive | None = None
    """Budget at which the answer is asked for; null: 10 times max_budget. Unit: FLOPs."""
    goal: Annotated[Float, Field(gt=1, allow_inf_nan=False)] = 1.5
    """Stop when the interval on N_opt at the target is this narrow, upper end over lower. Unit: ratio."""
    flops_budget: Positive | None = None
    """Allowance for all added runs of an arm; null: half of the grid's FLOPs. Unit: FLOPs."""
    max_budget: Positive | None = None
    """Largest budget of an added run; null: the largest of budgets. Unit: FLOPs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainerConfig:
    """Execution of a run. No key here changes a result beyond rounding."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of every worker; auto: cuda where there is a GPU."""
    micro_batch_size: Count | None = None
    """Sequences per forward pass; null: the whole batch at once. Unit: sequences."""
    checkpoint_interval_s: Positive = 5.0
    """Time between two checkpoints, longer where saving takes more than 2 % of it. Unit: seconds."""
    keep_checkpoint: Flag = False
    """Keep the final weights of every run, for `sweep export`."""
    measure_noise_scale: Flag = False
    """Store the gradient-noise scale of every run as b_simple_tokens; takes about 2 % longer."""
    deterministic: Flag = False
    """Repeat a run bit for bit on a GPU, at a loss of speed. A CPU always does."""
    n_devices: Count = 1
    """GPUs (or CPU processes) that train one run together, each a share of every batch. Unit: devices."""
    stop_outliers: Flag = False
    """Stop a run, as failed, once its training curve is clearly above those of the sweep's finished runs."""
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"
    """Every device holds all weights (ddp) or a part (fsdp); auto: ddp where one device can hold them."""

    def __post_init__(self) -> None:
        if self.measure_noise_scale and self.n_devices > 1 and self.parallel == "fsdp":
            raise InputError(
                "trainer.measure_noise_scale=true needs whole weights on one device, which trainer.parallel="
                "fsdp spreads: choose trainer.parallel=ddp, or trainer.measure_noise_scale=false"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class EstimateConfig:
    """The assumptions about one worker's device behind the plan's time and cost.

    seconds = flops / flops_per_second + steps * step_overhead_s
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    flops_per_second: Positive | None = None
    """Sustained rate on large steps: the device's peak times the expected MFU; null: this machine's speed is
    measured, and 3.5e10 assumed where it cannot be. Unit: FLOP/s."""
    step_overhead_s: NonNegative = 0.004
    """Fixed time of an optimizer step, with a rate that is given or assumed. Unit: seconds."""
    price_per_hour: NonNegative = 0.0
    """Price of one worker's device; the plan prints a cost if it is above 0. Unit: currency per hour."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackingConfig:
    """A tracking service that shows metrics in addition to the sweep's own files."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: Literal["none", "wandb"]
    """The service."""
    project: str | None = None
    """Project there; null: the experiment's name."""
    entity: str | None = None
    """User or team there; null: the account's default."""
    mode: Literal["auto", "online", "offline"] = "auto"
    """Send metrics, or write them for `wandb sync`; auto: online where there is an API key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentConfig:
    """A whole experiment, as composed from YAML files and the user's overrides."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: Name
    """Directory of the sweep in results_dir."""
    arm: str | None = None  # set by composition: the arm's settings, as "optimizer.weight_decay=0"
    results_dir: Annotated[str, Field(min_length=1)] = "results"
    """Directory of all sweeps."""
    data_dir: Annotated[str, Field(min_length=1)] | None = None
    """Directory of prepared data; null: the user's cache directory."""
    budgets: Annotated[tuple[Positive, ...], Field(min_length=1)]
    """Exact training FLOPs of one run, a list. Unit: FLOPs."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    """Seeds of every cell: initial weights and order of the data. Unit: seeds."""
    grid: GridConfig = field(default_factory=GridConfig)
    model: ArchitectureConfig
    data: DataConfig
    tokenizer: AnyTokenizerConfig
    optimizer: OptimizerConfig
    batch_tokens: Count | RuleName = "step_law"
    """Tokens per step: a number or a rule, rounded to whole sequences. Unit: tokens."""
    batch_multiplier: Positive = 1.0
    """Factor on the rule or number. Unit: ratio."""
    batch_power_of_two: Flag = False
    """Round a rule's batch to the nearest power of two of sequences."""
    mup_base_width: Count | None = None
    """Scale learning rates and multipliers by mup (Yang et al. 2022) from this width, at which optimizer.lr
    was tuned and mup equals the standard parametrization; null: standard parametrization. Unit: channels."""
    schedule: ScheduleConfig
    precision: Precision | Literal["auto"] = "auto"
    """Precision of the forward and backward pass; weights and optimizer states are fp32. auto: bf16 if the
    plan's device is a GPU, else fp32; the plan and every point hold the one chosen."""
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    launch: LaunchConfig
    estimate: EstimateConfig = field(default_factory=EstimateConfig)
    fit: FitConfig
    tracking: TrackingConfig
    store: StoreConfig = field(default_factory=StoreConfig)
    hparam_check: HparamCheckConfig = field(default_factory=HparamCheckConfig)
    adaptive: AdaptiveConfig = field(default_factory=AdaptiveConfig)

    def __post_init__(self) -> None:
        if self.mup_base_width is not None and isinstance(self.optimizer.lr, str):
            raise InputError(
                f"optimizer.lr={self.optimizer.lr} with mup_base_width={self.mup_base_width} scales with the "
                f"size twice: give the number that is best at width {self.mup_base_width}"
            )
        if self.adaptive.enabled and self.schedule.cooldown_branches:
            raise InputError(
                "adaptive.enabled=true and schedule.cooldown_branches=true: added runs cannot branch from "
                "the grid's trunks, set one of them to false"
            )
        given = {"budgets": self.budgets, "seeds": self.seeds, "hparam_check.seeds": self.hparam_check.seeds}
        for key, values in given.items():
            if len(set(values)) != len(values):
                raise InputError(f"{key}={list(values)} holds a value twice: give each once")
        for key in ("d_model", "n_params"):
            sizes = getattr(self.grid, key)
            if sizes is not None and isinstance(sizes[0], tuple) and len(sizes) != len(self.budgets):
                raise InputError(
                    f"grid.{key} holds {len(sizes)} lists for {len(self.budgets)} budgets: "
                    f"give one list for all budgets, or one for each"
                )

    @property
    def parametrization(self) -> Parametrization:
        """The parametrization: "mup" with a base width, else "standard"."""
        return "standard" if self.mup_base_width is None else "mup"
