"""Scaling laws as an interface: optima at a budget, their intervals, and the entry in fit.json.

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

from sweep.fit.table.observations import Observations, RunNoise

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
REACHES = (1, 10, 100)  # multiples of the largest fitted budget at which laws are compared
ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Optimum:
    """The compute-optimal run at each budget; all arrays have one shape."""

    n_params_opt: FloatArray
    n_tokens_opt: FloatArray
    loss_opt: FloatArray  # nats per token

    @property
    def tokens_per_param_opt(self) -> FloatArray:
        """D / N."""
        return self.n_tokens_opt / self.n_params_opt


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimate and its confidence interval.

    >>> Estimate(0.4326, (0.3928, 0.4771))
    0.4326 [0.3928, 0.4771]
    """

    value: float
    interval: Interval | None  # None without draws, or for a constant that is assumed

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        return format(self)

    def __format__(self, spec: str) -> str:
        """Format the value, and the interval in brackets, each by `spec` (.4g)."""
        spec = spec or ".4g"
        if self.interval is None:
            return format(self.value, spec)
        low, high = self.interval
        return f"{self.value:{spec}} [{low:{spec}}, {high:{spec}}]"


@dataclass(frozen=True, slots=True, repr=False)
class BoundedEstimate(Estimate):
    """An estimate that has a confidence interval."""

    interval: Interval


