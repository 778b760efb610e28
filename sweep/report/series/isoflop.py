"""IsoFLOP curves: held-out loss against model size at each compute budget.

Legend: N parameters, D tokens, C training FLOPs, L loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweep.fit.laws.base import Interval
from sweep.fit.methods.isoflop import IsoflopLaw
from sweep.fit.methods.parabola import BudgetFit, BudgetStatus, fit_budget
from sweep.fit.table.observations import Observations
from sweep.records import Point
from sweep.report.results import SweepResults

FloatArray = npt.NDArray[np.float64]

N_PARABOLA = 101
PARABOLA_MARGIN = 0.06  # of the range of ln N, drawn past the outermost sizes
SAME_BUDGET = 0.25  # an excluded point this close in ln C belongs to a budget


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class IsoflopCurve:
    """One budget: its points, its parabola, and the parabola's minimum if it is usable."""

    flops_budget: float
    flops: float  # exact C at the minimum, else the geometric mean of the runs
    status: BudgetStatus
    reason: str | None  # why the minimum is not usable
    labels: tuple[str, ...]  # of the n runs
    n_params: FloatArray  # (n,)
    loss: FloatArray  # (n,) held out, nats per token
    excluded_n_params: FloatArray  # excluded by hand; diverged runs have no loss to show
    excluded_loss: FloatArray
    excluded_labels: tuple[str, ...]
    parabola_n_params: FloatArray  # empty without a parabola
    parabola_loss: FloatArray
    n_params_opt: float | None
    n_tokens_opt: float | None
    loss_opt: float | None
    n_params_interval: Interval | None


def isoflop_curves(results: SweepResults) -> tuple[IsoflopCurve, ...]:
    """Return a curve for every budget, including budgets without a usable minimum and refused fits."""
    observations = results.observations()
    law = results.fit.methods.get("isoflop")
    fitted = {budget.flops_budget: budget for budget in law.budgets} if isinstance(law, IsoflopLaw) else {}
    excluded = _excluded_points(results)
    return tuple(
        _isoflop_curve(observations, index, fitted.get(flops) or fit_budget(observations, index), excluded)
        for index, flops in enumerate(observations.budgets.tolist())
    )


def _excluded_points(results: SweepResults) -> tuple[Point, ...]:
    excluded = results.excluded
    return tuple(
        point
        for point in results.points
        if point.loss is not None
        and point.n_params is not None
        and (point.status == "diverged" or point.run_key in excluded or point.name in excluded)
    )


def _isoflop_curve(
    observations: Observations, index: int, budget: BudgetFit, excluded: Sequence[Point]
) -> IsoflopCurve:
    rows = observations.budget == index
    n_params = observations.n_params[rows]
    grid = np.empty(0)
    if budget.parabola is not None:
        low, high = np.log(n_params.min()), np.log(n_params.max())
        margin = PARABOLA_MARGIN * (high - low)
        grid = np.exp(np.linspace(low - margin, high + margin, N_PARABOLA))
    own = [point for point in excluded if _in_budget(point, budget.flops_budget)]
    return IsoflopCurve(
        flops_budget=budget.flops_budget,
        flops=budget.flops,
        status=budget.status,
        reason=budget.reason,
        labels=tuple(label for label, own in zip(observations.labels, rows, strict=True) if own),
        n_params=n_params,
        loss=observations.loss[rows],
        excluded_n_params=np.array([point.n_params for point in own], dtype=np.float64),
        excluded_loss=np.array([point.loss for point in own], dtype=np.float64),
        excluded_labels=tuple(point.run_key or point.name or "" for point in own),
        parabola_n_params=grid,
        parabola_loss=grid if budget.parabola is None else budget.parabola.loss(grid),
        n_params_opt=budget.n_params_opt,
        n_tokens_opt=budget.n_tokens_opt,
        loss_opt=budget.loss_opt,
        n_params_interval=budget.ci.get("n_params_opt"),
    )


def _in_budget(point: Point, flops_budget: float) -> bool:
    flops = point.flops_budget or point.flops
    if flops is None and point.n_params is not None and point.n_tokens is not None:
        flops = 6.0 * point.n_params * point.n_tokens
    return flops is not None and abs(np.log(flops / flops_budget)) < SAME_BUDGET
