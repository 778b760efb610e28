"""Power laws through a table of optima: one row a budget, with N_opt, D_opt or the loss there.

Legend: C training FLOPs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.errors import InputError
from sweep.fit.table.points import Table

MIN_OPTIMA = 3  # two determine the line and leave no residual for its interval
QUANTITIES = {"n_params": "N_opt", "n_tokens": "D_opt", "loss": "L_opt"}


@dataclass(frozen=True, kw_only=True, slots=True)
class PowerOfBudget:
    """A quantity ∝ C^exponent by ordinary least squares of logarithms."""

    exponent: float
    coefficient: float  # the quantity at C = 1
    ci: tuple[float, float]  # of the exponent, by Student's t at n - 2 degrees of freedom
    residual_sd: float  # of the logarithm

    def at(self, flops: float) -> float:
        """Return the quantity at C = `flops`."""
        return float(self.coefficient * flops**self.exponent)


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimaLaw:
    """The power laws of a table of optima, by quantity: N_opt, D_opt, L_opt."""

    n_optima: int
    flops_range: tuple[float, float]
    confidence: float
    laws: Mapping[str, PowerOfBudget]

    def __str__(self) -> str:
        low, high = self.flops_range
        lines = [f"{self.n_optima} optima from C = {low:.4g} to {high:.4g} FLOPs"]
        for name, law in self.laws.items():
            interval = f"[{law.ci[0]:.4g}, {law.ci[1]:.4g}]"
            lines.append(
                f"{name} = {law.coefficient:.4g} · C^{law.exponent:.4g}, exponent {interval} at "
                f"{self.confidence:.0%}, residuals {law.residual_sd:.2%}"
            )
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as plain JSON types."""
        return {
            "optima": {"n": self.n_optima, "flops_range": list(self.flops_range)},
            "confidence": self.confidence,
            "laws": {
                name: {
                    "exponent": law.exponent,
                    "ci": list(law.ci),
                    "coefficient": law.coefficient,
                    "residual_sd": law.residual_sd,
                }
                for name, law in self.laws.items()
            },
        }


def optima_law(table: Table, confidence: float = 0.95) -> OptimaLaw:
    """Return the power law in C of each quantity in a table of optima.

    Source: Hoffmann et al. 2022, section 3.2 (regression of the logarithms of optima on ln C).

    Raises:
        InputError: fewer than three optima at different C.
    """
    flops = np.array([point.flops for point in table], dtype=np.float64)
    if len(np.unique(flops)) < MIN_OPTIMA:
        raise InputError(
            f"{table.source}: {len(np.unique(flops))} optima are too few for a power law with an interval: "
            f"give at least {MIN_OPTIMA} at different C"
        )
    laws = {
        symbol: _power(np.log(flops), np.log([getattr(point, field) for point in table]), confidence)
        for field, symbol in QUANTITIES.items()
        if all(getattr(point, field) for point in table)
    }
    return OptimaLaw(
        n_optima=len(flops),
        flops_range=(float(flops.min()), float(flops.max())),
        confidence=confidence,
        laws=laws,
    )


def _power(log_c: np.ndarray[Any, Any], log_y: np.ndarray[Any, Any], confidence: float) -> PowerOfBudget:
    from scipy.stats import t as student

    center = log_c - log_c.mean()
    slope = float(center @ log_y / (center @ center))
    residuals = log_y - log_y.mean() - slope * center
    n_dof = len(log_c) - 2
    sd = math.sqrt(float(residuals @ residuals) / n_dof)
    half = float(student.ppf(0.5 + confidence / 2, n_dof)) * sd / math.sqrt(float(center @ center))
    return PowerOfBudget(
        exponent=slope,
        coefficient=math.exp(float(log_y.mean() - slope * log_c.mean())),
        ci=(slope - half, slope + half),
        residual_sd=sd,
    )
