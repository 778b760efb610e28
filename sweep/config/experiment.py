"""What a user writes: an experiment of rules, budgets and a grid."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from sweep.config.architecture import ArchitectureConfig
from sweep.config.corpus import AnyTokenizerConfig, DataConfig
from sweep.config.fitting import FitConfig
from sweep.config.launch import LaunchConfig
from sweep.config.run import EvaluationConfig
from sweep.config.store import StoreConfig
from sweep.config.values import (
    STRICT,
    BatchRule,
    Beta2Rule,
    ClosedFraction,
    Count,
    DecayFraction,
    Fraction,
    LrRule,
    MuonScaling,
    Name,
    NewtonSchulzSteps,
    NonNegative,
    OpenFraction,
    OptimizerName,
    Parametrization,
    Positive,
    Precision,
    ScheduleName,
    Seed,
    WarmupRule,
    WeightDecayRule,
)
from sweep.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class GridConfig:
    """The sizes trained at each budget.

    Exactly one way: `d_model` or `n_params` (one list for all budgets, or one list for each budget), or, with
    both null, `n_sizes` sizes log-spaced in tokens per parameter over a factor `span` around a prior.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    d_model: tuple[Count, ...] | tuple[tuple[Count, ...], ...] | None
    n_params: tuple[Positive, ...] | tuple[tuple[Positive, ...], ...] | None
    tokens_per_param: Positive  # the prior on D/N at the optimum
    span: Annotated[float, Field(gt=1, allow_inf_nan=False)]  # largest / smallest tokens per parameter
    n_sizes: Count
    max_budget_error: OpenFraction  # |exact FLOPs - budget| / budget above which a cell is dropped
    min_steps: Count  # cells with fewer optimizer steps are dropped
    max_epochs: Positive  # cells that read the corpus more often are dropped

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
    """The optimizer; a learning rate, beta2 or weight decay is a number or a rule of `sweep.plan.rules`."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: OptimizerName
    lr: Positive | LrRule
    lr_multiplier: Positive  # on top of the rule or number
    lr_max: Positive | None  # no rule goes above; a number given as lr is taken as it is
    beta1: Fraction
    beta2: Fraction | Beta2Rule
    eps: Positive
    weight_decay: NonNegative | WeightDecayRule
    grad_clip: Positive
    momentum: Fraction = 0.0  # of muon and sgd
    nesterov: bool = False  # of muon and sgd
    ns_steps: NewtonSchulzSteps = 5  # of muon
    muon_scaling: MuonScaling = "match_rms_adamw"

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
        """Raises InputError for a rule, all of which were measured with AdamW, where its updates differ."""
        rule = getattr(self, key)
        if not isinstance(rule, str) or self.name == "adamw":
            return
        if self.name == "sgd":
            raise InputError(
                f"optimizer.{key}={rule} was measured with adamw, whose updates do not shrink with the "
                f"gradient: give sgd a number, such as optimizer.{key}={'0.3' if key == 'lr' else '0'}"
            )
        if self.muon_scaling == "original":
            raise InputError(
                f"optimizer.{key}={rule} was measured with adamw, and optimizer.muon_scaling=original makes "
                f"steps of another size: give a number, or choose optimizer.muon_scaling=match_rms_adamw"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """The learning-rate schedule, matched to each run's own token count."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: ScheduleName
    warmup_frac: Fraction | None  # of the run's steps
    warmup_tokens: NonNegative | WarmupRule | None  # or in tokens
    decay_frac: DecayFraction | None  # of the run's steps, the last ones; for wsd, which needs it, only
    final_lr_frac: ClosedFraction  # without effect on constant
    cooldown_branches: bool = False  # wsd: the runs of one size and seed cool down from one trunk

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
    """How `sweep check-hparams` measures what the learning rate and the batch leave on the table."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0, 1, 2)  # common to all settings of a corner


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainerConfig:
    """How a run is carried out; nothing here changes its result beyond rounding."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    device: Literal["auto", "cpu", "cuda"]
    micro_batch_size: Count | None  # sequences per forward; null: the whole batch at once
    checkpoint_interval_s: Positive  # at least; longer where saving takes more than 2 % of the time between
    keep_checkpoint: bool  # a finished run leaves its final weights, for sweep export
    measure_noise_scale: bool = False  # b_simple_tokens of every point, from a few late steps
    deterministic: bool = False  # on a GPU: results repeat to the bit, at some speed
    n_devices: Count = 1  # that train one run together, each its share of every batch
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"  # fsdp: weights are spread too; auto: when they must

    def __post_init__(self) -> None:
        if self.measure_noise_scale and self.n_devices > 1 and self.parallel == "fsdp":
            raise InputError(
                "trainer.measure_noise_scale=true needs whole weights on one device, which trainer.parallel="
                "fsdp spreads: choose trainer.parallel=ddp, or trainer.measure_noise_scale=false"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class EstimateConfig:
    """What a plan's time, memory and cost estimates assume about one worker's device.

    seconds = flops / flops_per_second + steps * step_overhead_s, plus startup_s once a worker.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    flops_per_second: Positive  # sustained, on large steps: the peak times the MFU one expects
    step_overhead_s: NonNegative
    startup_s: NonNegative
    price_per_hour: NonNegative  # of one worker's device; 0 prints no cost
    currency: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackingConfig:
    """Where metrics are shown besides the sweep's own files."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: Literal["none", "wandb"]
    project: str | None  # null: the experiment's name
    entity: str | None  # null: the account's default
    mode: Literal["auto", "online", "offline"]  # auto: online where there is an API key


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentConfig:
    """A whole experiment, as composed from the YAML groups and the user's overrides."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: Name
    arm: str | None  # which of the experiment's arms this is, as in "optimizer.weight_decay=0"
    results_dir: Annotated[str, Field(min_length=1)]
    data_dir: str | None  # null: the user's cache directory
    budgets: Annotated[tuple[Positive, ...], Field(min_length=1)]  # training FLOPs of one run
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    grid: GridConfig
    model: ArchitectureConfig
    data: DataConfig
    tokenizer: AnyTokenizerConfig
    optimizer: OptimizerConfig
    batch_tokens: Count | BatchRule
    batch_multiplier: Positive  # on top of the rule or number
    batch_power_of_two: bool = False  # a rule's batch is rounded to a power of two of sequences
    parametrization: Parametrization = "standard"
    mup_base_width: Count | None = None  # of mup: the width at which it equals standard
    schedule: ScheduleConfig
    precision: Precision
    evaluation: EvaluationConfig
    trainer: TrainerConfig
    launch: LaunchConfig
    estimate: EstimateConfig
    fit: FitConfig
    tracking: TrackingConfig
    store: StoreConfig = field(default_factory=StoreConfig)
    hparam_check: HparamCheckConfig = HparamCheckConfig()

    def __post_init__(self) -> None:
        self._check_parametrization()
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

    def _check_parametrization(self) -> None:
        if (self.parametrization == "mup") != (self.mup_base_width is not None):
            raise InputError(
                f"parametrization={self.parametrization} and mup_base_width={self.mup_base_width}: mup needs "
                f"the width its learning rate was tuned at, such as 64, and standard has none"
            )
        if self.parametrization == "mup" and isinstance(self.optimizer.lr, str):
            raise InputError(
                f"optimizer.lr={self.optimizer.lr} with parametrization=mup scales with the size twice: give "
                f"the number that is best at mup_base_width={self.mup_base_width}"
            )
