"""Compute-optimal parameters, tokens, their ratio and the loss over compute, by every method.

Legend: N parameters, D tokens, C training FLOPs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweep.fit.answer import AnswerLaw
from sweep.fit.fit import Fit
from sweep.fit.laws.base import Interval, Law, Quantity, percentiles
from sweep.fit.methods.isoflop import IsoflopLaw
from sweep.report.results import SweepResults

FloatArray = npt.NDArray[np.float64]
PANELS: tuple[Quantity, ...] = ("n_params_opt", "n_tokens_opt")
EXPONENTS: dict[Quantity, str] = {"n_params_opt": "a", "n_tokens_opt": "b"}

ANSWER = "answer"

N_GRID = 81
BEYOND = 10.0  # laws are drawn up to this multiple of the largest budget
BEFORE = 1.5  # and down to the smallest budget divided by this


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OptimumCurve:
    """One method's law for a quantity over C, with its confidence band if it has bootstrap draws."""

    method: str
    slope: float | None  # of the line in ln C over the fitted range; None for D/N and the loss
    slope_interval: Interval | None
    unverified: bool  # no simulation has verified the coverage of the interval
    doubted: bool  # the points show lack of fit
    flops: FloatArray  # (N_GRID,)
    estimate: FloatArray  # (N_GRID,)
    band: tuple[FloatArray, FloatArray] | None
    flops_max: float  # the largest fitted C: larger ones are extrapolation


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OptimumMarks:
    """The usable minima of the IsoFLOP curves, with intervals."""

    flops: FloatArray
    estimate: FloatArray
    low: FloatArray  # equal to the estimate without draws
    high: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OptimumPanel:
    """A quantity at the optimum over C: a curve for each law, minima of IsoFLOP curves, and measurements."""

    quantity: Quantity
    curves: tuple[OptimumCurve, ...]
    marks: OptimumMarks | None  # None if method isoflop refused
    run_flops: FloatArray  # (n,) fitted runs; empty unless the quantity is the loss
    run_loss: FloatArray  # (n,)
    measured: FloatArray  # (m, 2) C and value of finished validations


def optimum_panels(results: SweepResults) -> tuple[OptimumPanel, ...]:
    """Return the panels of N_opt and D_opt; empty if every method refused."""
    return _panels(results, PANELS)


def ratio_panels(results: SweepResults) -> tuple[OptimumPanel, ...]:
    """Return the panel of D/N at the optimum; empty if every method refused."""
    return _panels(results, ("tokens_per_param_opt",))


def loss_panels(results: SweepResults) -> tuple[OptimumPanel, ...]:
    """Return the panel of the loss at the optimum, with the runs; empty if every method refused."""
    return _panels(results, ("loss_opt",))


def _panels(results: SweepResults, quantities: Sequence[Quantity]) -> tuple[OptimumPanel, ...]:
    fit = results.fit
    if fit.flops_range is None or not fit.laws:
        return ()
    grid = np.geomspace(fit.flops_range[0] / BEFORE, fit.flops_range[1] * BEYOND, N_GRID)
    laws = {ANSWER: fit.answer} if isinstance(fit.answer, AnswerLaw) else {}
    return tuple(_panel(results, quantity, {**laws, **fit.laws}, grid) for quantity in quantities)


def _panel(
    results: SweepResults, quantity: Quantity, laws: Mapping[str, Law], grid: FloatArray
) -> OptimumPanel:
    fit = results.fit
    assert fit.flops_range is not None
    observations = results.observations()
    is_loss = quantity == "loss_opt"
    return OptimumPanel(
        quantity=quantity,
        curves=tuple(_curve(name, law, quantity, grid, fit.flops_range) for name, law in laws.items()),
        marks=_marks(fit, quantity),
        run_flops=observations.flops if is_loss else np.empty(0),
        run_loss=observations.loss if is_loss else np.empty(0),
        measured=_measured(results, quantity),
    )


def _curve(
    name: str, law: Law, quantity: Quantity, grid: FloatArray, flops_range: tuple[float, float]
) -> OptimumCurve:
    symbol = EXPONENTS.get(quantity)
    slope, interval = (None, None) if symbol is None else slope_over(law, quantity, flops_range)
    return OptimumCurve(
        method=name,
        slope=slope,
        slope_interval=interval,
        unverified=symbol in law.unproved_constants,
        doubted=name != ANSWER and law.doubted,
        flops=grid,
        estimate=getattr(law.optimum(grid), quantity),
        band=law.band(quantity, grid),
        flops_max=flops_range[1],
    )


def slope_over(
    law: Law, quantity: Quantity, flops_range: tuple[float, float]
) -> tuple[float | None, Interval | None]:
    """Return the slope of ln `quantity` in ln C between two budgets, with its interval.

    It is that of the line drawn in total N and D, also for a law in another counting. None for one budget.
    """
    low, high = flops_range
    if not low < high:
        return None, None
    ends, span = np.array([low, high]), math.log(high / low)
    estimate = np.log(getattr(law.optimum(ends), quantity))
    slope = float(estimate[1] - estimate[0]) / span
    if not law.n_draws or isinstance(law, AnswerLaw):  # its draws vary in level only within the data
        return slope, None
    drawn = np.log(getattr(law.optimum_draws(ends), quantity))
    bottom, top = percentiles((drawn[:, 1] - drawn[:, 0]) / span, law.confidence)
    return slope, (float(bottom), float(top))


def _marks(fit: Fit, quantity: Quantity) -> OptimumMarks | None:
    law = fit.methods.get("isoflop")
    if not isinstance(law, IsoflopLaw):
        return None
    usable = [budget for budget in law.budgets if budget.status == "ok"]
    if quantity == "tokens_per_param_opt":
        pairs = [(budget.n_tokens_opt, budget.n_params_opt) for budget in usable]
        estimates = [d / n for d, n in pairs if d is not None and n is not None]
    else:
        estimates = [getattr(budget, quantity) for budget in usable]
    intervals = [
        budget.ci.get(quantity, (value, value)) for budget, value in zip(usable, estimates, strict=True)
    ]
    return OptimumMarks(
        flops=np.array([budget.flops for budget in usable]),
        estimate=np.array(estimates, dtype=np.float64),
        low=np.array([low for low, _ in intervals]),
        high=np.array([high for _, high in intervals]),
    )


def _measured(results: SweepResults, quantity: Quantity) -> FloatArray:
    """Return C and the measured value of each finished validation that has one, (m, 2)."""
    values = {"loss_opt": "loss", "n_params_opt": "n_params_opt"}
    name = values.get(quantity)
    rows = [] if name is None else [(v.registration.flops, getattr(v, name)) for v in results.validations]
    return np.array([row for row in rows if row[1] is not None], dtype=np.float64).reshape(-1, 2)
