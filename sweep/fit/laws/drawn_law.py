"""Base class of the laws that are fitted by one vector of parameters, with its bootstrap draws."""

from __future__ import annotations

import abc
import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from sweep.fit.laws.base import Interval, Law, Optimum, percentiles
from sweep.fit.laws.encoding import fields_to_plain, record_from_plain
from sweep.fit.table.constraint import FlopsPerToken
from sweep.fit.table.observations import RunNoise

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class DrawnLaw(Law):
    """A law fitted by one vector of parameters `theta`, with bootstrap draws of the same vector.

    Its entry in fit.json holds the constants by name, their intervals under `ci`, every field under its own
    name, and the draws under `bootstrap`. A subclass names its parameters in `COLUMNS` and gives `named` and
    `_optimum`.
    """

    COLUMNS: ClassVar[tuple[str, ...]]  # names of the p parameters

    theta: FloatArray  # (p,)
    draws: FloatArray  # (n_draws, p)
    scheme: str  # of resampling
    n_degenerate: int  # resamples without a usable law
    flops_per_token: FlopsPerToken
    confidence: float
    noise: RunNoise | None
    warnings: tuple[str, ...]

    @abc.abstractmethod
    def named(self, theta: FloatArray) -> dict[str, FloatArray]:
        """Return the constants by name, each of shape (...), for theta of shape (..., p)."""

    @abc.abstractmethod
    def _optimum(self, theta: FloatArray, flops: FloatArray) -> Optimum:
        """Return the optimum at `flops` (k,) for theta (..., p); arrays of shape (..., k)."""

    @property
    def n_draws(self) -> int:
        """Number of usable bootstrap draws."""
        return len(self.draws)

    @property
    def constants(self) -> dict[str, float]:
        """The law's constants by name."""
        return {name: float(value) for name, value in self.named(self.theta).items()}

    @property
    def assumed(self) -> tuple[str, ...]:
        """Constants that are assumed and not estimated, and have no interval."""
        return ()

    @property
    def assumes_exponents(self) -> bool:
        """True if a is among the assumed constants."""
        return "a" in self.assumed

    @property
    def ci(self) -> dict[str, Interval]:
        """Confidence intervals of the estimated constants; empty without draws."""
        drawn = {name: values for name, values in self.named(self.draws).items() if name not in self.assumed}
        return named_intervals(drawn, self.confidence)

    def optimum(self, flops: FloatArray) -> Optimum:
        """Return the estimate at budgets `flops` of shape (k,); arrays of shape (k,)."""
        return self._optimum(self.theta, flops)

    def optimum_draws(self, flops: FloatArray) -> Optimum:
        """Return every draw at budgets `flops` of shape (k,); arrays of shape (n_draws, k)."""
        return self._optimum(self.draws, flops)

    def to_json(self) -> dict[str, Any]:
        """Return the law's entry in fit.json."""
        unproved = (*self.unproved, *self.unproved_constants)
        return {
            **self.constants,
            "ci": {name: list(pair) for name, pair in self.ci.items()},
            **fields_to_plain(self, without=("draws", "scheme", "n_degenerate")),
            "bootstrap": {
                "scheme": self.scheme,
                "n_draws": self.n_draws,
                "n_degenerate": self.n_degenerate,
                "draws": draws_to_json(self.draws, self.COLUMNS),
            },
            **({"unproved": list(unproved)} if unproved else {}),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Return the law of an entry in fit.json, equal to the last bit.

        Raises:
            KeyError, TypeError, ValueError: the entry is not complete.
        """
        bootstrap = document["bootstrap"]
        draws = draws_from_json(bootstrap["draws"])
        law: Self = record_from_plain(cls, {**document, **bootstrap, "draws": draws})
        return law


def named_intervals(draws: Mapping[str, FloatArray], confidence: float) -> dict[str, Interval]:
    """Return the central interval of each array of draws of shape (n_draws,); empty without draws."""
    intervals = {}
    for name, values in draws.items():
        if len(values):
            low, high = percentiles(values, confidence)
            intervals[name] = (float(low), float(high))
    return intervals


def draws_to_json(draws: FloatArray, columns: Sequence[str]) -> dict[str, Any]:
    """Return draws of shape (n_draws, len(columns)) as base64 of little-endian doubles, row by row."""
    data = base64.b64encode(np.ascontiguousarray(draws, dtype="<f8").tobytes()).decode()
    return {"columns": list(columns), "shape": list(draws.shape), "float64_le_base64": data}


def draws_from_json(document: Mapping[str, Any]) -> FloatArray:
    """Return the inverse of `draws_to_json`."""
    values = np.frombuffer(base64.b64decode(document["float64_le_base64"]), dtype="<f8")
    return values.reshape(document["shape"]).astype(np.float64)
