"""Figure of training throughput."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweep.report.figures.style import DASHED, OTHER_COLORS, count_ticks, new_figure, style
from sweep.report.series.utilisation import DeviceRates


def utilisation_figure(devices: Sequence[DeviceRates]) -> Figure:
    """Draw FLOP/s of every run against N, and the peaks that are known."""
    with style():
        figure, (axes,) = new_figure(width=6.6, height=3.6)
        for number, rates in enumerate(devices):
            _draw_rates(rates, axes, OTHER_COLORS[number % len(OTHER_COLORS)])
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("parameters  $N$")
        axes.set_ylabel("training FLOP/s")
        axes.set_title("Throughput of the runs", loc="left")
        count_ticks(axes.xaxis)
        axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.2), ncols=1, handlelength=1.8)
        return figure


def _draw_rates(rates: DeviceRates, axes: Axes, color: str) -> None:
    """Draw the runs on one kind of device, and its peak dashed."""
    used = "" if rates.utilisation is None else f": {rates.utilisation:.1%} of peak"
    axes.plot(
        rates.n_params, rates.flops_per_second, "o", color=color, ms=4.5, mew=0, label=rates.device + used
    )
    if rates.peak_flops_per_second is not None:
        axes.axhline(rates.peak_flops_per_second, color=color, ls=DASHED, lw=1.1)
