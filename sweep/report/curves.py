"""The numbers the figures draw: IsoFLOP curves, optima over budgets, training curves.

Legend: N parameters, D tokens, C training FLOPs, L loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from sweep.fit.fit import Fit
from sweep.fit.laws.base import Interval, Law
from sweep.fit.methods.isoflop import IsoflopLaw
from sweep.fit.methods.parabola import BudgetFit, BudgetStatus, fit_budget
from sweep.fit.table.observations import Observations, observe
from sweep.records import CurvePoint, Point

FloatArray = npt.NDArray[np.float64]
Panel = Literal["n_params_opt", "n_tokens_opt"]
PANELS: tuple[Panel, ...] = ("n_params_opt", "n_tokens_opt")

N_PARABOLA = 101
N_GRID = 81
BEYOND = 10.0  # how far past the largest budget the laws are drawn
BEFORE = 1.5  # and before the smallest
PARABOLA_MARGIN = 0.06  # of the range of ln N, drawn past the outermost sizes
SAME_BUDGET = 0.25  # an excluded point this close in ln C belongs to a budget


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class IsoflopCurve:
    """One budget: its points, its parabola, and its minimum where that counts."""

    flops_budget: float
    status: BudgetStatus
    n_params: FloatArray
    loss: FloatArray
    excluded_n_params: FloatArray  # excluded by hand; diverged runs have no loss to show
    excluded_loss: FloatArray
    parabola_n_params: FloatArray  # empty without a parabola
    parabola_loss: FloatArray
    n_params_opt: float | None
    loss_opt: float | None
    n_params_interval: Interval | None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OptimumCurve:
    """One method's law for N_opt or D_opt over C, with its confidence band where it has draws."""

    method: str
    quantity: Panel
    exponent: float
    exponent_interval: Interval | None
    doubtful: bool  # the interval has no proved coverage
    without_embeddings: bool  # the exponent is of that N, though the line is of total parameters
    flops: FloatArray
    estimate: FloatArray
    band: tuple[FloatArray, FloatArray] | None
    flops_max: float  # the largest fitted C: beyond it the law extrapolates


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OptimumMarks:
    """The minima of the IsoFLOP curves, as points with intervals."""

    quantity: Panel
    flops: FloatArray
    estimate: FloatArray
    low: FloatArray  # equal to the estimate without draws
    high: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrainingCurve:
    """One run: training loss against FLOPs so far, and its held-out loss at the end."""

    run_key: str
    flops_budget: float | None
    flops: FloatArray
    train_loss: FloatArray
    final_flops: float | None
    final_loss: float | None  # held out; None when the run diverged
    fitted: bool


def isoflop_curves(fit: Fit, points: Sequence[Point]) -> tuple[IsoflopCurve, ...]:
    """Every budget's curve, also those whose minimum does not count and where the method refused."""
    excluded = {point.run_key: point.reason for point in fit.excluded}
    observations = observe(points, excluded)
    law = fit.methods.get("isoflop")
    told = {budget.flops_budget: budget for budget in law.budgets} if isinstance(law, IsoflopLaw) else {}
    left_out = _left_out(points, excluded)
    return tuple(
        _isoflop_curve(observations, index, told.get(flops) or fit_budget(observations, index), left_out)
        for index, flops in enumerate(observations.budgets.tolist())
    )


def _left_out(points: Sequence[Point], excluded: Mapping[str, str]) -> tuple[Point, ...]:
    return tuple(
        point
        for point in points
        if point.loss is not None
        and point.n_params is not None
        and (point.status == "diverged" or point.run_key in excluded or point.name in excluded)
    )


def _isoflop_curve(
    observations: Observations, index: int, budget: BudgetFit, left_out: Sequence[Point]
) -> IsoflopCurve:
    rows = observations.budget == index
    n_params = observations.n_params[rows]
    grid = np.empty(0)
    if budget.parabola is not None:
        low, high = np.log(n_params.min()), np.log(n_params.max())
        margin = PARABOLA_MARGIN * (high - low)
        grid = np.exp(np.linspace(low - margin, high + margin, N_PARABOLA))
    mine = [point for point in left_out if _in_budget(point, budget.flops_budget)]
    return IsoflopCurve(
        flops_budget=budget.flops_budget,
        status=budget.status,
        n_params=n_params,
        loss=observations.loss[rows],
        excluded_n_params=np.array([point.n_params for point in mine], dtype=np.float64),
        excluded_loss=np.array([point.loss for point in mine], dtype=np.float64),
        parabola_n_params=grid,
        parabola_loss=grid if budget.parabola is None else budget.parabola.loss(grid),
        n_params_opt=budget.n_params_opt,
        loss_opt=budget.loss_opt,
        n_params_interval=budget.ci.get("n_params_opt"),
    )


