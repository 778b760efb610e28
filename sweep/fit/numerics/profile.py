"""Profile-likelihood intervals of the parametric surface, a check on the bootstrap without resampling.

For each value of one quantity all others are fitted again; the interval is where the residual sum of squares
of ln L stays below RSS (1 + F / (n - 5)), F the quantile of the F distribution with 1 and n - 5 degrees.
Source: Venzon & Moolgavkar 1988; for nonlinear least squares Bates & Watts 1988, section 6.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sweep.fit.numerics.centred import CentredData
from sweep.fit.numerics.estimation import SurfaceForm
from sweep.fit.numerics.minimise import NO_NOISE, SQUARES, minimise

FloatArray = npt.NDArray[np.float64]

QUANTITIES = ("E", "alpha", "beta", "a")
FIRST_REACH, N_DOUBLINGS, N_HALVINGS = 0.02, 9, 14  # of ln E, an exponent, or logit a
PROFILE_ASSUMES = "normal noise of ln L: outliers move the interval away from the Huber estimate"


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """The interval of one quantity; an end is None where the likelihood never falls to the limit."""

    estimate: float  # of least squares
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the entry in fit.json."""
        return {"estimate": self.estimate, "low": self.low, "high": self.high}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Profile:
        """Read the entry that `to_json` returns."""
        return cls(**document)


def profile_likelihood(
    data: CentredData, theta: FloatArray, confidence: float, form: SurfaceForm
) -> dict[str, Profile]:
    """Return intervals of E, alpha, beta and a = beta/(alpha+beta); empty for a fixed E or tied exponents.

    `theta` (5,) is a centred start near the optimum.
    """
    if form.n_free < 5:
        return {}
    n_dof = len(data.y) - 5
    best = minimise(data, theta[None], data.y, SQUARES)
    squares = 2.0 * float(best.objective[0])
    if n_dof < 1 or squares < NO_NOISE * len(data.y):
        return {}
    from scipy.special import stdtrit  # slow to import, as all of scipy

    limit = 0.5 * squares * (1.0 + float(stdtrit(n_dof, 0.5 + confidence / 2)) ** 2 / n_dof)
    ends = _ends(data, best.theta[0], limit)
    found = {}
    for i, name in enumerate(QUANTITIES):
        low, high = (None if math.isnan(end) else float(_natural(name, end, data)) for end in ends[i])
        estimate = float(_natural(name, _coordinate(best.theta[0])[i], data))
        found[name] = Profile(estimate=estimate, low=low, high=high)
    return found


def _coordinate(theta: FloatArray) -> FloatArray:
    """Return ln E, alpha, beta and ln(beta/alpha): the scales on which the intervals are searched."""
    return np.array([theta[2], theta[3], theta[4], math.log(theta[4] / theta[3])])


def _natural(name: str, value: float, data: CentredData) -> float:
    if name == "E":
        return math.exp(value + data.center_l)
    return 1.0 / (1.0 + math.exp(-value)) if name == "a" else value


def _ends(data: CentredData, best: FloatArray, limit: float) -> FloatArray:
    """Return where each quantity's profile crosses `limit` below and above, (4, 2); nan where it does not."""
    n = 2 * len(QUANTITIES)
    kind, sign = np.repeat(np.arange(n // 2), 2), np.tile([-1.0, 1.0], n // 2)
    center = _coordinate(best)[kind]
    inside, reach = np.zeros(n), np.full(n, FIRST_REACH)
    theta, crossed = np.repeat(best[None], n, axis=0), np.zeros(n, bool)
    for _ in range(N_DOUBLINGS):
        objective, trial = _constrained(data, theta, kind, center + sign * reach)
        now = (objective > limit) & ~crossed
        crossed |= now
        moved = ~crossed
        inside[moved], theta[moved] = reach[moved], trial[moved]
        reach[moved] *= 2.0
        if crossed.all():
            break
    outside = reach.copy()
    for _ in range(N_HALVINGS):
        middle = 0.5 * (inside + outside)
        objective, trial = _constrained(data, theta, kind, center + sign * middle)
        out = objective > limit
        outside = np.where(out, middle, outside)
        inside = np.where(out, inside, middle)
        theta[~out] = trial[~out]
    ends = np.where(crossed, center + sign * 0.5 * (inside + outside), np.nan)
    return ends.reshape(-1, 2)


def _constrained(
    data: CentredData, theta: FloatArray, kind: npt.NDArray[np.int64], value: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Least squares with quantity `kind` fixed at `value`, from `theta`: objective (k,) and theta (k, 5)."""
    start, basis = theta.copy(), np.zeros((len(theta), 5, 4))
    for row, (quantity, at) in enumerate(zip(kind.tolist(), value.tolist(), strict=True)):
        if quantity < 3:
            column = quantity + 2
            start[row, column] = max(at, 1e-4) if quantity else at
            basis[row] = np.delete(np.eye(5), column, axis=1)
        else:
            share = 1.0 / (1.0 + math.exp(-at))
            both = start[row, 3] + start[row, 4]
            start[row, 3:] = both * (1 - share), both * share
            basis[row, :3, :3] = np.eye(3)
            basis[row, 3:, 3] = 1 - share, share
    solution = minimise(data, start, data.y, SQUARES, basis=basis, max_iterations=60)
    return solution.objective, solution.theta
