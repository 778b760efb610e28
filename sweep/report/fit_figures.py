"""Draws the figures about a fit's quality: contours of loss, residuals, bootstrap clouds, the backtest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from sweep.report.figures.style import (
    BUDGET_COLORS,
    GREY,
    count_ticks,
    flops_ticks,
    method_color,
    new_figure,
    style,
)
from sweep.report.fit_curves import BacktestMarks, Cloud, IsoLoss, Residuals


def isoloss_figure(contours: IsoLoss | None) -> Figure | None:
    """Lines of equal fitted loss over C and N with the efficient frontier; None without a surface."""
    if contours is None:
        return None
    with style():
        figure, (axes,) = new_figure(width=6.6, height=4.4)
        axes.set_xscale("log")  # before the contours: their labels cut gaps where the axes are then
        axes.set_yscale("log")
        draw_isoloss(contours, axes)
        count_ticks(axes.yaxis)
        axes.set_xlabel("training compute  $C$  (FLOPs)")
        axes.set_ylabel("parameters  $N$")
        axes.set_title("Lines of equal loss and the efficient frontier", loc="left")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), handlelength=1.8)
        return figure


def draw_isoloss(contours: IsoLoss, axes: Axes) -> None:
    """Contours, the frontier (dashed beyond the points), and the points."""
    lines = axes.contour(
        contours.flops,
        contours.n_params,
        contours.loss,
        levels=contours.levels,
        cmap=BUDGET_COLORS,
        linewidths=0.9,
    )
    axes.clabel(lines, fmt="%.3g", fontsize=7)
    within = contours.flops <= contours.flops_max
    axes.plot(contours.flops, contours.frontier_n_params, color="#D55E00", ls=(0, (4, 2)), lw=1.4)
    axes.plot(
        contours.flops[within],
        contours.frontier_n_params[within],
        color="#D55E00",
        lw=2.0,
        label=f"efficient frontier\n({contours.method})",
    )
    axes.plot(contours.point_flops, contours.point_n_params, "o", color=GREY, ms=3.2, mew=0, label="run")


def residual_figure(found: Sequence[Residuals]) -> Figure | None:
    """Residuals of ln L against C, a panel a method; None without a surface."""
    if not found:
        return None
    with style():
        figure, panels = new_figure(width=4.2 * len(found), height=3.4, n_panels=len(found))
        for number, (residuals, axes) in enumerate(zip(found, panels, strict=True)):
            draw_residuals(residuals, axes, method_color(residuals.method, number))
            axes.set_xscale("log")
            flops_ticks(axes.xaxis, residuals.flops.tolist())
            axes.set_xlabel("training compute  $C$  (FLOPs)")
        panels[0].set_ylabel("$\\ln L$ less its prediction")
        return figure


def draw_residuals(residuals: Residuals, axes: Axes, color: Any) -> None:
    """Points about zero, with the bend of Huber's loss and one standard deviation."""
    axes.axhline(0.0, color=GREY, lw=0.8)
    axes.axhspan(-residuals.huber_delta, residuals.huber_delta, color="0.85", lw=0, zorder=0)
    for side in (-residuals.sd, residuals.sd):
        axes.axhline(side, color=GREY, lw=0.8, ls=":")
    axes.plot(residuals.flops, residuals.residual, "o", color=color, ms=3.6, mew=0)
    axes.set_title(f"{residuals.method}:  sd = {residuals.sd:.2g}", loc="left")


def cloud_figure(found: Sequence[Cloud]) -> Figure | None:
    """Bootstrap draws of the exponent and of D/N; None without draws."""
    if not found:
        return None
    with style():
        figure, (axes,) = new_figure(width=6.2, height=4.2)
        for number, cloud in enumerate(found):
            draw_cloud(cloud, axes, method_color(cloud.method, number))
        axes.set_yscale("log")
        axes.set_xlabel("exponent  $a$  of  $N_{opt} \\propto C^a$")
        axes.set_ylabel("tokens per parameter at the largest budget")
        axes.set_title("Bootstrap draws", loc="left")
        count_ticks(axes.yaxis)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
        return figure


def draw_cloud(cloud: Cloud, axes: Axes, color: Any) -> None:
    """One method's draws, and its estimate on top."""
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


def backtest_figure(found: Sequence[BacktestMarks]) -> Figure | None:
    """Errors of loss and N on the budgets left out; None without a backtest."""
    if not found:
        return None
    with style():
        figure, panels = new_figure(width=8.2, height=3.8, n_panels=2)
        for number, marks in enumerate(found):
            shift = 1.0 + 0.04 * (number - 0.5 * (len(found) - 1))
            color = method_color(marks.method, number)
            for axes, errors in zip(panels, (marks.loss_error, marks.n_params_error), strict=True):
                draw_backtest(marks, errors, axes, color, shift)
        for axes, title in zip(panels, ("optimal loss", "optimal $N$"), strict=True):
            axes.axhline(0.0, color=GREY, lw=0.8)
            flops = np.concatenate([marks.flops for marks in found])
            axes.set_xlim(flops.min() / 1.5, flops.max() * 1.5)
            axes.set_xscale("log")
            flops_ticks(axes.xaxis, flops.tolist())
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
            axes.set_xlabel("budget left out (FLOPs)")
            axes.set_title(f"Backtest: {title}", loc="left")
        panels[1].legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
        if not any(np.isfinite(marks.n_params_error).any() for marks in found):
            panels[1].set_yticks([])
            panels[1].text(
                0.5, 0.55, "no optimum left out to compare", ha="center", transform=panels[1].transAxes
            )
        return figure


def draw_backtest(marks: BacktestMarks, errors: Any, axes: Axes, color: Any, shift: float) -> None:
    """One method's errors, moved sideways a little so that marks do not cover each other."""
    known = np.isfinite(errors)
    axes.plot(marks.flops[known] * shift, errors[known], "o", color=color, ms=5, mew=0, label=marks.method)
