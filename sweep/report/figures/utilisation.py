"""How much of its device every run used: the numbers, and the small figure that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweep.flops import peak_flops_per_second
from sweep.records import Point
from sweep.report.figures.style import OTHER_COLORS, count_ticks, new_figure, style

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DeviceRates:
    """The runs of one kind of device, smallest model first."""

    device: str
    n_params: FloatArray
    flops_per_second: FloatArray  # exact training FLOPs over the run's time, set-up and evaluation included
    peak_flops_per_second: float | None  # dense bf16; None where it is not known
    utilisation: float | None  # of all its runs: their FLOPs over their time at the peak


def device_rates(points: Sequence[Point]) -> tuple[DeviceRates, ...]:
    """The rate of every finished run that was timed, by device."""
    timed: dict[str, list[tuple[float, float, float]]] = {}
    for point in points:
        if point.status == "done" and point.device and point.wall_time_s and point.flops and point.n_params:
            timed.setdefault(point.device, []).append((point.n_params, point.flops, point.wall_time_s))
    return tuple(_rates(device, sorted(timed[device])) for device in sorted(timed))


def _rates(device: str, runs: Sequence[tuple[float, float, float]]) -> DeviceRates:
    n_params, flops, seconds = np.array(runs).T
    peak = peak_flops_per_second(device)
    return DeviceRates(
        device=device,
        n_params=n_params,
        flops_per_second=flops / seconds,
        peak_flops_per_second=peak,
        utilisation=None if peak is None else float(flops.sum() / (seconds.sum() * peak)),
    )


def utilisation_figure(rates: Sequence[DeviceRates]) -> Figure | None:
    """FLOP/s of every run against N, and the peaks that are known; None when no run was timed."""
    if not rates:
        return None
    with style():
        figure, (axes,) = new_figure(width=6.6, height=3.6)
        for number, rate in enumerate(rates):
            draw_rates(rate, axes, OTHER_COLORS[number % len(OTHER_COLORS)])
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("parameters  $N$")
        axes.set_ylabel("exact training FLOP/s")
        axes.set_title("What the runs got out of their devices", loc="left")
        count_ticks(axes.xaxis)
        axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.2), ncols=1, handlelength=1.8)
        return figure


def draw_rates(rates: DeviceRates, axes: Axes, color: str) -> None:
    """One kind of device: its runs, and its peak dashed."""
    used = "" if rates.utilisation is None else f": {rates.utilisation:.1%} of the peak"
    axes.plot(
        rates.n_params, rates.flops_per_second, "o", color=color, ms=4.5, mew=0, label=rates.device + used
    )
    if rates.peak_flops_per_second is not None:
        axes.axhline(rates.peak_flops_per_second, color=color, ls=(0, (4, 2)), lw=1.1)
