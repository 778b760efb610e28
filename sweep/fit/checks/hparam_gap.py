"""Loss that a better value of a hyperparameter would gain, by a parabola through three values.

Legend: x the logarithm of a value over the rule's value, d the loss less the loss at the rule's value, by
seed; all values are trained with the same seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Status = Literal["ok", "outside", "not_convex", "incomplete"]

TOLERANCE = 0.01  # nats per token; about the spread between seeds on the demos


@dataclass(frozen=True, kw_only=True, slots=True)
class HparamGap:
    """The gain of the best value: a lower bound unless `status` is ok, None if `status` is incomplete."""

    status: Status
    loss_left: float | None  # nats per token
    stderr: float | None  # over seeds; None with one seed
    factor_opt: float | None  # the best value over the rule's; None unless the status is ok
    slope: float | None  # of the parabola at the rule's value, nats per unit of ln
    curvature: float | None  # twice its coefficient of x²

    @property
    def within(self) -> bool:
        """True if the gain is at most TOLERANCE, or within one standard error of zero.

        A lower bound passes only by its standard error.
        """
        if self.loss_left is None:
            return False
        small = self.status == "ok" and self.loss_left <= TOLERANCE
        return small or (self.stderr is not None and self.loss_left <= self.stderr)


def hparam_gap(values: Sequence[float], rule: float, losses: FloatArray) -> HparamGap:
    """Fit y = c₀ + c₁ x + c₂ x² through the means of `losses`, shape (n_seeds, 3), at three `values`.

    If its minimum lies between the outer values, the gain is loss(rule) - loss(minimum) = c₁² / (4 c₂), and
    its variance is propagated from the seeds' paired differences. Otherwise the gain of the better outer
    value is a lower bound.
    """
    x = np.log(np.asarray(values, dtype=np.float64) / rule)
    centre = int(np.argmin(np.abs(x)))
    outer = [index for index in range(len(x)) if index != centre]
    if len(x) != 3 or len(losses) == 0 or x[outer[0]] * x[outer[1]] >= 0:
        return HparamGap(
            status="incomplete", loss_left=None, stderr=None, factor_opt=None, slope=None, curvature=None
        )
    differences = losses[:, outer] - losses[:, [centre]]
    solve = np.linalg.inv(np.stack([x[outer], x[outer] ** 2], axis=1))  # (c₁, c₂) from the two differences
    c1, c2 = solve @ differences.mean(axis=0)
    at = -c1 / (2 * c2) if c2 > 0 else math.nan
    if not x.min() <= at <= x.max():
        status: Status = "outside" if c2 > 0 else "not_convex"
        return _bound(status, differences, float(c1), float(c2))
    variance = _variance(differences @ solve.T, float(c1), float(c2)) if len(losses) > 1 else None
    return HparamGap(
        status="ok",
        loss_left=float(c1**2 / (4 * c2)),
        stderr=None if variance is None else math.sqrt(variance),
        factor_opt=math.exp(at),
        slope=float(c1),
        curvature=float(2 * c2),
    )


def _variance(coefficients: FloatArray, c1: float, c2: float) -> float:
    """Return the variance of c₁² / (4 c₂) to second order in c₁, from (c₁, c₂) by seed, (n_seeds, 2).

    The first-order term vanishes if the rule is optimal; it is computed without the part of c₁² that is
    due to noise.
    """
    covariance = np.cov(coefficients, rowvar=False) / len(coefficients)
    at, of_slope = -c1 / (2 * c2), float(covariance[0, 0])
    gradient = np.array([-at, -(at**2)])
    true_part = max(0.0, 1 - of_slope / c1**2) if c1 else 0.0
    return float(gradient @ covariance @ gradient) * true_part + of_slope**2 / (8 * c2**2)


def _bound(status: Status, differences: FloatArray, c1: float, c2: float) -> HparamGap:
    gains = -differences[:, int(np.argmin(differences.mean(axis=0)))]
    n_seeds = len(gains)
    return HparamGap(
        status=status,
        loss_left=max(0.0, float(gains.mean())),
        stderr=float(gains.std(ddof=1) / math.sqrt(n_seeds)) if n_seeds > 1 else None,
        factor_opt=None,
        slope=c1,
        curvature=2 * c2,
    )
