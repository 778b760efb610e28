"""Figure of the hyperparameter check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from sweep.fit.checks.hparam_gap import TOLERANCE
from sweep.plan.hparam_check import AXES, Axis
from sweep.report.figures.style import DASHED, GREY, budget_colors, new_figure, side_legend, style
from sweep.report.series.hparams import HparamCurve

DODGE = 1.02  # factor between corners
LABELS: dict[Axis, str] = {"lr": "learning rate", "batch": "tokens per step"}


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
    axes.set_title(f"Check of the {LABELS[axis]}", loc="left")
