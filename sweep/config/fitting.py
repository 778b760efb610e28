"""Configuration of fits, and the column names of tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from sweep.config.values import STRICT, NonNegative, NonNegativeCount, OpenFraction, Positive

Residuals = Literal["log", "linear"]
Counting = Literal["non_embedding", "total"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterConfig:
    """Filters of points; fit.json names them, counts what they drop, and lists the dropped points."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    drop_highest_losses: NonNegativeCount = 0  # number of points; Besiroglu et al. 2024 drop five
    max_loss: Positive | None = None  # nats per token; null: no limit, as for the next three
    min_flops: Positive | None = None  # training FLOPs of a run
    max_flops: Positive | None = None
    max_epochs: Positive | None = None  # tokens over unique tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class IsoflopOptions:
    """Options of the method `isoflop`."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    robust: bool = False  # fit each budget's parabola by Huber's loss instead of least squares
    bias_corrected: bool = False  # subtract the parabolas' bias, as estimated from the parametric surface


@dataclass(frozen=True, kw_only=True, slots=True)
class ParametricOptions:
    """Options of the method `parametric`."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    residuals: Residuals = "log"  # of ln L, or "linear": of L
    irreducible_loss: NonNegative | None = None  # E is kept at this value, nats per token; null: fitted


@dataclass(frozen=True, kw_only=True, slots=True)
class KaplanOptions:
    """Options of the method `kaplan`."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    n_params: Counting = "non_embedding"  # N of the law; total if a table has no other


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConstrainedOptions:
    """Options of the method `data_constrained`."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    base: str | None = None  # a published surface that is kept; null: fitted jointly with R_D* and R_N*


@dataclass(frozen=True, kw_only=True, slots=True)
class FitConfig:
    """Fitting of scaling laws. Each method's own options are in the section of its name."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    methods: Annotated[tuple[str, ...], Field(min_length=1)] | None = None  # names; null: every method
    huber_delta: Positive = 1e-3  # on residuals of ln L; Hoffmann et al. 2022, section 3.3
    n_bootstrap: NonNegativeCount = 1000  # resamples; 0: no intervals
    confidence: OpenFraction = 0.95  # of all intervals
    max_interval_factor: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 10.0
    # ^ a prediction is refused if the upper end of its interval on N_opt exceeds the lower by this factor
    seed: NonNegativeCount = 0  # of resampling
    allow_mixed_schedules: bool = False  # fit runs of several learning-rate schedules together
    filters: FilterConfig = FilterConfig()
    isoflop: IsoflopOptions = IsoflopOptions()
    parametric: ParametricOptions = ParametricOptions()
    kaplan: KaplanOptions = KaplanOptions()
    data_constrained: DataConstrainedOptions = DataConstrainedOptions()


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
    trunk: str  # the training run that rows are checkpoints or branches of; they share its noise
