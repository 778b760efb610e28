"""How laws are fitted, and what the columns of a table are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from sweep.config.values import STRICT, Method, NonNegative, NonNegativeCount, OpenFraction, Positive

Residuals = Literal["log", "linear"]
Counting = Literal["non_embedding", "total"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterConfig:
    """Which points are not fitted. Filters are named and counted in fit.json, the dropped points listed."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    drop_highest_losses: NonNegativeCount  # this many; Besiroglu et al. 2024 leave out five
    max_loss: Positive | None
    min_flops: Positive | None
    max_flops: Positive | None
    max_epochs: Positive | None


@dataclass(frozen=True, kw_only=True, slots=True)
class FitConfig:
    """How laws are fitted."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    methods: Annotated[tuple[Method, ...], Field(min_length=1)]
    huber_delta: Positive  # on log-loss residuals; Hoffmann et al. 2022, section 3.3
    residuals: Residuals  # of parametric: of ln L, or of L itself
    irreducible_loss: NonNegative | None  # E of parametric, kept at this value; null fits it
    isoflop_robust: bool  # Huber instead of squares in each budget's parabola
    isoflop_bias_corrected: bool  # take the parabola's own bias, as the parametric surface tells it, off
    kaplan_n_params: Counting  # which N the kaplan laws are in; total where a table has no other
    data_constrained_base: str | None  # a published surface to keep; null fits it with the repetition
    n_bootstrap: NonNegativeCount
    confidence: OpenFraction
    max_interval_factor: Annotated[float, Field(gt=1, allow_inf_nan=False)]
    # ^ a prediction whose interval on N_opt is wider than this is refused
    seed: NonNegativeCount
    filters: FilterConfig
    allow_mixed_schedules: bool = False  # fit points of several learning-rate schedules as if they were one


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnsConfig:
    """What the fitter's columns are called in a table of somebody else's."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    n_params: str
    n_tokens: str
    flops: str
    loss: str
    flops_budget: str
    n_params_non_embedding: str
    n_tokens_unique: str
    trunk: str  # names the training run that rows are checkpoints or branches of: they share its noise
