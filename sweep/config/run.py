"""What one worker trains: a run, in numbers only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import ConfigDict

from sweep.config.values import (
    STRICT,
    Activation,
    ClosedFraction,
    Count,
    Fraction,
    MuonScaling,
    NewtonSchulzSteps,
    NonNegative,
    NonNegativeCount,
    Norm,
    OptimizerName,
    Parametrization,
    Positions,
    Positive,
    Precision,
    ScheduleName,
    Seed,
    Sha256,
)
from sweep.errors import InputError

SEMANTICS_VERSION = 1
"""Raised whenever the same run config would give another number; part of every run key."""


EVALUATION_BATCH_TOKENS = 8192
"""Positions scored in one forward pass: fixed, so that a loss does not depend on the training batch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """One decoder, complete: every number that fixes its parameters and its matrix multiplications."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    vocab_size: Count  # the width actually multiplied, padding included
    seq_len: Count
    d_model: Count
    n_layers: Count
    n_heads: Count
    n_kv_heads: Count  # heads of keys and values, each shared by n_heads / n_kv_heads heads of queries
    d_ff: Count
    norm: Norm
    norm_eps: Positive  # added to the mean square (rms) or the variance (layer) under the root
    positions: Positions
    rope_base: Positive  # without effect when positions are learned
    activation: Activation
    bias: bool  # on the linear maps of the blocks and on layer norms; RMS norms and the head have none
    tied: bool
    qk_norm: bool
    qk_gain: Positive  # multiplies the normalised queries and keys; without effect when qk_norm is false
    embedding_scale: (
        Positive  # root mean square of the embedded tokens at the start; without effect by init_std
    )
    output_scale: Positive = 1.0  # multiplies the logits; mup lowers it with the width
    attention_scale: Positive = 1.0  # multiplies the scores beside 1/sqrt(head_dim); mup, likewise
    init_std: Positive | None = (
        None  # of matrices and tables at the start; None: by width (`sweep.train.models.gpt`)
    )

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
        """Multiplies the embedded tokens: a table drawn at 1/sqrt(d_model) then has embedding_scale."""
        return 1.0 if self.init_std is not None else self.embedding_scale * math.sqrt(self.d_model)

    @property
    def d_kv(self) -> int:
        """Width of all keys, and of all values, of one position."""
        return self.n_kv_heads * self.head_dim


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptimizer:
    """The optimizer of one run, every rule resolved to a number.

    What an optimizer does not use has one value, so that equal runs have equal keys.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: OptimizerName
    lr_peak: Positive
    beta1: Fraction
    beta2: Fraction
    eps: Positive
    weight_decay: NonNegative
    grad_clip: Positive
    momentum: Fraction = 0.0  # of muon and sgd
    nesterov: bool = False  # of muon and sgd
    ns_steps: NewtonSchulzSteps = 5  # of muon
    muon_scaling: MuonScaling = "match_rms_adamw"
    width_ratio: Positive = 1.0  # d_model over mup's base width: what mup scales learning rates by


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSchedule:
    """The learning-rate schedule of one run, in steps."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: ScheduleName
    warmup_steps: NonNegativeCount
    decay_steps: NonNegativeCount  # of the decay that ends a wsd run; 0 for schedules without that stage
    final_lr_frac: ClosedFraction  # of the peak, which the run's end would reach; 1 for constant


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """How the held-out loss is measured, the same for every run of an experiment."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    n_tokens: Count  # held-out positions scored, on the same fixed windows for every run


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """One training run: all that can change its result, and labels that cannot.

    `name`, `experiment`, `arm`, `flops_budget` and `purpose` are labels; everything else enters the run key.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: str
    experiment: str
    arm: str | None  # of an experiment with arms
    flops_budget: Positive | None  # training FLOPs asked for; None outside IsoFLOP grids
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
    purpose: Literal["hparam_check"] | None = None  # None: a point of the grid; others are never fitted

    def __post_init__(self) -> None:
        scales = (self.model.output_scale, self.model.attention_scale, self.optimizer.width_ratio)
        if self.parametrization == "standard" and scales != (1.0, 1.0, 1.0):
            raise InputError(
                f"parametrization=standard with model.output_scale={scales[0]:g}, model.attention_scale="
                f"{scales[1]:g} and optimizer.width_ratio={scales[2]:g}: these belong to mup, make them 1"
            )
        if self.parametrization == "mup" and self.model.init_std is not None:
            raise InputError(
                f"model.init_std={self.model.init_std:g} with parametrization=mup: mup starts matrices at "
                f"1/sqrt(fan_in), choose model.init_std=null or parametrization=standard"
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
                f"schedule.warmup_steps={self.schedule.warmup_steps} leaves nothing of a run of "
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
        """Steps before the decay of a wsd run: its trunk, where it shares one."""
        return self.n_steps - self.schedule.decay_steps

    @property
    def batch_size(self) -> int:
        """Sequences per step."""
        return self.batch_tokens // self.model.seq_len
