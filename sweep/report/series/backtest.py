"""Rolling backtest: errors of every method's predictions against their reach beyond the fitted budgets."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweep.fit.checks.backtest_errors import Backtest, BudgetError, Cut, MethodBacktest
from sweep.report.results import SweepResults

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BacktestMarks:
    """One method's signed relative errors at every level held out at every cut; arrays of shape (n,)."""

    method: str
    factor: FloatArray  # held-out budget over the largest fitted one
    loss_error: FloatArray  # of the optimal loss
    n_params_error: FloatArray  # of N_opt; nan if the budget's own minimum is not usable


def backtest_marks(results: SweepResults) -> tuple[BacktestMarks, ...]:
    """Return each method's errors over all cuts; empty without a backtest."""
    backtest = results.fit.backtest
    if not isinstance(backtest, Backtest):
        return ()
    names = dict.fromkeys(name for cut in backtest.cuts for name in cut.methods)
    found = ((name, [pair for cut in backtest.cuts for pair in _pairs(cut, name)]) for name in names)
    return tuple(
        BacktestMarks(
            method=name,
            factor=np.array([factor for factor, _ in pairs]),
            loss_error=np.array([entry.loss_opt_error for _, entry in pairs]),
            n_params_error=np.array(
                [
                    math.nan if entry.n_params_opt_error is None else entry.n_params_opt_error
                    for _, entry in pairs
                ]
            ),
        )
        for name, pairs in found
        if pairs
    )


def _pairs(cut: Cut, name: str) -> list[tuple[float, BudgetError]]:
    """Return the errors of one method at one cut, with each level's C over the largest fitted one."""
    tested = cut.methods.get(name)
    if not isinstance(tested, MethodBacktest):
        return []
    return [(entry.flops / cut.largest_fitted_flops, entry) for entry in tested.budgets]
