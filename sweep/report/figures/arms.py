"""Figure of the arms of a sweep, overlaid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweep.fit.laws.base import Quantity
from sweep.report.figures.optima import AXIS_LABELS
from sweep.report.figures.style import (
    DASHED,
    count_ticks,
    loss_ticks,
    new_figure,
    other_color,
    side_legend,
    style,
)
from sweep.report.series.arms import ArmCurve

QUANTITIES: tuple[Quantity, ...] = ("n_params_opt", "loss_opt")


def arm_figure(curves: Sequence[ArmCurve]) -> Figure:
    """Draw N_opt and the loss over C, the arms on top of each other, with bands."""
    with style():
        figure, panels = new_figure(width=9.0, height=4.0, n_panels=len(QUANTITIES))
        names = list(dict.fromkeys(one.arm for one in curves))
        for axes, quantity in zip(panels, QUANTITIES, strict=True):
            for one in (one for one in curves if one.quantity == quantity):
                _draw(one, axes, other_color(names.index(one.arm)))
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xmargin(0)
            loss_ticks(axes.yaxis) if quantity == "loss_opt" else count_ticks(axes.yaxis)
            axes.set_xlabel("training compute  $C$  (FLOPs)")
            axes.set_ylabel(AXIS_LABELS[quantity])
        side_legend(panels[-1], title="arm")
        return figure


def _draw(one: ArmCurve, axes: Axes, color: Any) -> None:
    """Draw one arm's law, dashed beyond the data, with its band and minima."""
    curve = one.curve
    within = curve.flops <= curve.flops_max
    if curve.band is not None:
        axes.fill_between(curve.flops, *curve.band, color=color, alpha=0.14, lw=0)
    axes.plot(curve.flops, curve.estimate, color=color, lw=1.2, ls=DASHED)
    axes.plot(
        curve.flops[within], curve.estimate[within], color=color, lw=1.8, label=one.arm.replace("$", r"\$")
    )
    if one.marks is not None:
        axes.plot(one.marks.flops, one.marks.estimate, "D", color=color, mfc="white", ms=5, mew=1.2)
