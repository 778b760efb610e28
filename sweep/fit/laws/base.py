"""What every fitted law can say: N, D and loss at the optimum of any budget, with intervals.

Legend: N parameters, D tokens, C training FLOPs, L loss.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias, get_args, overload

import numpy as np
import numpy.typing as npt

from sweep.fit.table.observations import RunNoise

FloatArray = npt.NDArray[np.float64]
Interval: TypeAlias = tuple[float, float]
Quantity = Literal["n_params_opt", "n_tokens_opt", "tokens_per_param_opt", "loss_opt"]
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)
WORDS: dict[Quantity, str] = {
    "n_params_opt": "N_opt",
    "n_tokens_opt": "D_opt",
    "tokens_per_param_opt": "D/N",
    "loss_opt": "the loss",
}
REACHES = (1, 10, 100)  # times the largest budget: where laws are looked at beside each other
ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Optimum:
    """The compute-optimal run at each budget; all arrays of one shape."""

    n_params_opt: FloatArray
    n_tokens_opt: FloatArray
    loss_opt: FloatArray  # nats per token

    @property
    def tokens_per_param_opt(self) -> FloatArray:
        """D / N."""
        return self.n_tokens_opt / self.n_params_opt


class Law(abc.ABC):
    """A fitted law. Intervals are percentiles over its bootstrap draws."""

    __slots__ = ()

    confidence: float
    noise: RunNoise | None
    warnings: tuple[str, ...]  # what a reader must know before believing it

    @property
    def doubted(self) -> bool:
        """Whether the points speak against the law's form, see `sweep.fit.numerics.lack_of_fit`."""
        return self.noise is not None and self.noise.source == "misfit"

    def warned(self, warnings: Sequence[str]) -> Self:
        """The same law with `warnings` before its own."""
        return dataclasses.replace(self, warnings=(*warnings, *self.warnings))  # type: ignore[type-var]

    @property
    @abc.abstractmethod
    def n_draws(self) -> int:
        """Bootstrap draws the intervals rest on; without any there are no intervals."""

    @abc.abstractmethod
    def optimum(self, flops: FloatArray) -> Optimum:
        """The estimate at budgets `flops` of shape (k,); arrays of shape (k,)."""

    @abc.abstractmethod
    def optimum_draws(self, flops: FloatArray) -> Optimum:
        """Every bootstrap draw at budgets `flops` of shape (k,); arrays of shape (n_draws, k)."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of a prediction must know of the law's origin; nothing for a fit of one's own."""
        return ()

    @property
    def unproved(self) -> tuple[Quantity, ...]:
        """Quantities whose intervals no simulation has shown to hold the truth as often as they say."""
        return ()

    @property
    def assumes_exponents(self) -> bool:
        """Whether a and b are not measured, so that intervals do not widen with C as they ought to."""
        return False

    def loss_off_optimum(self, flops: float, factor: float) -> float | None:
        """Loss at budget `flops` with `factor` times the optimal N; None where the law has no surface."""
        return None

    def with_family(self, n_params: FloatArray, flops_per_token: FloatArray) -> Law:
        """The same law, its FLOPs per token past the fitted sizes those of (N, f); see FlopsPerToken."""
        return self

    @property
    def surface_theta(self) -> FloatArray | None:
        """(ln A, ln B, ln E, alpha, beta) where the law is that surface; None elsewhere."""
        return None

    @abc.abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The method's entry in fit.json."""

    @overload
    def n_params_opt(self, flops: float) -> float: ...
    @overload
    def n_params_opt(self, flops: FloatArray) -> FloatArray: ...
    def n_params_opt(self, flops: float | FloatArray) -> float | FloatArray:
        """N at the optimum of budget `flops`."""
        return self._at("n_params_opt", flops)

    @overload
    def n_tokens_opt(self, flops: float) -> float: ...
    @overload
    def n_tokens_opt(self, flops: FloatArray) -> FloatArray: ...
    def n_tokens_opt(self, flops: float | FloatArray) -> float | FloatArray:
        """D at the optimum of budget `flops`."""
        return self._at("n_tokens_opt", flops)

    @overload
    def loss_opt(self, flops: float) -> float: ...
    @overload
    def loss_opt(self, flops: FloatArray) -> FloatArray: ...
    def loss_opt(self, flops: float | FloatArray) -> float | FloatArray:
        """Loss at the optimum of budget `flops`, nats per token."""
        return self._at("loss_opt", flops)

    def _at(self, quantity: Quantity, flops: float | FloatArray) -> float | FloatArray:
        if isinstance(flops, np.ndarray):
            values: FloatArray = getattr(self.optimum(flops), quantity)
            return values
        return self.estimate(quantity, flops)

    def estimate(self, quantity: Quantity, flops: float) -> float:
        """The law's `quantity` at budget `flops`."""
        values: FloatArray = getattr(self.optimum(np.array([float(flops)])), quantity)
        return float(values[0])

    def interval(self, quantity: Quantity, flops: float) -> Interval | None:
        """Confidence interval of the law's `quantity` at budget `flops`; None without draws."""
        band = self.band(quantity, np.array([float(flops)]))
        return None if band is None else (float(band[0][0]), float(band[1][0]))

    def band(self, quantity: Quantity, flops: FloatArray) -> tuple[FloatArray, FloatArray] | None:
        """Lower and upper confidence limits at budgets `flops` of shape (k,); None without draws."""
        if quantity not in QUANTITIES:
            raise ValueError(f"quantity={quantity!r} is not one of {', '.join(QUANTITIES)}")
        if not self.n_draws:
            return None
        return percentiles(getattr(self.optimum_draws(flops), quantity), self.confidence)

    def prediction_interval(self, flops: float) -> Interval | None:
        """Interval for the loss of one new run trained at the optimum: the law's doubt and the run's noise.

        The half-widths of both, in ln L, add in quadrature; the noise's is Student's t times its deviation.
        """
        band = self.interval("loss_opt", flops)
        if band is None or self.noise is None:
            return None
        from scipy.special import stdtrit  # slow to import, as all of scipy

        t = float(stdtrit(self.noise.n_dof, 0.5 + self.confidence / 2))
        estimate, spread = math.log(self.loss_opt(float(flops))), t * self.noise.sd
        lower = estimate - math.hypot(estimate - math.log(band[0]), spread)
        upper = estimate + math.hypot(math.log(band[1]) - estimate, spread)
        return math.exp(lower), math.exp(upper)


