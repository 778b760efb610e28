"""Figure of bootstrap draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweep.report.figures.style import count_ticks, method_color, new_figure, side_legend, style
from sweep.report.series.clouds import Cloud


def cloud_figure(methods: Sequence[Cloud]) -> Figure:
    """Draw the bootstrap draws of every method in the plane of a and D/N."""
    with style():
        figure, (axes,) = new_figure(width=6.2, height=4.2)
        for number, cloud in enumerate(methods):
            _draw_cloud(cloud, axes, method_color(cloud.method, number))
        axes.set_yscale("log")
        axes.set_xlabel("exponent  $a$  of  $N_{opt} \\propto C^a$")
        axes.set_ylabel("$D/N$ at the largest budget")
        axes.set_title("Bootstrap draws", loc="left")
        count_ticks(axes.yaxis)
        side_legend(axes)
        return figure


def _draw_cloud(cloud: Cloud, axes: Axes, color: Any) -> None:
    """Draw one method's draws, and its estimate on top."""
    axes.plot(cloud.exponent, cloud.tokens_per_param, ".", color=color, ms=3, alpha=0.25, mew=0, zorder=2)
    axes.plot(
        [cloud.exponent_estimate],
        [cloud.tokens_per_param_estimate],
        "D",
        color=color,
        mec="white",
        ms=7,
        zorder=4,
        label=cloud.method,
    )
