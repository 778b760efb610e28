"""Training throughput of every run by kind of device, with the device's peak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweep.flops import peak_flops_per_second
from sweep.report.figures.results import SweepResults
from sweep.report.figures.style import DASHED, OTHER_COLORS, count_ticks, new_figure, style

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DeviceRates:
    """The runs on one kind of device, smallest model first."""

    device: str
    n_params: FloatArray  # (n,)
    flops_per_second: FloatArray  # (n,) training FLOPs over the run's time, set-up and evaluation included
    peak_flops_per_second: float | None  # dense bf16; None if unknown
    utilisation: float | None  # FLOPs of all its runs over their time at the peak


def device_rates(results: SweepResults) -> tuple[DeviceRates, ...]:
    """Return the rates of all finished runs that were timed, by device."""
    timed: dict[str, list[tuple[float, float, float]]] = {}
    for point in results.points:
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
