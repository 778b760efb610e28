"""A run, the unit of training: numbers only, no rules."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import ConfigDict

from sweep.config.architecture import DecoderConfig
from sweep.config.corpus import PartConfig, check_no_holdout
from sweep.config.values import (
    STRICT,
    ClosedFraction,
    Count,
    Flag,
    Fraction,
    MuonScaling,
    NewtonSchulzSteps,
    NonNegative,
    NonNegativeCount,
    OptimizerName,
    Parametrization,
    Positive,
    Precision,
    ScheduleName,
    Seed,
    SetName,
    Sha256,
)
from sweep.errors import InputError

SEMANTICS_VERSION = 1
"""Increased when the same run config would give another loss; part of every run key."""

EVALUATION_BATCH_TOKENS = 8192
"""Positions scored in one forward pass: fixed, so that the loss does not depend on the training batch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig(DecoderConfig):
    """One decoder: every number that fixes its parameters and its matrix multiplications."""

    vocab_size: Count  # rows of the token table and the head, padding included
    d_model: Count
    n_layers: Count
    n_heads: Count
    n_kv_heads: Count  # heads of keys and values, each shared by n_heads / n_kv_heads query heads
    d_ff: Count
    output_scale: Positive = 1.0  # multiplies the logits; mup lowers it as the width grows
    attention_scale: Positive = 1.0  # multiplies the scores after 1/sqrt(head_dim); mup lowers it likewise

    def __post_init__(self) -> None:
        if self.d_model % self.n_heads:
            raise InputError(
                f"d_model={self.d_model} does not divide into n_heads={self.n_heads}: "
                f"choose n_heads from the divisors of d_model"
            )
        if self.n_heads % self.n_kv_heads:
            raise InputError(
                f"n_kv_heads={self.n_kv_heads} does not divide n_heads={self.n_heads}: "
                f"choose n_kv_heads from the divisors of n_heads"
            )
        if self.positions == "rope" and self.head_dim % 2:
            raise InputError(
                f"head_dim={self.head_dim} (d_model={self.d_model} / n_heads={self.n_heads}) is odd: "
                f"rotary positions need an even head size"
            )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.n_heads

    @property
    def input_scale(self) -> float:
        """The factor on embedded tokens: from a standard deviation of 1/sqrt(d_model) to embedding_scale."""
        return 1.0 if self.init_std is not None else self.embedding_scale * math.sqrt(self.d_model)

    @property
    def d_kv(self) -> int:
        """Width of the keys, and of the values, of one position over all heads."""
        return self.n_kv_heads * self.head_dim


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptimizer:
    """The optimizer of one run, every rule resolved to a number.

    Fields that an optimizer does not use have one fixed value, so that equal runs have equal keys.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: OptimizerName
    lr_peak: Positive
    beta1: Fraction
    beta2: Fraction
    eps: Positive
    weight_decay: NonNegative
    grad_clip: Positive
    momentum: Fraction = 0.0  # muon and sgd
    nesterov: Flag = False  # muon and sgd
    ns_steps: NewtonSchulzSteps = 5  # muon
    muon_scaling: MuonScaling = "match_rms_adamw"
    width_ratio: Positive = 1.0  # d_model / mup's base width, by which mup scales learning rates


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSchedule:
    """The learning-rate schedule of one run, in steps."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: ScheduleName
    warmup_steps: NonNegativeCount
    decay_steps: NonNegativeCount  # the last steps of a wsd run; 0 for schedules without a decay stage
    final_lr_frac: ClosedFraction  # fraction of the peak at the end of the run; 1 for constant


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationWindowsConfig:
    """The windows on which runs are scored, the same for every run of an experiment."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    n_tokens: Count = 131072
    """Held-out positions scored, in the same windows for every run. Unit: tokens."""
    selection: Literal["even", "stratified"] = "even"
    """stratified, which the packaged configs set: windows as difficult as the training text. even, as in
    sweeps of earlier versions: windows spread evenly over the held-out text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationSet:
    """A text on which the final weights of a run are scored in addition to the held-out split."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: SetName
    corpus_sha256: Sha256


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig(EvaluationWindowsConfig):
    """The measurements at the end of a run."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    sets: tuple[EvaluationSet, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationOptions(EvaluationWindowsConfig):
    """The measurements at the end of every run of an experiment."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    sets: dict[SetName, PartConfig] | None = None
    """Texts that the final weights are scored on in addition to the held-out split, by name, each with the
    keys of `data`; all of a text is used, up to evaluation.n_tokens. Their losses are loss_NAME and
    bits_per_byte_NAME of the points."""

    def __post_init__(self) -> None:
        check_no_holdout("evaluation.sets", self.sets or {}, "all text of a set is scored")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """One training run: everything that can change its result, and labels that cannot.

    `name`, `experiment`, `arm`, `flops_budget` and `purpose` are labels; everything else enters the run key.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: str
    experiment: str
    arm: str | None  # None: the experiment has no arms
    flops_budget: Positive | None  # training FLOPs of the grid's budget; None outside IsoFLOP grids
    model: ModelConfig
    corpus: str
    corpus_sha256: Sha256
    tokenizer: str
    tokenizer_sha256: Sha256
    optimizer: RunOptimizer
    schedule: RunSchedule
    batch_tokens: Count
    n_tokens: Count
    precision: Precision
    evaluation: EvaluationConfig
    seed: Seed
    parametrization: Parametrization = "standard"
    semantics_version: int = SEMANTICS_VERSION
    purpose: Literal["hparam_check"] | None = None  # None: a point of the grid; other points are never fitted

    def __post_init__(self) -> None:
        scales = (self.model.output_scale, self.model.attention_scale, self.optimizer.width_ratio)
        if self.parametrization == "standard" and scales != (1.0, 1.0, 1.0):
            raise InputError(
                f"parametrization=standard with model.output_scale={scales[0]:g}, model.attention_scale="
                f"{scales[1]:g} and optimizer.width_ratio={scales[2]:g}: only mup uses them, set them to 1"
            )
        if self.parametrization == "mup" and self.model.init_std is not None:
            raise InputError(
                f"model.init_std={self.model.init_std:g} is not valid with mup, which starts matrices at "
                f"1/sqrt(fan_in): set model.init_std=null or mup_base_width=null"
            )
        if self.batch_tokens % self.model.seq_len:
            raise InputError(
                f"batch_tokens={self.batch_tokens} is not a multiple of seq_len={self.model.seq_len}"
            )
        if self.n_tokens % self.batch_tokens:
            raise InputError(
                f"n_tokens={self.n_tokens} is not a multiple of batch_tokens={self.batch_tokens}"
            )
        if self.schedule.warmup_steps >= self.n_steps:
            raise InputError(
                f"schedule.warmup_steps={self.schedule.warmup_steps} is too long for a run of "
                f"{self.n_steps} steps: choose at most {self.n_steps - 1}"
            )
        if self.schedule.warmup_steps + self.schedule.decay_steps > self.n_steps:
            raise InputError(
                f"schedule.warmup_steps={self.schedule.warmup_steps} and schedule.decay_steps="
                f"{self.schedule.decay_steps} do not fit in a run of {self.n_steps} steps"
            )

    @property
    def n_steps(self) -> int:
        """Optimizer steps."""
        return self.n_tokens // self.batch_tokens

    @property
    def branch_step(self) -> int:
        """Steps before the decay of a wsd run; the length of its trunk if it shares one."""
        return self.n_steps - self.schedule.decay_steps

    @property
    def batch_size(self) -> int:
        """Sequences per step."""
        return self.batch_tokens // self.model.seq_len
