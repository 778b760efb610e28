"""Configuration of fits, and the column names of tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from sweep.config.values import (
    STRICT,
    Flag,
    Float,
    Int,
    NonNegative,
    NonNegativeCount,
    OpenFraction,
    Positive,
)

Residuals = Literal["log", "linear"]
Counting = Literal["non_embedding", "total"]
Window = Literal["auto", "all"] | Annotated[int, Field(ge=4)]


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterConfig:
    """Filters of points; fit.json names them, counts what they drop, and lists the dropped points."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    drop_highest_losses: NonNegativeCount = 0
    """Points with the highest losses to drop; Besiroglu et al. 2024 drop five. Unit: points."""
    max_loss: Positive | None = None
    """Drop points with a higher loss; null: none. Unit: nats per token."""
    min_flops: Positive | None = None
    """Drop points with fewer training FLOPs; null: none. Unit: FLOPs."""
    max_flops: Positive | None = None
    """Drop points with more training FLOPs; null: none. Unit: FLOPs."""
    max_epochs: Positive | None = None
    """Drop points with more tokens per unique token; null: none. Unit: epochs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IsoflopOptions:
    """Options of the method `isoflop`."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    window: Window = "auto"
    """Sizes of each parabola: those around the minimum without a significant cubic term (auto), all, or a
    number of sizes nearest to the best one. Unit: sizes."""
    robust: Flag = False
    """Leave out runs more than six robust standard deviations from their parabola."""
    weighted: Flag = True
    """Weight each minimum by its standard error; false: all equally."""
    bias_corrected: Flag = False
    """Subtract the parabolas' bias, as estimated from the parametric surface."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ParametricOptions:
    """Options of the method `parametric`."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    residuals: Residuals = "log"
    """Residuals of ln L (log), or of L (linear)."""
    irreducible_loss: NonNegative | None = None
    """Fixed value of E; null: fitted. Unit: nats per token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KaplanOptions:
    """Options of the method `kaplan`."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    n_params: Counting = "non_embedding"
    """N of the law; total if a table has no other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConstrainedOptions:
    """Options of the method `data_constrained`."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    base: str | None = None
    """Published surface to keep, such as muennighoff_2023; null: fitted jointly with R_D* and R_N*."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FitConfig:
    """Fitting of scaling laws. Each method's own options are in the section of its name."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    methods: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Names of fit methods; null: every method."""
    huber_delta: Positive = 1e-3
    """Delta of the Huber loss on residuals of ln L (Hoffmann et al. 2022, section 3.3). Unit: ln L."""
    n_bootstrap: Annotated[Int, Field(ge=0, le=100_000)] = 1000
    """Bootstrap resamples; 0: no intervals. Unit: resamples."""
    confidence: OpenFraction = 0.95
    """Confidence of all intervals. Unit: fraction."""
    max_interval_factor: Annotated[Float, Field(gt=1, allow_inf_nan=False)] = 10.0
    """Refuse a prediction with a wider interval on N_opt, upper end over lower. Unit: ratio."""
    max_reach: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 300.0
    """Refuse a prediction at more times the largest fitted budget; published extrapolations have been checked
    up to 300 times. Unit: ratio."""
    seed: NonNegativeCount = 0
    """Seed of the resampling. Unit: seed."""
    allow_mixed_schedules: Flag = False
    """Fit runs of several learning-rate schedules together."""
    filters: FilterConfig = FilterConfig()
    isoflop: IsoflopOptions = IsoflopOptions()
    parametric: ParametricOptions = ParametricOptions()
    kaplan: KaplanOptions = KaplanOptions()
    data_constrained: DataConstrainedOptions = DataConstrainedOptions()


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnsConfig:
    """Column names of a table.

    A field's own name stands for "find it": its own name first, else the usual names of such a column. Other
    names are taken as given; "Size * 1e6" scales a column and "ln(ppl)" takes its logarithm.
    """

    n_params: str = "n_params"
    n_tokens: str = "n_tokens"
    flops: str = "flops"
    loss: str = "loss"
    flops_budget: str = "flops_budget"
    n_params_non_embedding: str = "n_params_non_embedding"
    n_tokens_unique: str = "n_tokens_unique"
    trunk: str = "trunk"  # the training run that rows are checkpoints or branches of: they share its noise
    status: str = "status"  # done, finished or diverged
