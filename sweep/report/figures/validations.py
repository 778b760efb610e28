"""Validations: registered predictions of the loss and of N_opt, with what was measured at their budgets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweep.report.figures.results import SweepResults
from sweep.report.figures.style import (
    DARK,
    GREY,
    count_ticks,
    flops_ticks,
    loss_ticks,
    new_figure,
    side_legend,
    style,
)

FloatArray = npt.NDArray[np.float64]
BLUE = "#0072B2"  # Okabe & Ito 2008


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Comparison:
    """One quantity at every validated budget, ascending."""

    title: str
    confidence: float  # of the intervals
    flops: FloatArray  # (n,)
    predicted: FloatArray  # (n,)
    predicted_interval: FloatArray  # (n, 2)
    measured: FloatArray  # (n,) nan where it was not bracketed
    measured_interval: FloatArray  # (n, 2) nan where unknown


def comparisons(results: SweepResults) -> tuple[Comparison, ...]:
    """Return predicted and measured loss and N_opt; empty without a finished validation."""
    validations = sorted(results.validations, key=lambda one: one.registration.flops)
    if not validations:
        return ()
    predictions = [one.registration for one in validations]
    flops = np.array([one.flops for one in predictions])
    unknown = (math.nan, math.nan)
    level = predictions[-1].confidence
    return (
        Comparison(
            title="loss of the best size",
            confidence=level,
            flops=flops,
            predicted=np.array([one.loss_opt for one in predictions]),
            predicted_interval=np.array([one.loss_interval for one in predictions]),
            measured=np.array([one.loss for one in validations]),
            measured_interval=np.array([unknown for _ in validations]),
        ),
        Comparison(
            title="optimal $N$",
            confidence=level,
            flops=flops,
            predicted=np.array([one.n_params_opt for one in predictions]),
            predicted_interval=np.array([one.n_params_opt_interval for one in predictions]),
            measured=np.array(
                [math.nan if one.n_params_opt is None else one.n_params_opt for one in validations]
            ),
            measured_interval=np.array([one.n_params_opt_interval or unknown for one in validations]),
        ),
    )


def validation_figure(panels: Sequence[Comparison]) -> Figure:
    """Draw prediction with interval and measurement at every validated budget, a panel a quantity."""
    with style():
        figure, every_axes = new_figure(width=8.2, height=3.6, n_panels=len(panels))
        for axes, panel in zip(every_axes, panels, strict=True):
            _draw(axes, panel)
        loss_ticks(every_axes[0].yaxis)
        count_ticks(every_axes[1].yaxis)
        side_legend(every_axes[-1])
        return figure


def _draw(axes: Axes, panel: Comparison) -> None:
    ends = np.abs(panel.predicted_interval.T - panel.predicted)
    measured_ends = np.abs(panel.measured_interval.T - panel.measured)
    axes.errorbar(
        panel.flops,
        panel.predicted,
        yerr=ends,
        fmt="o",
        mfc="white",
        color=BLUE,
        capsize=4,
        label=f"registered prediction, {panel.confidence:.0%}",
    )
    shifted = panel.flops * 1.04  # next to the prediction
    known = np.isfinite(panel.measured_interval).all(axis=1)
    axes.plot(shifted, panel.measured, "D", color=DARK, ms=5, mew=0, label="measured")
    axes.errorbar(
        shifted[known], panel.measured[known], yerr=measured_ends[:, known], fmt="none", ecolor=GREY
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(panel.flops.min() / 1.6, panel.flops.max() * 1.6)
    flops_ticks(axes.xaxis, panel.flops.tolist())
    axes.set_xlabel("budget (FLOPs)")
    axes.set_title(f"Validation: {panel.title}", loc="left")
