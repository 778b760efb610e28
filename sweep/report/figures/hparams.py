"""Draws the figure of a hyperparameter check: what half and twice the rules' settings cost at each corner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from sweep.fit.checks.hparam_gap import TOLERANCE
from sweep.plan.hparam_check import AXES
from sweep.report.figures.style import GREY, budget_colors, new_figure, save_figure, style
from sweep.report.hparam_curves import HparamCurve, hparam_curves
from sweep.report.hparams import HparamReport

LABELS = {"lr": "learning rate", "batch": "tokens per step"}


def draw_hparams(report: HparamReport, directory: Path) -> list[Path]:
    """Write hparams.png and hparams.svg into `directory`; returns the paths, none without a whole corner."""
    figure = hparam_figure(hparam_curves(report))
    if figure is None:
        return []
    directory.mkdir(parents=True, exist_ok=True)
    return save_figure(figure, directory / "hparams")


def hparam_figure(curves: Sequence[HparamCurve]) -> Figure | None:
    """A panel for each hyperparameter, a parabola for each corner; None without curves."""
    if not curves:
        return None
    with style():
        figure, panels = new_figure(width=9.0, height=3.8, n_panels=len(AXES))
        colors = budget_colors([curve.flops_budget for curve in curves])
        for axes, axis in zip(panels, AXES, strict=True):
            for curve in (curve for curve in curves if curve.axis == axis):
                draw_hparam(curve, axes, colors[curve.flops_budget])
            _finish(axes, axis)
        panels[0].set_ylabel("held-out loss less the rule's (nats per token)")
        corners = {line.get_label(): line for axes in panels for line in axes.get_legend_handles_labels()[0]}
        panels[-1].legend(
            handles=list(corners.values()), loc="upper left", bbox_to_anchor=(1.01, 1.0), handlelength=2.4
        )
        return figure


def draw_hparam(curve: HparamCurve, axes: Axes, color: Any) -> None:
    """One corner: means with standard errors, the parabola, and its minimum where that counts."""
    line = "-" if curve.is_small else (0, (4, 2))
    marker = "o" if curve.is_small else "s"
    axes.plot(curve.parabola_factor, curve.parabola, color=color, ls=line, lw=1.3)
    axes.errorbar(
        curve.factor,
        curve.difference,
        yerr=curve.stderr,
        fmt=marker,
        color=color,
        ms=4.5,
        lw=1.1,
        capsize=2.5,
        zorder=3,
    )
    axes.plot([], [], color=color, ls=line, marker=marker, ms=4.5, label=curve.corner)
    if curve.best is not None:
        axes.plot(*([value] for value in curve.best), "D", mfc="white", mec=color, ms=5, mew=1.1, zorder=4)


def _finish(axes: Axes, axis: str) -> None:
    axes.axhspan(-TOLERANCE, 0.0, color="0.9", lw=0, zorder=0)
    axes.axhline(0.0, color=GREY, lw=0.8)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator([0.5, 1.0, 2.0]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"×{value:g}"))
    axes.set_xlabel(f"{LABELS[axis]} over the rule's")
