"""Training throughput of every run by kind of device, with the device's peak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweep.flops import peak_flops_per_second
from sweep.report.results import SweepResults

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
