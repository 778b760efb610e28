"""Figure of the contours of equal fitted loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweep.report.figures.style import (
    BUDGET_COLORS,
    DASHED,
    GREY,
    count_ticks,
    new_figure,
    side_legend,
    style,
)
from sweep.report.series.isoloss import IsoLoss

FloatArray = npt.NDArray[np.float64]

FRONTIER_COLOR = "#D55E00"
LABELLED = 0.3  # of the range of ln N: a shorter contour has no label


def isoloss_figure(surfaces: Sequence[IsoLoss]) -> Figure:
    """Draw contours of equal fitted loss over C and N with the efficient frontier, a panel per surface."""
    with style():
        figure, panels = new_figure(width=6.6 * len(surfaces), height=4.4, n_panels=len(surfaces))
        for contours, axes in zip(surfaces, panels, strict=True):
            axes.set_xscale("log")  # before the contours: the gaps for their labels depend on the scales
            axes.set_yscale("log")
            _draw_contours(contours, axes)
            count_ticks(axes.yaxis)
            axes.set_xlabel("training compute  $C$  (FLOPs)")
            axes.set_ylabel("parameters  $N$")
            doubt = ": lack of fit" if contours.doubted else ""
            axes.set_title(f"Equal loss by {contours.method}{doubt}", loc="left")
            side_legend(axes)
        return figure


def _has_label(paths: Sequence[FloatArray], contours: IsoLoss) -> bool:
    """Return whether a contour is long enough for its label: a part of the range of N."""
    height = math.log(contours.n_params[-1] / contours.n_params[0])
    return any(len(path) > 1 and np.ptp(np.log(path[:, 1])) > LABELLED * height for path in paths)


def _draw_contours(contours: IsoLoss, axes: Axes) -> None:
    """Draw the contours, the frontier (dashed beyond the points) and the points."""
    lines = axes.contour(
        contours.flops,
        contours.n_params,
        contours.loss,
        levels=contours.levels,
        cmap=BUDGET_COLORS,
        linewidths=0.9,
    )
    segments = zip(contours.levels, lines.allsegs, strict=True)
    long = [level for level, paths in segments if _has_label(paths, contours)]
    axes.clabel(lines, levels=long, fmt="%g", fontsize=7)
    within = contours.flops <= contours.flops_max
    axes.plot(contours.flops, contours.frontier_n_params, color=FRONTIER_COLOR, ls=DASHED, lw=1.4)
    axes.plot(
        contours.flops[within],
        contours.frontier_n_params[within],
        color=FRONTIER_COLOR,
        lw=2.0,
        label="efficient frontier",
    )
    axes.plot(contours.point_flops, contours.point_n_params, "o", color=GREY, ms=3.2, mew=0, label="run")
