"""Configuration of fits, and the column names of tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from sweep.config.values import STRICT, Method, NonNegative, NonNegativeCount, OpenFraction, Positive

Residuals = Literal["log", "linear"]
Counting = Literal["non_embedding", "total"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterConfig:
    """Filters of points; fit.json names them, counts what they drop, and lists the dropped points."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    drop_highest_losses: NonNegativeCount
    """Points with the highest losses to drop; Besiroglu et al. 2024 drop five. Unit: points."""
    max_loss: Positive | None
    """Drop points with a higher loss; null: none. Unit: nats per token."""
    min_flops: Positive | None
    """Drop points with fewer training FLOPs; null: none. Unit: FLOPs."""
    max_flops: Positive | None
    """Drop points with more training FLOPs; null: none. Unit: FLOPs."""
    max_epochs: Positive | None
    """Drop points that read their data more often; null: none. Unit: epochs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FitConfig:
    """Fitting of scaling laws."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    methods: Annotated[tuple[Method, ...], Field(min_length=1)]
    """Fit methods."""
    huber_delta: Positive
    """Delta of the Huber loss on residuals of ln L (Hoffmann et al. 2022, section 3.3). Unit: ln L."""
    residuals: Residuals
    """Residuals of parametric: of ln L, or of L."""
    irreducible_loss: NonNegative | None
    """Fixed E of parametric; null: fitted. Unit: nats per token."""
    isoflop_robust: bool
    """Fit each budget's parabola by Huber's loss instead of least squares."""
    isoflop_bias_corrected: bool
    """Subtract the parabolas' bias, as estimated from the parametric surface."""
    kaplan_n_params: Counting
    """N of the kaplan laws; total if a table has no other."""
    data_constrained_base: str | None
    """Published surface to keep; null: fit it together with the repetition."""
    n_bootstrap: NonNegativeCount
    """Bootstrap resamples; 0: no intervals. Unit: resamples."""
    confidence: OpenFraction
    """Confidence of all intervals. Unit: fraction."""
    max_interval_factor: Annotated[float, Field(gt=1, allow_inf_nan=False)]
    """Refuse a prediction with a wider interval on N_opt, upper end over lower. Unit: ratio."""
    seed: NonNegativeCount
    """Seed of the resampling. Unit: seed."""
    filters: FilterConfig
    allow_mixed_schedules: bool = False
    """Fit runs of several learning-rate schedules together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnsConfig:
    """Column names of a table."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    n_params: str
    n_tokens: str
    flops: str
    loss: str
    flops_budget: str
    n_params_non_embedding: str
    n_tokens_unique: str
    trunk: str  # names the training run that rows are checkpoints or branches of: they share its noise
