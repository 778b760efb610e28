"""Draws the figures of a sweep with matplotlib: PNG for screens, SVG for papers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sweep.fit.fit import Fit
from sweep.records import CurvePoint, Point
from sweep.report.curves import (
    PANELS,
    IsoflopCurve,
    OptimumCurve,
    OptimumMarks,
    TrainingCurve,
    isoflop_curves,
    optimum_curves,
    optimum_marks,
    training_curves,
)
from sweep.report.figures.style import (
    GREY,
    budget_colors,
    budget_legend,
    count_ticks,
    loss_ticks,
    method_color,
    new_figure,
    save_figure,
    style,
)
from sweep.report.figures.utilisation import device_rates, utilisation_figure
from sweep.report.fit_curves import backtest_marks, clouds, isoloss, residuals
from sweep.report.fit_figures import backtest_figure, cloud_figure, isoloss_figure, residual_figure

AXIS_LABELS = {
    "n_params_opt": "compute-optimal parameters  $N_{opt}$",
    "n_tokens_opt": "compute-optimal tokens  $D_{opt}$",
}
EXPONENTS = {"n_params_opt": "a", "n_tokens_opt": "b"}


def draw_all(
    fit: Fit, points: Sequence[Point], curves: Mapping[str, Sequence[CurvePoint]], directory: Path
) -> list[Path]:
    """Write every figure there are numbers for into `directory`, each as PNG and SVG; returns the paths.

    `curves` maps run keys to training curves. Files appear by rename; the same numbers give the same bytes.
    """
    return [path for job in drawing_jobs(fit, points, curves, directory) for path in job()]


def drawing_jobs(
    fit: Fit, points: Sequence[Point], curves: Mapping[str, Sequence[CurvePoint]], directory: Path
) -> list[Callable[[], list[Path]]]:
    """What `draw_all` does, a figure a call: drawn if there are numbers, its files returned."""
    figures: dict[str, Callable[[], Figure | None]] = {
        "isoflop_curves": lambda: isoflop_figure(isoflop_curves(fit, points)),
        "optima": lambda: optimum_figure(optimum_curves(fit), optimum_marks(fit)),
        "training": lambda: training_figure(training_curves(fit, points, curves)),
        "isoloss": lambda: isoloss_figure(isoloss(fit, points)),
        "residuals": lambda: residual_figure(residuals(fit, points)),
        "clouds": lambda: cloud_figure(clouds(fit)),
        "backtest": lambda: backtest_figure(backtest_marks(fit)),
        "utilisation": lambda: utilisation_figure(device_rates(points)),
    }
    directory.mkdir(parents=True, exist_ok=True)
    return [partial(_draw, figure, directory / name) for name, figure in figures.items()]


def _draw(make: Callable[[], Figure | None], stem: Path) -> list[Path]:
    figure = make()
    return [] if figure is None else save_figure(figure, stem)


def isoflop_figure(curves: Sequence[IsoflopCurve]) -> Figure | None:
    """Loss against N at each budget with its parabola; None without budgets."""
    if not curves:
        return None
    with style():
        figure, (axes,) = new_figure(width=6.6, height=4.2)
        colors = budget_colors([curve.flops_budget for curve in curves])
        for curve in curves:
            draw_isoflop(curve, axes, colors[curve.flops_budget])
        axes.set_xscale("log")
        axes.set_xlabel("parameters  $N$")
        axes.set_ylabel("held-out loss (nats per token)")
        axes.set_title("Loss against model size at equal compute", loc="left")
        count_ticks(axes.xaxis)
        budget_legend(figure, axes, colors, _isoflop_keys(curves))
        return figure


def draw_isoflop(curve: IsoflopCurve, axes: Axes, color: Any) -> None:
    """One budget: points, parabola (dashed where its minimum does not count), minimum, excluded points."""
    counts = curve.status == "ok"
    axes.plot(curve.n_params, curve.loss, "o", color=color, ms=4.5, mew=0, zorder=3)
    axes.plot(
        curve.parabola_n_params, curve.parabola_loss, color=color, ls="-" if counts else (0, (4, 2)), lw=1.4
    )
    axes.plot(curve.excluded_n_params, curve.excluded_loss, "x", color=color, ms=6, mew=1.4, zorder=3)
    if curve.n_params_opt is not None and curve.loss_opt is not None:
        if curve.n_params_interval is not None:
            ends = curve.n_params_interval
            axes.plot(ends, [curve.loss_opt] * 2, "|-", color="0.15", lw=1.1, ms=7, mew=1.1, zorder=4)
        axes.plot(
            [curve.n_params_opt], [curve.loss_opt], "D", mfc="white", mec="0.15", ms=4.5, mew=1.1, zorder=5
        )


def _isoflop_keys(curves: Sequence[IsoflopCurve]) -> list[Line2D]:
    keys = [Line2D([], [], color=GREY, marker="o", ls="", ms=4.5, label="run")]
    if any(curve.n_params_opt is not None for curve in curves):
        keys.append(
            Line2D([], [], color="0.15", marker="D", mfc="white", lw=1.1, ms=5.5, label="minimum, interval")
        )
    if any(curve.status in ("edge", "not_convex", "unequal") for curve in curves):
        keys.append(Line2D([], [], color=GREY, ls=(0, (4, 2)), lw=1.4, label="no usable minimum"))
    if any(len(curve.excluded_loss) for curve in curves):
        keys.append(Line2D([], [], color=GREY, marker="x", ls="", ms=6, mew=1.4, label="excluded run"))
    return keys


def optimum_figure(curves: Sequence[OptimumCurve], marks: Sequence[OptimumMarks]) -> Figure | None:
    """N_opt(C) and D_opt(C) side by side with confidence bands; None when every method refused."""
    if not curves:
        return None
    with style():
        figure, panels = new_figure(width=8.2, height=4.0, n_panels=len(PANELS))
        for axes, quantity in zip(panels, PANELS, strict=True):
            for number, curve in enumerate(curve for curve in curves if curve.quantity == quantity):
                draw_optimum(curve, axes, method_color(curve.method, number))
            for mark in (mark for mark in marks if mark.quantity == quantity):
                draw_optimum_marks(mark, axes)
            _finish_optimum(axes, quantity, curves[0].flops_max)
        return figure


def draw_optimum(curve: OptimumCurve, axes: Axes, color: Any) -> None:
    """One law, dashed beyond the data, with its band."""
    symbol = EXPONENTS[curve.quantity]
    label = f"{curve.method}:  ${symbol}$ = {curve.exponent:.3f}"
    if curve.exponent_interval is not None:
        label += " [{:.3f}, {:.3f}]".format(*curve.exponent_interval) + (" ?" if curve.doubtful else "")
    if curve.without_embeddings:
        label += " ($N$ non-emb.)"
    within = curve.flops <= curve.flops_max
    if curve.band is not None:
        axes.fill_between(curve.flops, *curve.band, color=color, alpha=0.16, lw=0)
    axes.plot(curve.flops, curve.estimate, color=color, lw=1.2, ls=(0, (4, 2)))
    axes.plot(curve.flops[within], curve.estimate[within], color=color, label=label)


def draw_optimum_marks(marks: OptimumMarks, axes: Axes) -> None:
    """The IsoFLOP minima with their intervals."""
    errors = [marks.estimate - marks.low, marks.high - marks.estimate]
    axes.errorbar(
        marks.flops,
        marks.estimate,
        yerr=errors,
        fmt="D",
        color="0.15",
        mfc="white",
        ms=5,
        lw=1.1,
        zorder=5,
        label="minima of the IsoFLOP curves",
    )


def _finish_optimum(axes: Axes, quantity: str, flops_max: float) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xmargin(0)
    axes.axvspan(flops_max, axes.get_xlim()[1], color="0.955", lw=0, zorder=0)
    axes.text(
        flops_max,
        0.02,
        " beyond the data",
        transform=axes.get_xaxis_transform(),
        color=GREY,
        fontsize=8,
        va="bottom",
    )
    count_ticks(axes.yaxis)
    axes.set_xlabel("training compute  $C$  (FLOPs)")
    axes.set_ylabel(AXIS_LABELS[quantity])
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), handlelength=1.8)


def training_figure(curves: Sequence[TrainingCurve]) -> Figure | None:
    """Training loss of every run against FLOPs, held-out losses at the ends; None without curves."""
    curves = [curve for curve in curves if len(curve.flops)]
    if not curves:
        return None
    with style():
        figure, (axes,) = new_figure(width=6.6, height=4.2)
        colors = budget_colors([curve.flops_budget for curve in curves if curve.flops_budget is not None])
        for curve in curves:
            draw_training(curve, axes, GREY if curve.flops_budget is None else colors[curve.flops_budget])
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("training compute so far (FLOPs)")
        axes.set_ylabel("loss (nats per token)")
        axes.set_title("Loss along training", loc="left")
        loss_ticks(axes.yaxis)
        budget_legend(figure, axes, colors, _training_keys(curves))
        return figure


def draw_training(curve: TrainingCurve, axes: Axes, color: Any) -> None:
    """One run's training curve and its held-out loss; a cross marks a run that is not fitted."""
    axes.plot(curve.flops, curve.train_loss, color=color, lw=0.9, alpha=0.75)
    if curve.fitted and curve.final_flops is not None and curve.final_loss is not None:
        axes.plot(
            [curve.final_flops], [curve.final_loss], "o", color=color, mec="white", mew=0.6, ms=5, zorder=4
        )
    elif not curve.fitted:
        loss = curve.train_loss[-1] if curve.final_loss is None else curve.final_loss
        axes.plot([curve.flops[-1]], [loss], "x", color=color, ms=7, mew=1.8, zorder=5)


def _training_keys(curves: Sequence[TrainingCurve]) -> list[Line2D]:
    keys = [Line2D([], [], color=GREY, lw=0.9, label="training loss")]
    if any(curve.fitted for curve in curves):
        keys.append(Line2D([], [], color=GREY, marker="o", ls="", ms=5, label="held-out loss"))
    if not all(curve.fitted for curve in curves):
        keys.append(Line2D([], [], color=GREY, marker="x", ls="", ms=6, mew=1.4, label="not fitted"))
    return keys
