"""Figure of the residuals of ln L."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from sweep.report.figures.style import (
    GREY,
    MAX_ACROSS,
    flops_ticks,
    method_color,
    new_figure,
    side_legend,
    style,
)
from sweep.report.series.residuals import Residuals

MAX_LABELS = 2.5  # labels across a panel, beyond the first


def residual_figure(methods: Sequence[Residuals]) -> Figure:
    """Draw residuals of ln L against C, a panel per method, on one scale."""
    with style():
        figure, panels = new_figure(width=3.2 * len(methods), height=3.0, n_panels=len(methods))
        most = 1.1 * max(float(np.nanmax(np.abs(method.residual))) for method in methods)
        for number, (method, axes) in enumerate(zip(methods, panels, strict=True)):
            _draw_residuals(method, axes, method_color(method.method, number))
            axes.set_xscale("log")
            axes.set_ylim(-most, most)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
            shown = method.flops[np.isfinite(method.residual)]
            spread = float(shown.max() / shown.min())
            flops_ticks(axes.xaxis, shown.tolist(), ratio=max(3.0, spread ** (1 / MAX_LABELS)))
            axes.set_xlabel("training compute  $C$  (FLOPs)")
            axes.set_ylabel("$\\ln L - \\ln L_{predicted}$")
        side_legend(panels[min(len(panels), MAX_ACROSS) - 1])
        return figure


def _draw_residuals(method: Residuals, axes: Axes, color: Any) -> None:
    """Draw the points around zero, ± one standard deviation dotted and ± the Huber delta shaded."""
    axes.axhline(0.0, color=GREY, lw=0.8)
    if method.huber_delta is not None:
        label = f"± Huber δ = {method.huber_delta:g}"
        axes.axhspan(-method.huber_delta, method.huber_delta, color="0.85", lw=0, zorder=0, label=label)
    axes.axhline(-method.sd, color=GREY, lw=0.8, ls=":", label="± sd")
    axes.axhline(method.sd, color=GREY, lw=0.8, ls=":")
    axes.plot(method.flops, method.residual, "o", color=color, ms=3.6, mew=0, label="run")
    axes.set_title(f"{method.method}:  sd = {method.sd:.2%}", loc="left")
