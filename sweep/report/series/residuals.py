"""Residuals of ln L at the fitted points, for every law that gives a loss at each.

Legend: N parameters, D tokens, C training FLOPs, L loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweep.fit.laws.base import Law
from sweep.fit.methods.isoflop import IsoflopLaw
from sweep.fit.table.observations import Observations
from sweep.report.results import SweepResults

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Residuals:
    """Residuals of one method: ln L minus its prediction at each fitted point."""

    method: str
    flops: FloatArray  # (n,)
    residual: FloatArray  # (n,) NaN where the law gives no loss
    huber_delta: float | None  # residuals up to this size enter the objective squared; None without one
    sd: float  # root mean square


def residuals(results: SweepResults) -> tuple[Residuals, ...]:
    """Return the residuals of every law that gives a loss for each run.

    Those of `isoflop` are about the parabola of the run's budget, and runs outside all budgets are NaN.
    """
    observations = results.observations()
    found = []
    for name, law in results.fit.laws.items():
        predicted = (
            _on_parabolas(observations, law)
            if isinstance(law, IsoflopLaw)
            else law.predicted_losses(observations)
        )
        if predicted is not None:
            found.append(_residuals(name, law, observations, predicted))
    return tuple(found)


def _on_parabolas(observations: Observations, law: IsoflopLaw) -> FloatArray:
    """Return the loss of each run on the parabola of its budget."""
    predicted = np.full(len(observations), np.nan)
    for budget in law.budgets:
        if budget.parabola is not None:
            near = np.isclose(observations.budgets, budget.flops_budget)
            rows = np.isin(observations.budget, np.flatnonzero(near))
            predicted[rows] = budget.parabola.loss(observations.n_params[rows])
    return predicted


def _residuals(name: str, law: Law, observations: Observations, predicted: FloatArray) -> Residuals:
    residual = np.log(observations.loss) - np.log(predicted)
    return Residuals(
        method=name,
        flops=observations.flops,
        residual=residual,
        huber_delta=getattr(law, "huber_delta", None),
        sd=float(np.sqrt(np.nanmean(residual**2))),
    )
