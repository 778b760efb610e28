"""Training curves: loss against compute for every run, with the held-out loss at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sweep.records import CurvePoint, Point
from sweep.report.figures.results import SweepResults
from sweep.report.figures.style import GREY, budget_colors, budget_legend, loss_ticks, new_figure, style

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrainingCurve:
    """One run: training loss against FLOPs so far, and its held-out loss at the end."""

    run_key: str
    flops_budget: float | None
    flops: FloatArray  # (n,) n > 0
    train_loss: FloatArray  # (n,) nats per token
    final_flops: float | None
    final_loss: float | None  # held out; None if the run diverged
    fitted: bool


def training_curves(results: SweepResults) -> tuple[TrainingCurve, ...]:
    """Return a curve for each run that has logged a finite loss, joined with its point if it has one."""
    by_key = {point.run_key: point for point in results.points if point.run_key is not None}
    excluded = set(results.excluded)
    curves = (
        _training_curve(run_key, curve, by_key.get(run_key), excluded)
        for run_key, curve in results.curves.items()
    )
    return tuple(curve for curve in curves if len(curve.flops))


def _training_curve(
    run_key: str, curve: Sequence[CurvePoint], point: Point | None, excluded: set[str]
) -> TrainingCurve:
    names = {run_key} if point is None or point.name is None else {run_key, point.name}
    shown = [record for record in curve if np.isfinite(record.train_loss) and record.flops > 0]
    return TrainingCurve(
        run_key=run_key,
        flops_budget=None if point is None else point.flops_budget,
        flops=np.array([record.flops for record in shown], dtype=np.float64),
        train_loss=np.array([record.train_loss for record in shown], dtype=np.float64),
        final_flops=None if point is None else point.flops,
        final_loss=None if point is None else point.loss,
        fitted=point is not None and point.status == "done" and not names & excluded,
    )


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
