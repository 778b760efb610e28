"""Laws that are a loss surface E + A/N^alpha + B/D^beta: what all of them say, and their entry in fit.json.

Legend: N parameters, D tokens, C training FLOPs, L loss; theta = (ln A, ln B, ln E, alpha, beta).
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from sweep.fit.draws import draws_from_json, draws_to_json
from sweep.fit.laws.base import Law, Optimum, named_intervals
from sweep.fit.surface import optimum_exponents, surface_loss, surface_optimum
from sweep.fit.table.constraint import FlopsPerToken
from sweep.fit.table.observations import RunNoise

FloatArray = npt.NDArray[np.float64]

COLUMNS = ("ln A", "ln B", "ln E", "alpha", "beta")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SurfaceLaw(Law):
    """A fitted surface; optima under the constraint of its table."""

    theta: FloatArray  # (5,)
    draws: FloatArray  # (n_draws, 5) bootstrap draws of theta
    flops_per_token: FlopsPerToken
    flops_range: tuple[float, float]  # of the fitted points; where the exponents a and b are taken
    objective: float  # sum of Huber losses
    huber_delta: float
    confidence: float
    noise: RunNoise | None
    n_degenerate: int  # resamples without a usable minimum
    scheme: str  # how they were drawn
    warnings: tuple[str, ...]

    @property
    def n_draws(self) -> int:
        """Usable bootstrap resamples."""
        return len(self.draws)

    def loss(self, n_params: npt.ArrayLike, n_tokens: npt.ArrayLike) -> FloatArray:
        """L(N, D) of the estimate; arguments broadcast."""
        return surface_loss(self.theta, n_params, n_tokens)

    def optimum(self, flops: FloatArray) -> Optimum:
        """Least loss with D f(N) = C; see `surface_optimum`."""
        return surface_optimum(self.theta, flops, self.flops_per_token)

    def optimum_draws(self, flops: FloatArray) -> Optimum:
        """The same for every resample."""
        return surface_optimum(self.draws, flops, self.flops_per_token)

    @property
    def surface_theta(self) -> FloatArray:
        """The estimate (5,)."""
        return self.theta

    def with_family(self, n_params: FloatArray, flops_per_token: FloatArray) -> Self:
        """The same law, its FLOPs per token past the fitted sizes those of (N, f)."""
        return dataclasses.replace(
            self, flops_per_token=self.flops_per_token.extended(n_params, flops_per_token)
        )

    def loss_off_optimum(self, flops: float, factor: float) -> float:
        """Loss at budget `flops` with `factor` times the optimal N."""
        n_params = factor * self.n_params_opt(flops)
        return float(self.loss(n_params, flops / float(self.flops_per_token(n_params))))

    @abc.abstractmethod
    def _constants(self, theta: FloatArray) -> dict[str, FloatArray]:
        """The law's constants by name, for theta (..., 5)."""

    def _named(self, theta: FloatArray) -> dict[str, FloatArray]:
        a, b = optimum_exponents(theta, self.flops_per_token, self.flops_range)
        return {**self._constants(theta), "a": a, "b": b}

    def _surface_json(self) -> dict[str, Any]:
        """The entries that every surface has in fit.json."""
        intervals = named_intervals(self._named(self.draws), self.confidence)
        return {
            **{name: float(value) for name, value in self._named(self.theta).items()},
            "objective": self.objective,
            "huber_delta": self.huber_delta,
            "ci": {name: list(pair) for name, pair in intervals.items()},
            "confidence": self.confidence,
            "noise": None if self.noise is None else self.noise.to_json(),
            "theta": self.theta.tolist(),
            "flops_per_token": self.flops_per_token.to_json(),
            "flops_range": list(self.flops_range),
            "bootstrap": {
                "scheme": self.scheme,
                "n_draws": self.n_draws,
                "n_degenerate": self.n_degenerate,
                "draws": draws_to_json(self.draws, COLUMNS),
            },
            "warnings": list(self.warnings),
        }


def surface_parts(document: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of SurfaceLaw from an entry of fit.json."""
    low, high = document["flops_range"]
    return {
        "theta": np.array(document["theta"]),
        "draws": draws_from_json(document["bootstrap"]["draws"]),
        "flops_per_token": FlopsPerToken.from_json(document["flops_per_token"]),
        "flops_range": (low, high),
        "objective": document["objective"],
        "huber_delta": document["huber_delta"],
        "confidence": document["confidence"],
        "noise": RunNoise.from_json(document["noise"]),
        "n_degenerate": document["bootstrap"]["n_degenerate"],
        "scheme": document["bootstrap"]["scheme"],
        "warnings": tuple(document["warnings"]),
    }
