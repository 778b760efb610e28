"""Compute-optimal parameters and tokens over compute, by every method.

Legend: N parameters, D tokens, C training FLOPs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweep.fit.fit import Fit
from sweep.fit.laws.base import Interval, Law
from sweep.fit.methods.isoflop import IsoflopLaw
from sweep.report.figures.results import SweepResults
from sweep.report.figures.style import DARK, DASHED, GREY, count_ticks, method_color, new_figure, style

FloatArray = npt.NDArray[np.float64]
Panel = Literal["n_params_opt", "n_tokens_opt"]
PANELS: tuple[Panel, ...] = ("n_params_opt", "n_tokens_opt")
EXPONENTS: dict[Panel, str] = {"n_params_opt": "a", "n_tokens_opt": "b"}
AXIS_LABELS: dict[Panel, str] = {
    "n_params_opt": "compute-optimal parameters  $N_{opt}$",
    "n_tokens_opt": "compute-optimal tokens  $D_{opt}$",
}

N_GRID = 81
BEYOND = 10.0  # laws are drawn up to this multiple of the largest budget
BEFORE = 1.5  # and down to the smallest budget divided by this


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OptimumCurve:
    """One method's law for N_opt or D_opt over C, with its confidence band if it has bootstrap draws."""

    method: str
    exponent: float
    exponent_interval: Interval | None
    unverified: bool  # no simulation has verified the coverage of the interval
    without_embeddings: bool  # the exponent is that of non-embedding N; the line is always of total N
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
    """N_opt(C) or D_opt(C): a curve for each law and the minima of the IsoFLOP curves."""

    quantity: Panel
    curves: tuple[OptimumCurve, ...]
    marks: OptimumMarks | None  # None if method isoflop refused


def optimum_panels(results: SweepResults) -> tuple[OptimumPanel, ...]:
    """Return the panels of N_opt and D_opt; empty if every method refused."""
    fit = results.fit
    if fit.flops_range is None or not fit.laws:
        return ()
    low, high = fit.flops_range
    grid = np.geomspace(low / BEFORE, high * BEYOND, N_GRID)
    return tuple(
        OptimumPanel(
            quantity=quantity,
            curves=tuple(_curve(name, law, quantity, grid, high) for name, law in fit.laws.items()),
            marks=_marks(fit, quantity),
        )
        for quantity in PANELS
    )


def _curve(name: str, law: Law, quantity: Panel, grid: FloatArray, flops_max: float) -> OptimumCurve:
    entry, symbol = law.to_json(), EXPONENTS[quantity]
    interval = entry["ci"].get(symbol)
    return OptimumCurve(
        method=name,
        exponent=entry[symbol],
        exponent_interval=None if interval is None else (interval[0], interval[1]),
        unverified=symbol in entry.get("unproved", ()),
        without_embeddings=entry.get("counting") == "non_embedding",
        flops=grid,
        estimate=getattr(law.optimum(grid), quantity),
        band=law.band(quantity, grid),
        flops_max=flops_max,
    )


def _marks(fit: Fit, quantity: Panel) -> OptimumMarks | None:
    law = fit.methods.get("isoflop")
    if not isinstance(law, IsoflopLaw):
        return None
    usable = [budget for budget in law.budgets if budget.status == "ok"]
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


def optimum_figure(panels: Sequence[OptimumPanel]) -> Figure:
    """Draw N_opt(C) and D_opt(C) next to each other with confidence bands."""
    with style():
        figure, all_axes = new_figure(width=8.2, height=4.0, n_panels=len(panels))
        for axes, panel in zip(all_axes, panels, strict=True):
            for number, curve in enumerate(panel.curves):
                _draw_curve(curve, EXPONENTS[panel.quantity], axes, method_color(curve.method, number))
            if panel.marks is not None:
                _draw_marks(panel.marks, axes)
            if any(curve.unverified for curve in panel.curves):
                axes.plot([], [], ls="", label="* coverage of the interval not verified")
            _finish(axes, panel)
        return figure


def _draw_curve(curve: OptimumCurve, symbol: str, axes: Axes, color: Any) -> None:
    """Draw one law with its band, dashed beyond the data."""
    label = f"{curve.method}:  ${symbol}$ = {curve.exponent:.3f}"
    if curve.exponent_interval is not None:
        label += " [{:.3f}, {:.3f}]".format(*curve.exponent_interval) + ("*" if curve.unverified else "")
    if curve.without_embeddings:
        label += " (non-embedding $N$)"
    within = curve.flops <= curve.flops_max
    if curve.band is not None:
        axes.fill_between(curve.flops, *curve.band, color=color, alpha=0.16, lw=0)
    axes.plot(curve.flops, curve.estimate, color=color, lw=1.2, ls=DASHED)
    axes.plot(curve.flops[within], curve.estimate[within], color=color, label=label)


def _draw_marks(marks: OptimumMarks, axes: Axes) -> None:
    axes.errorbar(
        marks.flops,
        marks.estimate,
        yerr=[marks.estimate - marks.low, marks.high - marks.estimate],
        fmt="D",
        color=DARK,
        mfc="white",
        ms=5,
        lw=1.1,
        zorder=5,
        label="minima of the IsoFLOP curves",
    )


def _finish(axes: Axes, panel: OptimumPanel) -> None:
    flops_max = panel.curves[0].flops_max
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xmargin(0)
    axes.axvspan(flops_max, axes.get_xlim()[1], color="0.955", lw=0, zorder=0)
    axes.text(
        flops_max,
        0.02,
        " beyond the data",
        transform=axes.get_xaxis_transform(),
        color=GREY,
        fontsize=8,
        va="bottom",
    )
    count_ticks(axes.yaxis)
    axes.set_xlabel("training compute  $C$  (FLOPs)")
    axes.set_ylabel(AXIS_LABELS[panel.quantity])
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), handlelength=1.8)
