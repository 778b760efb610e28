"""Backtest: errors of every method's predictions at the held-out largest budgets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from sweep.report.figures.results import SweepResults
from sweep.report.figures.style import GREY, flops_ticks, method_color, new_figure, style

FloatArray = npt.NDArray[np.float64]

SHIFT = 0.04  # between methods along C, so that their marks do not cover each other


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BacktestMarks:
    """One method's signed relative errors at the held-out budgets."""

    method: str
    flops: FloatArray  # (n,)
    loss_error: FloatArray  # (n,) of the optimal loss
    n_params_error: FloatArray  # (n,) of N_opt; nan if the budget's own minimum is not usable
    largest_fitted_flops: float


def backtest_marks(results: SweepResults) -> tuple[BacktestMarks, ...]:
    """Return each method's errors at the held-out budgets; empty without a backtest."""
    backtest = results.fit.backtest
    return tuple(
        BacktestMarks(
            method=name,
            flops=np.array([budget["flops"] for budget in entry["budgets"]]),
            loss_error=np.array([budget["loss_opt_error"] for budget in entry["budgets"]]),
            n_params_error=np.array(
                [budget.get("n_params_opt_error", math.nan) for budget in entry["budgets"]]
            ),
            largest_fitted_flops=backtest["largest_fitted_flops"],
        )
        for name, entry in backtest.get("methods", {}).items()
        if entry.get("budgets")
    )


def backtest_figure(methods: Sequence[BacktestMarks]) -> Figure:
    """Draw the errors of the optimal loss and of N_opt at the held-out budgets."""
    with style():
        figure, panels = new_figure(width=8.2, height=3.8, n_panels=2)
        for number, marks in enumerate(methods):
            shift = 1.0 + SHIFT * (number - 0.5 * (len(methods) - 1))
            color = method_color(marks.method, number)
            for axes, errors in zip(panels, (marks.loss_error, marks.n_params_error), strict=True):
                _draw_errors(marks, errors, axes, color, shift)
        flops = np.concatenate([marks.flops for marks in methods])
        for axes, title in zip(panels, ("optimal loss", "optimal $N$"), strict=True):
            _finish(axes, flops, f"Backtest: {title}")
        panels[0].set_ylabel("relative error of the prediction")
        panels[1].legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
        if not any(np.isfinite(marks.n_params_error).any() for marks in methods):
            panels[1].set_yticks([])
            panels[1].text(
                0.5, 0.55, "no held-out budget has a minimum", ha="center", transform=panels[1].transAxes
            )
        return figure


def _draw_errors(marks: BacktestMarks, errors: FloatArray, axes: Axes, color: Any, shift: float) -> None:
    known = np.isfinite(errors)
    axes.plot(marks.flops[known] * shift, errors[known], "o", color=color, ms=5, mew=0, label=marks.method)


def _finish(axes: Axes, flops: FloatArray, title: str) -> None:
    axes.axhline(0.0, color=GREY, lw=0.8)
    axes.set_xlim(flops.min() / 1.5, flops.max() * 1.5)
    axes.set_xscale("log")
    flops_ticks(axes.xaxis, flops.tolist())
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("held-out budget (FLOPs)")
    axes.set_title(title, loc="left")
