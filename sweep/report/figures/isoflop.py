"""Figure of IsoFLOP curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sweep.report.figures.style import (
    DARK,
    DASHED,
    GREY,
    budget_colors,
    budget_legend,
    count_ticks,
    new_figure,
    style,
)
from sweep.report.series.isoflop import IsoflopCurve


def isoflop_figure(curves: Sequence[IsoflopCurve]) -> Figure:
    """Draw loss against N at each budget with its parabola."""
    with style():
        figure, (axes,) = new_figure(width=6.6, height=4.2)
        colors = budget_colors([curve.flops_budget for curve in curves])
        for curve in curves:
            _draw_curve(curve, axes, colors[curve.flops_budget])
        _draw_path(curves, axes)
        axes.set_xscale("log")
        axes.set_xlabel("parameters  $N$")
        axes.set_ylabel("held-out loss (nats per token)")
        axes.set_title("Loss against model size at equal compute", loc="left")
        count_ticks(axes.xaxis)
        budget_legend(figure, axes, colors, _legend_keys(curves))
        return figure


def _draw_path(curves: Sequence[IsoflopCurve], axes: Axes) -> None:
    """Connect the minima."""
    known = [(c.n_params_opt, c.loss_opt) for c in curves]
    minima = [(n, loss) for n, loss in known if n is not None and loss is not None]
    axes.plot([n for n, _ in minima], [loss for _, loss in minima], color=DARK, lw=0.9, ls=":", zorder=2)


def _draw_curve(curve: IsoflopCurve, axes: Axes, color: Any) -> None:
    line = "-" if curve.status == "ok" else DASHED
    axes.plot(curve.n_params, curve.loss, "o", color=color, ms=4.5, mew=0, zorder=3)
    axes.plot(curve.parabola_n_params, curve.parabola_loss, color=color, ls=line, lw=1.4)
    axes.plot(curve.excluded_n_params, curve.excluded_loss, "x", color=color, ms=6, mew=1.4, zorder=3)
    if curve.n_params_opt is not None and curve.loss_opt is not None:
        if curve.n_params_interval is not None:
            ends = curve.n_params_interval
            axes.plot(ends, [curve.loss_opt] * 2, "|-", color=DARK, lw=1.1, ms=7, mew=1.1, zorder=4)
        axes.plot(
            [curve.n_params_opt], [curve.loss_opt], "D", mfc="white", mec=DARK, ms=4.5, mew=1.1, zorder=5
        )


def _legend_keys(curves: Sequence[IsoflopCurve]) -> list[Line2D]:
    keys = [Line2D([], [], color=GREY, marker="o", ls="", ms=4.5, label="run")]
    if any(curve.n_params_opt is not None for curve in curves):
        keys.append(
            Line2D([], [], color=DARK, marker="D", mfc="white", lw=1.1, ms=5.5, label="minimum with interval")
        )
    if any(curve.status in ("edge", "not_convex", "unequal") for curve in curves):
        keys.append(Line2D([], [], color=GREY, ls=DASHED, lw=1.4, label="no usable minimum"))
    if any(len(curve.excluded_loss) for curve in curves):
        keys.append(Line2D([], [], color=GREY, marker="x", ls="", ms=6, mew=1.4, label="excluded run"))
    return keys
