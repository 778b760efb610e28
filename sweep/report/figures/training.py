"""Figure of training curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sweep.report.figures.style import GREY, budget_colors, budget_legend, loss_ticks, new_figure, style
from sweep.report.series.training import TrainingCurve


def training_figure(curves: Sequence[TrainingCurve]) -> Figure:
    """Draw the training loss of every run against FLOPs, with held-out losses at the ends."""
    with style():
        figure, (axes,) = new_figure(width=6.6, height=4.2)
        colors = budget_colors([curve.flops_budget for curve in curves if curve.flops_budget is not None])
        for curve in curves:
            _draw_curve(curve, axes, GREY if curve.flops_budget is None else colors[curve.flops_budget])
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("training compute so far (FLOPs)")
        axes.set_ylabel("loss (nats per token)")
        axes.set_title("Loss during training", loc="left")
        loss_ticks(axes.yaxis)
        budget_legend(figure, axes, colors, _legend_keys(curves))
        return figure


def _draw_curve(curve: TrainingCurve, axes: Axes, color: Any) -> None:
    """Draw one training curve and its held-out loss; a cross marks a run that is not fitted."""
    axes.plot(curve.flops, curve.train_loss, color=color, lw=0.7, alpha=0.6)
    if curve.fitted and curve.final_flops is not None and curve.final_loss is not None:
        axes.plot(
            [curve.final_flops], [curve.final_loss], "o", color=color, mec="white", mew=0.6, ms=5, zorder=4
        )
    elif not curve.fitted:
        loss = curve.train_loss[-1] if curve.final_loss is None else curve.final_loss
        axes.plot([curve.flops[-1]], [loss], "x", color=color, ms=7, mew=1.8, zorder=5)


def _legend_keys(curves: Sequence[TrainingCurve]) -> list[Line2D]:
    keys = [Line2D([], [], color=GREY, lw=0.9, label="training loss")]
    if any(curve.fitted for curve in curves):
        keys.append(Line2D([], [], color=GREY, marker="o", ls="", ms=5, label="held-out loss at the end"))
    if not all(curve.fitted for curve in curves):
        keys.append(Line2D([], [], color=GREY, marker="x", ls="", ms=6, mew=1.4, label="not fitted"))
    return keys
