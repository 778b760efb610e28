"""Figures of the compute-optimal parameters, tokens, their ratio and the loss over compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweep.fit.laws.base import Quantity
from sweep.report.figures.style import (
    DARK,
    DASHED,
    GREY,
    ORANGE,
    below_legend,
    count_ticks,
    loss_ticks,
    method_color,
    new_figure,
    side_legend,
    style,
)
from sweep.report.series.optima import ANSWER, EXPONENTS, OptimumCurve, OptimumMarks, OptimumPanel

AXIS_LABELS: dict[Quantity, str] = {
    "n_params_opt": "compute-optimal parameters  $N_{opt}$",
    "n_tokens_opt": "compute-optimal tokens  $D_{opt}$",
    "tokens_per_param_opt": "tokens per parameter  $D/N$",
    "loss_opt": "held-out loss (nats per token)",
}


def optimum_figure(panels: Sequence[OptimumPanel]) -> Figure:
    """Draw every panel next to each other with confidence bands."""
    with style():
        wide = len(panels) > 1
        figure, all_axes = new_figure(
            width=9.6 if wide else 6.6, height=5.2 if wide else 4.0, n_panels=len(panels)
        )
        for axes, panel in zip(all_axes, panels, strict=True):
            _draw_points(axes, panel)
            for number, curve in enumerate(panel.curves):
                _draw_curve(curve, EXPONENTS.get(panel.quantity), axes, number)
            if panel.marks is not None:
                _draw_marks(panel.marks, axes)
            if any(curve.unverified for curve in panel.curves):
                axes.plot([], [], ls="", label="* coverage of the interval not verified")
            _finish(axes, panel)
            if wide:
                below_legend(axes)
            else:
                side_legend(axes)
        return figure


def _draw_points(axes: Axes, panel: OptimumPanel) -> None:
    """Draw the runs, and what validations measured."""
    if len(panel.run_loss):
        axes.plot(panel.run_flops, panel.run_loss, ".", color="0.6", ms=4, mew=0, label="run")
    if len(panel.measured):
        label = "validation, measured"
        axes.plot(*panel.measured.T, "D", color=ORANGE, ms=6, mew=0, zorder=6, label=label)


def _draw_curve(curve: OptimumCurve, symbol: str | None, axes: Axes, number: int) -> None:
    """Draw one law with its band, dashed beyond the data; the answer is drawn on top."""
    is_answer = curve.method == ANSWER
    color: Any = DARK if is_answer else method_color(curve.method, number)
    label = curve.method + (" (lack of fit)" if curve.doubted else "")
    if curve.slope is not None:
        label += f":  ${symbol}$ = {curve.slope:.3f}"
    if curve.slope_interval is not None:
        label += " [{:.3f}, {:.3f}]".format(*curve.slope_interval) + ("*" if curve.unverified else "")
    within, order = curve.flops <= curve.flops_max, 3 if is_answer else 2
    if curve.band is not None and (is_answer or symbol is not None):
        axes.fill_between(curve.flops, *curve.band, color=color, alpha=0.2 if is_answer else 0.09, lw=0)
    width = 2.2 if is_answer else 1.3
    axes.plot(curve.flops, curve.estimate, color=color, lw=0.75 * width, ls=DASHED, zorder=order)
    axes.plot(curve.flops[within], curve.estimate[within], color=color, lw=width, label=label, zorder=order)


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
        fontsize="small",
        va="bottom",
    )
    if panel.quantity == "loss_opt":
        loss_ticks(axes.yaxis)
        axes.set_title("Loss against compute", loc="left")
    else:
        count_ticks(axes.yaxis)
    axes.set_xlabel("training compute  $C$  (FLOPs)")
    axes.set_ylabel(AXIS_LABELS[panel.quantity])
