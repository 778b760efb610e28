"""Figure of predictions and measurements of validations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
from sweep.report.series.validations import Comparison

BLUE = "#0072B2"  # Okabe & Ito 2008
SIDE = 1.6  # factor of C left free at both ends


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
    span = SIDE**2 * panel.flops.max() / panel.flops.min()
    shifted = panel.flops * span**0.03  # next to the prediction
    known = np.isfinite(panel.measured_interval).all(axis=1)
    axes.plot(shifted, panel.measured, "D", color=DARK, ms=5, mew=0, label="measured")
    axes.errorbar(
        shifted[known], panel.measured[known], yerr=measured_ends[:, known], fmt="none", ecolor=GREY
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(panel.flops.min() / SIDE, panel.flops.max() * SIDE)
    flops_ticks(axes.xaxis, panel.flops.tolist())
    axes.set_xlabel("budget (FLOPs)")
    axes.set_title(f"Validation: {panel.title}", loc="left")
