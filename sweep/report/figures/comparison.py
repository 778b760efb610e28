"""Two arms compared: their loss at the optimum over compute, and the compute multiplier of B over A."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from sweep.fit.compare.comparison import Comparison
from sweep.report.figures.style import DARK, DASHED, GREY, flops_ticks, new_figure, style

COLOR_A, COLOR_B = "#0072B2", "#D55E00"  # Okabe & Ito 2008
MARGIN = 1.1  # factor of C left free at both ends
MAX_LINEAR = 4.0  # largest over smallest value, up to which ticks have equal steps
END = 16  # characters of a long name shown from its start, and from its end
MAX_FACTOR = 30.0  # largest multiplier shown, and its inverse the smallest


def comparison_figure(found: Comparison) -> Figure:
    """Draw both loss curves with their minima, and the multiplier with the values at the budgets."""
    with style():
        figure, (left, right) = new_figure(width=8.6, height=3.7, n_panels=2)
        _draw_losses(left, found)
        _draw_multiplier(right, found)
        for axes in (left, right):
            axes.set_xscale("log")
            low, high = found.crossing.range
            axes.set_xlim(low / MARGIN, high * MARGIN)
            flops_ticks(axes.xaxis, sorted({low, max(found.b.budgets), high}))
            axes.set_xlabel("FLOPs")
            _shade(axes, found)
        return figure


def _draw_losses(axes: Axes, found: Comparison) -> None:
    curves = found.curves
    sides = (
        (found.a.name, COLOR_A, "o", curves.loss_a, curves.loss_a_band, curves.minima_a),
        (found.b.name, COLOR_B, "D", curves.loss_b, curves.loss_b_band, curves.minima_b),
    )
    for label, (name, color, marker, loss, band, minima) in zip("AB", sides, strict=True):
        axes.fill_between(curves.flops, *band, color=color, alpha=0.18, lw=0)
        axes.plot(curves.flops, loss, color=color, label=f"{label}: {_short(name)}")
        axes.plot(*minima, marker, color=color, ms=5, mew=0)
    axes.set_yscale("log")
    _plain_ticks(axes)
    axes.set_ylabel(f"loss at the optimum ({found.unit})")
    axes.set_title("Loss over compute", loc="left")
    axes.legend(loc="lower left")


def _draw_multiplier(axes: Axes, found: Comparison) -> None:
    curves = found.curves
    band = np.clip(curves.multiplier_band, 1 / MAX_FACTOR, MAX_FACTOR)
    axes.axhline(1.0, color=GREY, lw=0.9, ls=DASHED)
    axes.fill_between(curves.flops, *band, color=COLOR_B, alpha=0.18, lw=0, label=f"{found.confidence:.0%}")
    axes.plot(
        curves.flops, np.clip(curves.multiplier, 1 / MAX_FACTOR, MAX_FACTOR), color=COLOR_B, label="joint fit"
    )
    axes.plot(
        curves.minima_b[0], curves.multiplier_at_minima, "D", color=DARK, ms=5, mew=0, label="at the budgets"
    )
    if found.crossing.flops is not None and found.crossing.interval != (None, None):
        axes.axvline(found.crossing.flops, color=DARK, lw=0.9, ls=":")
    axes.set_yscale("log")
    shown = curves.multiplier_at_minima
    values = np.concatenate([band.ravel(), shown[np.isfinite(shown)], [1.0]])
    axes.set_ylim(float(values.min()) / 1.05, float(values.max()) * 1.05)
    _plain_ticks(axes)
    axes.set_ylabel("FLOPs of A over those of B at equal loss")
    axes.set_title("Compute multiplier of B over A", loc="left")
    axes.legend(loc="best")


def _plain_ticks(axes: Axes) -> None:
    """Label values with plain numbers, at equal steps unless the axis spans more than MAX_LINEAR."""
    low, high = axes.get_ylim()
    if high > MAX_LINEAR * low:
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    else:
        shown = MaxNLocator(nbins=7, steps=[1, 2, 5, 10]).tick_values(low, high)
        axes.yaxis.set_major_locator(FixedLocator([tick for tick in shown if low <= tick <= high]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def _shade(axes: Axes, found: Comparison) -> None:
    """Shade the budgets beyond the largest one that both arms have."""
    largest = min(max(found.a.budgets), max(found.b.budgets))
    end = found.crossing.range[1]
    if end > largest * math.exp(0.1):
        axes.axvspan(largest, end * MARGIN, color="0.95", zorder=0)


def _short(name: str) -> str:
    """Return a name without its middle where it is long: arms differ at either end."""
    return name if len(name) <= 2 * END + 1 else f"{name[:END]}…{name[-END:]}"
