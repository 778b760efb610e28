"""Laws that are power laws through optima: N_opt, D_opt in C, and L_opt = E + K C^-gamma.

Legend: N parameters, D tokens, C training FLOPs, L loss.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from sweep.fit.draws import draws_from_json, draws_to_json
from sweep.fit.floor_law import fit_floor_law
from sweep.fit.laws.base import Law, Optimum, named_intervals
from sweep.fit.table.constraint import FlopsPerToken
from sweep.fit.table.observations import RunNoise

FloatArray = npt.NDArray[np.float64]

COLUMNS = ("ln N_opt", "a", "ln D_opt", "b", "E", "ln K", "gamma")  # the first and third at flops_center


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PowerLaw(Law):
    """N_opt = N_0 (C/C_0)^a, D_opt = C / f(N_opt), L_opt = E + K (C/C_0)^-gamma, C_0 = flops_center.

    b is the slope of ln D in ln C at the optima fitted, where D_opt follows D_0 (C/C_0)^b.
    """

    coefficients: FloatArray  # (7,) as COLUMNS
    draws: FloatArray  # (n_draws, 7)
    flops_center: float
    confidence: float
    noise: RunNoise | None
    n_degenerate: int  # draws without a usable law
    warnings: tuple[str, ...]
    flops_per_token: FlopsPerToken

    @property
    def n_draws(self) -> int:
        """Usable bootstrap draws."""
        return len(self.draws)

    def with_family(self, n_params: FloatArray, flops_per_token: FloatArray) -> Self:
        """The same law, D past the fitted sizes being what (N, f) leave of C."""
        curve = self.flops_per_token.extended(n_params, flops_per_token)
        return dataclasses.replace(self, flops_per_token=curve)

    def optimum(self, flops: FloatArray) -> Optimum:
        """The power laws at `flops`."""
        return self._evaluate(self.coefficients, flops)

    def optimum_draws(self, flops: FloatArray) -> Optimum:
        """The same for every draw."""
        return self._evaluate(self.draws, flops)

    def _evaluate(self, coefficients: FloatArray, flops: FloatArray) -> Optimum:
        log_n, a, _, _, floor, log_k, gamma = np.moveaxis(coefficients, -1, 0)[..., None]
        x = np.log(flops / self.flops_center)
        n_params = np.exp(log_n + a * x)
        return Optimum(
            n_params_opt=n_params,
            n_tokens_opt=flops / self.flops_per_token(n_params),
            loss_opt=floor + np.exp(log_k - gamma * x),
        )

    def _power_law_json(self, scheme: str) -> dict[str, Any]:
        """The entries that every law of this form has in fit.json."""
        return {
            **{name: float(value) for name, value in _named(self.coefficients).items()},
            "ci": {
                name: list(pair)
                for name, pair in named_intervals(_named(self.draws), self.confidence).items()
            },
            "confidence": self.confidence,
            "noise": None if self.noise is None else self.noise.to_json(),
            "flops_center": self.flops_center,
            "flops_per_token": self.flops_per_token.to_json(),
            "coefficients": dict(zip(COLUMNS, self.coefficients.tolist(), strict=True)),
            "bootstrap": {
                "scheme": scheme,
                "n_draws": self.n_draws,
                "n_degenerate": self.n_degenerate,
                "draws": draws_to_json(self.draws, COLUMNS),
            },
            "warnings": list(self.warnings),
        }


def power_law_parts(document: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of PowerLaw from an entry of fit.json."""
    return {
        "coefficients": np.array([document["coefficients"][name] for name in COLUMNS]),
        "draws": draws_from_json(document["bootstrap"]["draws"]),
        "flops_center": document["flops_center"],
        "flops_per_token": FlopsPerToken.from_json(document["flops_per_token"]),
        "confidence": document["confidence"],
        "noise": RunNoise.from_json(document["noise"]),
        "n_degenerate": document["bootstrap"]["n_degenerate"],
        "warnings": tuple(document["warnings"]),
    }


def power_laws(log_c: FloatArray, minima: FloatArray) -> FloatArray:
    """Least-squares laws through minima (..., 3, m) = ln N, ln D, L at `log_c` (m,) or (..., m), as (..., 7).

    ln N = ln N_0 + a log_c and ln D likewise, by ordinary least squares; L = E + K exp(-gamma log_c), E >= 0.
    """
    log_c = np.broadcast_to(log_c, minima.shape[:-2] + minima.shape[-1:])
    center = log_c.mean(axis=-1, keepdims=True)
    x = log_c - center
    columns = []
    for row in (0, 1):
        y = minima[..., row, :]
        slope = (x * y).sum(axis=-1) / (x * x).sum(axis=-1)
        columns += [y.mean(axis=-1) - slope * center[..., 0], slope]
    floor, log_k, gamma = fit_floor_law(log_c, minima[..., 2, :])
    return np.stack([*columns, floor, log_k, gamma], axis=-1)


def _named(coefficients: FloatArray) -> dict[str, FloatArray]:
    return {name: coefficients[..., COLUMNS.index(name)] for name in ("a", "b", "E", "gamma")}