def _in_budget(point: Point, flops_budget: float) -> bool:
    flops = point.flops_budget or point.flops
    if flops is None and point.n_params is not None and point.n_tokens is not None:
        flops = 6.0 * point.n_params * point.n_tokens
    return flops is not None and abs(np.log(flops / flops_budget)) < SAME_BUDGET


def optimum_curves(fit: Fit) -> tuple[OptimumCurve, ...]:
    """N_opt(C) and D_opt(C) by every method that did not refuse, from below the data to 10 times beyond."""
    if fit.flops_range is None:
        return ()
    low, high = fit.flops_range
    grid = np.geomspace(low / BEFORE, high * BEYOND, N_GRID)
    return tuple(
        _optimum_curve(name, law, quantity, grid, high)
        for quantity in PANELS
        for name, law in fit.laws.items()
    )


def _optimum_curve(name: str, law: Law, quantity: Panel, grid: FloatArray, flops_max: float) -> OptimumCurve:
    entry = law.to_json()
    symbol = "a" if quantity == "n_params_opt" else "b"
    interval = entry["ci"].get(symbol)
    return OptimumCurve(
        method=name,
        quantity=quantity,
        exponent=entry[symbol],
        exponent_interval=None if interval is None else (interval[0], interval[1]),
        doubtful=symbol in entry.get("unproved", ()),
        without_embeddings=entry.get("counting") == "non_embedding",
        flops=grid,
        estimate=getattr(law.optimum(grid), quantity),
        band=law.band(quantity, grid),
        flops_max=flops_max,
    )


def optimum_marks(fit: Fit) -> tuple[OptimumMarks, ...]:
    """The counted minima of the IsoFLOP curves for N and D; nothing where `isoflop` refused."""
    law = fit.methods.get("isoflop")
    if not isinstance(law, IsoflopLaw):
        return ()
    counted = [budget for budget in law.budgets if budget.status == "ok"]
    marks = []
    for quantity in PANELS:
        estimates = [getattr(budget, quantity) for budget in counted]
        intervals = [
            budget.ci.get(quantity, (value, value)) for budget, value in zip(counted, estimates, strict=True)
        ]
        marks.append(
            OptimumMarks(
                quantity=quantity,
                flops=np.array([budget.flops for budget in counted]),
                estimate=np.array(estimates, dtype=np.float64),
                low=np.array([low for low, _ in intervals]),
                high=np.array([high for _, high in intervals]),
            )
        )
    return tuple(marks)


def training_curves(
    fit: Fit, points: Sequence[Point], curves: Mapping[str, Sequence[CurvePoint]]
) -> tuple[TrainingCurve, ...]:
    """One curve for each run key of `curves`, joined with its point where that is there."""
    by_key = {point.run_key: point for point in points if point.run_key is not None}
    excluded = {point.run_key for point in fit.excluded}
    return tuple(
        _training_curve(run_key, curve, by_key.get(run_key), excluded) for run_key, curve in curves.items()
    )


def _training_curve(
    run_key: str, curve: Sequence[CurvePoint], point: Point | None, excluded: set[str]
) -> TrainingCurve:
    names = {run_key} if point is None or point.name is None else {run_key, point.name}
    shown = [record for record in curve if np.isfinite(record.train_loss) and record.flops > 0]
    return TrainingCurve(
        run_key=run_key,
        flops_budget=None if point is None else point.flops_budget,
        flops=np.array([record.flops for record in shown], dtype=np.float64),
        train_loss=np.array([record.train_loss for record in shown], dtype=np.float64),
        final_flops=None if point is None else point.flops,
        final_loss=None if point is None else point.loss,
        fitted=point is not None and point.status == "done" and not names & excluded,
    )