def beside_warning(law: Law, flops: float) -> tuple[str, ...]:
    """A sentence where intervals at budget `flops` do not hold the law's own estimate: trust neither.

    Only an estimate that is plainly outside counts, not one that rounding puts there.
    """
    beside = []
    for quantity in QUANTITIES:
        pair, estimate = law.interval(quantity, flops), law.estimate(quantity, flops)
        if pair is not None and not pair[0] * (1 - ROUNDING) <= estimate <= pair[1] * (1 + ROUNDING):
            beside.append(WORDS[quantity])
    if not beside:
        return ()
    return (
        f"at {flops:.3g} FLOPs the interval of {' and '.join(beside)} lies beside the estimate: trust "
        f"neither there",
    )


def percentiles(draws: FloatArray, confidence: float) -> tuple[FloatArray, FloatArray]:
    """Central interval over the first axis at the given confidence."""
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(draws, [tail, 100.0 - tail], axis=0)
    return low, high


def named_intervals(draws: Mapping[str, FloatArray], confidence: float) -> dict[str, Interval]:
    """Central interval of each named array of draws of shape (n_draws,); empty without draws."""
    intervals = {}
    for name, values in draws.items():
        if len(values):
            low, high = percentiles(values, confidence)
            intervals[name] = (float(low), float(high))
    return intervals
