"""Figure of the rolling backtest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from sweep.report.figures.style import GREY, method_color, new_figure, reach_ticks, side_legend, style
from sweep.report.series.backtest import BacktestMarks, FloatArray

SHIFT = 0.02  # of the axis between methods, so that their marks do not cover each other


def backtest_figure(methods: Sequence[BacktestMarks]) -> Figure:
    """Draw the errors of the optimal loss and of N_opt against the reach, a row of marks per method."""
    with style():
        figure, panels = new_figure(width=8.8, height=4.0, n_panels=2)
        span = math.log(max(float(marks.factor.max()) for marks in methods) * 1.2)
        for number, marks in enumerate(methods):
            shift = math.exp(SHIFT * span * (number - 0.5 * (len(methods) - 1)))
            color = method_color(marks.method, number)
            for axes, errors in zip(panels, (marks.loss_error, marks.n_params_error), strict=True):
                _draw_errors(marks, errors, axes, color, shift)
        for axes, title in zip(panels, ("optimal loss", "optimal $N$"), strict=True):
            _finish(axes, methods, f"Rolling backtest: {title}")
        panels[0].set_ylabel("predicted / true $-$ 1")
        side_legend(panels[-1], title="fitted without the\nlargest budgets")
        if not any(np.isfinite(marks.n_params_error).any() for marks in methods):
            panels[1].set_yticks([])
            panels[1].text(
                0.5, 0.55, "no held-out budget has a minimum", ha="center", transform=panels[1].transAxes
            )
        return figure


def _draw_errors(marks: BacktestMarks, errors: FloatArray, axes: Axes, color: Any, shift: float) -> None:
    """Draw one method's errors as bars from zero; methods stand next to each other at one reach."""
    known = np.isfinite(errors)
    at = marks.factor[known] * shift
    axes.vlines(at, 0.0, errors[known], color=color, lw=1.2, alpha=0.6)
    axes.plot(at, errors[known], "o", color=color, ms=4.5, mew=0, label=marks.method)


def _finish(axes: Axes, methods: Sequence[BacktestMarks], title: str) -> None:
    reaches = sorted({float(f"{factor:.2g}") for marks in methods for factor in marks.factor.tolist()})
    axes.axhline(0.0, color=GREY, lw=0.8)
    axes.set_xscale("log")
    axes.set_xlim(min(1.0 + 0.5 * (reaches[0] - 1.0), 0.8 * reaches[0]), 1.25 * reaches[-1])
    reach_ticks(axes.xaxis, reaches)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("held-out budget / largest fitted budget")
    axes.set_title(title, loc="left")
