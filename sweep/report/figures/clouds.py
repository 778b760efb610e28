"""Figure of bootstrap draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweep.report.figures.style import count_ticks, method_color, new_figure, side_legend, style
from sweep.report.series.clouds import Cloud

FloatArray = npt.NDArray[np.float64]

CENTRAL = 0.975  # quantile of a cloud, and 1 - CENTRAL
WIDER = 0.5  # of the distance between these quantiles, shown on either side
MARGIN = 0.05  # of the axis, at both ends


def cloud_figure(methods: Sequence[Cloud]) -> Figure:
    """Draw the bootstrap draws of every method in the plane of a and D/N."""
    with style():
        figure, (axes,) = new_figure(width=6.2, height=4.2)
        for number, cloud in enumerate(methods):
            _draw_cloud(cloud, axes, method_color(cloud.method, number))
        axes.set_yscale("log")
        axes.set_xlabel("exponent  $a$  of  $N_{opt} \\propto C^a$")
        axes.set_ylabel("$D/N$ at the largest budget")
        x, y = (_limits(values) for values in zip(*map(_coordinates, methods), strict=True))
        axes.set_xlim(*x)
        axes.set_ylim(*np.exp(y))
        outside = sum(_n_outside(cloud, x, y) for cloud in methods)
        axes.set_title(f"Bootstrap draws{f' ({outside} outside)' if outside else ''}", loc="left")
        count_ticks(axes.yaxis)
        side_legend(axes)
        return figure


def _coordinates(cloud: Cloud) -> tuple[FloatArray, FloatArray]:
    """Return the draws of a and of ln D/N."""
    return np.asarray(cloud.exponent), np.log(cloud.tokens_per_param)


def _limits(clouds: Sequence[FloatArray]) -> tuple[float, float]:
    """Return limits around the central draws of every cloud: single draws may lie decades away."""
    quantiles = np.array([np.quantile(values, [1 - CENTRAL, CENTRAL]) for values in clouds])
    reach = WIDER * (quantiles[:, 1] - quantiles[:, 0])
    low = max(float((quantiles[:, 0] - reach).min()), min(float(values.min()) for values in clouds))
    high = min(float((quantiles[:, 1] + reach).max()), max(float(values.max()) for values in clouds))
    margin = MARGIN * (high - low)
    return low - margin, high + margin


def _n_outside(cloud: Cloud, x: tuple[float, float], y: tuple[float, float]) -> int:
    exponent, log_ratio = _coordinates(cloud)
    inside = (x[0] <= exponent) & (exponent <= x[1]) & (y[0] <= log_ratio) & (log_ratio <= y[1])
    return int((~inside).sum())


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
