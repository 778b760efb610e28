"""Hyperparameter check: loss at half and twice the settings of the rules, at each corner of the grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from sweep.fit.checks.hparam_gap import TOLERANCE
from sweep.plan.hparam_check import AXES, Axis
from sweep.report.figures.results import SweepResults
from sweep.report.figures.style import DASHED, GREY, budget_colors, new_figure, side_legend, style
from sweep.report.hparams import AxisCheck, CornerCheck, HparamReport

FloatArray = npt.NDArray[np.float64]

N_PARABOLA = 61
DODGE = 1.02  # factor between corners
LABELS: dict[Axis, str] = {"lr": "learning rate", "batch": "tokens per step"}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class HparamCurve:
    """One corner along one axis; all losses are relative to the loss at the rule's value, nats per token."""

    corner: str
    flops_budget: float
    is_small: bool  # the smaller size at its budget
    axis: Axis
    factor: FloatArray  # (3,) values over the rule's value
    difference: FloatArray  # (3,) means over seeds
    stderr: FloatArray  # (3,) of the differences; 0 at the rule's value and with one seed
    parabola_factor: FloatArray  # (N_PARABOLA,)
    parabola: FloatArray  # (N_PARABOLA,)
    best: tuple[float, float] | None  # factor and difference at the minimum, if it is usable


def hparam_curves(results: SweepResults) -> tuple[HparamCurve, ...]:
    """Return the curves of the sweep's hyperparameter check; empty without one."""
    return () if results.hparams is None else check_curves(results.hparams)


def check_curves(report: HparamReport) -> tuple[HparamCurve, ...]:
    """Return a curve for every corner and axis with a result for each of its settings."""
    smallest: dict[float, int] = {}
    for corner in report.corners:
        budget = corner.flops_budget
        smallest[budget] = min(corner.n_params, smallest.get(budget, corner.n_params))
    curves = (
        _curve(corner, check, corner.n_params == smallest[corner.flops_budget])
        for corner in report.corners
        for check in corner.axes
    )
    return tuple(curve for curve in curves if curve is not None)


def _curve(corner: CornerCheck, check: AxisCheck, is_small: bool) -> HparamCurve | None:
    found = check.found
    if found.slope is None or found.curvature is None:
        return None
    losses = np.array([row for row in check.losses if None not in row], dtype=np.float64)
    differences = losses - losses[:, [check.values.index(check.rule)]]
    factor = np.array(check.values) / check.rule
    x = np.linspace(math.log(factor[0]), math.log(factor[-1]), N_PARABOLA)
    spread = differences.std(axis=0, ddof=1) if len(losses) > 1 else np.zeros(len(factor))
    best = None
    if found.factor_opt is not None and found.loss_left is not None:
        best = (found.factor_opt, -found.loss_left)
    return HparamCurve(
        corner=corner.name,
        flops_budget=corner.flops_budget,
        is_small=is_small,
        axis=check.axis,
        factor=factor,
        difference=differences.mean(axis=0),
        stderr=spread / math.sqrt(len(losses)),
        parabola_factor=np.exp(x),
        parabola=found.slope * x + 0.5 * found.curvature * x**2,
        best=best,
    )


def hparam_figure(curves: Sequence[HparamCurve]) -> Figure:
    """Draw a panel for each hyperparameter with a parabola for each corner."""
    with style():
        figure, panels = new_figure(width=9.0, height=3.8, n_panels=len(AXES))
        colors = budget_colors([curve.flops_budget for curve in curves])
        for axes, axis in zip(panels, AXES, strict=True):
            own = [curve for curve in curves if curve.axis == axis]
            for number, curve in enumerate(own):
                shift = DODGE ** (number - 0.5 * (len(own) - 1))
                _draw_curve(curve, axes, colors[curve.flops_budget], shift)
            _finish(axes, axis)
        panels[0].set_ylabel("loss minus the rule's loss (nats per token)")
        corners = {line.get_label(): line for axes in panels for line in axes.get_legend_handles_labels()[0]}
        band = Patch(color="0.9", label=f"within {TOLERANCE:g} of the rule")
        side_legend(panels[-1], handles=[*corners.values(), band], handlelength=2.4)
        return figure


def _draw_curve(curve: HparamCurve, axes: Axes, color: Any, shift: float) -> None:
    """Draw one corner: means with standard errors, the parabola, and its minimum if usable.

    Means are shifted by a factor, so that the errors of the corners stand next to each other.
    """
    line = "-" if curve.is_small else DASHED
    marker = "o" if curve.is_small else "s"
    axes.plot(curve.parabola_factor, curve.parabola, color=color, ls=line, lw=1.3)
    axes.errorbar(
        curve.factor * shift,
        curve.difference,
        yerr=curve.stderr,
        fmt=marker,
        color=color,
        ms=4.5,
        lw=1.1,
        capsize=2.5,
        zorder=3,
    )
    axes.plot([], [], color=color, ls=line, marker=marker, ms=4.5, label=curve.corner)
    if curve.best is not None:
        axes.plot(*([value] for value in curve.best), "D", mfc="white", mec=color, ms=5, mew=1.1, zorder=4)


def _finish(axes: Axes, axis: Axis) -> None:
    axes.axhspan(-TOLERANCE, 0.0, color="0.9", lw=0, zorder=0)
    axes.axhline(0.0, color=GREY, lw=0.8)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator([0.5, 1.0, 2.0]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"×{value:g}"))
    axes.set_xlabel(f"{LABELS[axis]}, relative to the rule's value")
    axes.set_title(f"Hyperparameter check: {LABELS[axis]}", loc="left")