class Law(abc.ABC):
    """A scaling law. Intervals are percentiles over its bootstrap draws."""

    __slots__ = ()

    confidence: float
    noise: RunNoise | None
    warnings: tuple[str, ...]

    @property
    def doubted(self) -> bool:
        """True if the points show lack of fit, see `sweep.fit.numerics.lack_of_fit`."""
        return self.noise is not None and self.noise.source == "misfit"

    def warned(self, warnings: Sequence[str]) -> Self:
        """Return the same law with `warnings` before its own."""
        return dataclasses.replace(self, warnings=(*warnings, *self.warnings))  # type: ignore[type-var]

    @property
    @abc.abstractmethod
    def n_draws(self) -> int:
        """Number of bootstrap draws; without any there are no intervals."""

    @property
    @abc.abstractmethod
    def constants(self) -> dict[str, float]:
        """The law's constants by their names in fit.json, among them the exponents a and b."""

    @property
    def ci(self) -> dict[str, Interval]:
        """Confidence intervals of the constants; empty without draws."""
        return {}

    @property
    def exponents(self) -> tuple[float, float]:
        """a and b of N_opt ∝ C^a, D_opt ∝ C^b."""
        constants = self.constants
        return constants["a"], constants["b"]

    @property
    def a(self) -> Estimate:
        """Exponent a of N_opt ∝ C^a."""
        return self.constant("a")

    @property
    def b(self) -> Estimate:
        """Exponent b of D_opt ∝ C^b."""
        return self.constant("b")

    @property
    def E(self) -> Estimate:  # noqa: N802
        """The irreducible loss, nats per token. Raises AttributeError for a law without one."""
        theta = self.surface_theta
        if theta is not None and "E" not in self.constants:
            return Estimate(math.exp(theta[2]), None)
        return self.constant("E")

    def constant(self, name: str) -> Estimate:
        """Return a constant with its interval. Raises AttributeError if the law has none of that name."""
        constants = self.constants
        if name not in constants:
            known = ", ".join(constants)
            raise AttributeError(f"{type(self).__name__} has no constant {name}: it has {known}")
        return Estimate(constants[name], self.ci.get(name))

    def __repr__(self) -> str:
        constants, ci = self.constants, self.ci
        shown = ", ".join(f"{name} = {Estimate(constants[name], ci.get(name))}" for name in constants)
        return f"{type(self).__name__}({shown})"

    @abc.abstractmethod
    def optimum(self, flops: FloatArray) -> Optimum:
        """Return the estimate at budgets `flops` of shape (k,); arrays of shape (k,)."""

    @abc.abstractmethod
    def optimum_draws(self, flops: FloatArray) -> Optimum:
        """Return every bootstrap draw at budgets `flops` of shape (k,); arrays of shape (n_draws, k)."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Source, convention and range of a published law; empty for a law fitted here."""
        return ()

    @property
    def unproved(self) -> tuple[Quantity, ...]:
        """Quantities with intervals that no simulation has shown to reach their nominal coverage."""
        return ()

    @property
    def unproved_constants(self) -> tuple[str, ...]:
        """Constants with such intervals."""
        return ()

    @property
    def assumes_exponents(self) -> bool:
        """True if a and b are assumed, so that intervals do not widen with C as measured ones would."""
        return False

    def predicted_losses(self, observations: Observations) -> FloatArray | None:
        """Return L at each point, shape (n,); None if the law gives no L(N, D)."""
        return None

    def loss_off_optimum(self, flops: float, factor: float) -> float | None:
        """Return the loss at budget `flops` with `factor` times the optimal N; None without L(N, D)."""
        return None

    def with_family(self, n_params: FloatArray, flops_per_token: FloatArray) -> Law:
        """Return the law with FLOPs per token beyond the fitted sizes taken from planned sizes (N, f)."""
        return self

    @property
    def surface_theta(self) -> FloatArray | None:
        """(ln A, ln B, ln E, alpha, beta) if the law is L = E + A/N^alpha + B/D^beta, else None."""
        return None

    @abc.abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return the method's entry in fit.json."""

    @classmethod
    @abc.abstractmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Return the inverse of `to_json`, equal to the last bit."""

    @overload
    def n_params_opt(self, flops: float) -> float: ...
    @overload
    def n_params_opt(self, flops: FloatArray) -> FloatArray: ...
    def n_params_opt(self, flops: float | FloatArray) -> float | FloatArray:
        """Return N at the optimum of budget `flops`."""
        return self._at("n_params_opt", flops)

    @overload
    def n_tokens_opt(self, flops: float) -> float: ...
    @overload
    def n_tokens_opt(self, flops: FloatArray) -> FloatArray: ...
    def n_tokens_opt(self, flops: float | FloatArray) -> float | FloatArray:
        """Return D at the optimum of budget `flops`."""
        return self._at("n_tokens_opt", flops)

    @overload
    def loss_opt(self, flops: float) -> float: ...
    @overload
    def loss_opt(self, flops: FloatArray) -> FloatArray: ...
    def loss_opt(self, flops: float | FloatArray) -> float | FloatArray:
        """Return the loss at the optimum of budget `flops`, nats per token."""
        return self._at("loss_opt", flops)

    def _at(self, quantity: Quantity, flops: float | FloatArray) -> float | FloatArray:
        if isinstance(flops, np.ndarray):
            values: FloatArray = getattr(self.optimum(flops), quantity)
            return values
        return self.estimate(quantity, flops)

    def estimate(self, quantity: Quantity, flops: float) -> float:
        """Return `quantity` at budget `flops`."""
        values: FloatArray = getattr(self.optimum(np.array([float(flops)])), quantity)
        return float(values[0])

    def interval(self, quantity: Quantity, flops: float) -> Interval | None:
        """Return the confidence interval of `quantity` at budget `flops`; None without draws."""
        band = self.band(quantity, np.array([float(flops)]))
        return None if band is None else (float(band[0][0]), float(band[1][0]))

    def band(self, quantity: Quantity, flops: FloatArray) -> tuple[FloatArray, FloatArray] | None:
        """Return lower and upper confidence limits at budgets `flops` of shape (k,); None without draws."""
        if quantity not in QUANTITIES:
            raise ValueError(f"quantity={quantity!r} is not valid: choose from {', '.join(QUANTITIES)}")
        if not self.n_draws:
            return None
        return percentiles(getattr(self.optimum_draws(flops), quantity), self.confidence)

    def prediction_interval(self, flops: float) -> Interval | None:
        """Return the interval for the loss of one new run at the optimum: confidence interval and run noise.

        The half-widths of both, in ln L, add in quadrature; that of the noise is Student's t times its
        standard deviation. None without draws or without an estimate of the noise.
        """
        band = self.interval("loss_opt", flops)
        if band is None or self.noise is None:
            return None
        from scipy.special import stdtrit  # scipy is slow to import

        t = float(stdtrit(self.noise.n_dof, 0.5 + self.confidence / 2))
        estimate, spread = math.log(self.loss_opt(float(flops))), t * self.noise.sd
        lower = estimate - math.hypot(estimate - math.log(band[0]), spread)
        upper = estimate + math.hypot(math.log(band[1]) - estimate, spread)
        return math.exp(lower), math.exp(upper)


def coverage_warning(law: Law, flops: float) -> tuple[str, ...]:
    """Return a warning if an interval at budget `flops` does not contain the law's own estimate.

    Differences of the size of rounding do not count.
    """
    outside = []
    for quantity in QUANTITIES:
        pair, estimate = law.interval(quantity, flops), law.estimate(quantity, flops)
        if pair is not None and not pair[0] * (1 - ROUNDING) <= estimate <= pair[1] * (1 + ROUNDING):
            outside.append(WORDS[quantity])
    if not outside:
        return ()
    return (
        f"at {flops:.3g} FLOPs the interval of {' and '.join(outside)} does not contain the estimate: use "
        f"neither there",
    )


def percentiles(draws: FloatArray, confidence: float) -> tuple[FloatArray, FloatArray]:
    """Return the central interval over the first axis at the given confidence."""
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(draws, [tail, 100.0 - tail], axis=0)
    return low, high
