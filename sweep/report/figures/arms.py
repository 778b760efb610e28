"""The arms of a sweep over compute, overlaid: optimal size and loss of each arm's answer.

Legend: N parameters, C training FLOPs, L loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweep.fit.laws.base import Quantity
from sweep.report.figures.optima import (
    AXIS_LABELS,
    OptimumCurve,
    OptimumMarks,
    loss_panels,
    optimum_panels,
)
from sweep.report.figures.results import SweepResults
from sweep.report.figures.style import (
    DASHED,
    count_ticks,
    loss_ticks,
    new_figure,
    other_color,
    side_legend,
    style,
)

QUANTITIES: tuple[Quantity, ...] = ("n_params_opt", "loss_opt")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ArmCurve:
    """One arm's law for a quantity: that of its answer, or of its first method."""

    arm: str
    quantity: Quantity
    curve: OptimumCurve
    marks: OptimumMarks | None  # minima of its IsoFLOP curves


def arm_curves(arms: Mapping[str, SweepResults]) -> tuple[ArmCurve, ...]:
    """Return the laws of every arm that has one; empty for fewer than two."""
    found = []
    for arm, results in arms.items():
        for panel in (*optimum_panels(results)[:1], *loss_panels(results)):
            law = panel.curves[0]
            found.append(ArmCurve(arm=arm, quantity=panel.quantity, curve=law, marks=panel.marks))
    return tuple(found) if len({one.arm for one in found}) > 1 else ()


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
