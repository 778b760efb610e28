"""Throughput and device utilisation of a sweep, from the records of its attempts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sweep.flops import peak_flops_per_second


@dataclass(frozen=True, kw_only=True, slots=True)
class Occupancy:
    """The time of one attempt on a device.

    Its start is of a wall clock, used for overlaps only; its length was measured on a monotonic clock.
    """

    place: str | None  # id of a device that several workers may share; None: an exclusive device
    began: float  # seconds since the epoch
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """The work of one run, over all attempts, including lost and failed ones."""

    flops: float  # exact training FLOPs that were kept
    has_result: bool
    device: str | None  # product name; None without a result
    occupied: tuple[Occupancy, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Throughput:
    """Rates while any run was live, and utilisation. None if nothing was measured or no peak is known."""

    runs_per_hour: float | None  # runs with a result
    flops_per_hour: float | None
    device_s: float  # device-seconds; concurrent runs on a shared device count once
    flops_per_device_second: float | None
    utilisation: float | None  # exact FLOPs / device-seconds / peak FLOP/s


def throughput(works: Sequence[Work]) -> Throughput:
    """Return the rates and utilisation of a sweep.

    Runs without a result are assigned to the sweep's device if there is only one kind.
    """
    busy_s = _union_s((o.began, o.began + o.seconds) for work in works for o in work.occupied)
    flops = sum(work.flops for work in works)
    n_results = sum(work.has_result for work in works)
    groups = _by_device(works)
    seconds = {device: _device_seconds(group) for device, group in groups.items()}
    device_s = sum(seconds.values())
    return Throughput(
        runs_per_hour=3600 * n_results / busy_s if busy_s > 0 else None,
        flops_per_hour=3600 * flops / busy_s if busy_s > 0 else None,
        device_s=device_s,
        flops_per_device_second=flops / device_s if device_s > 0 else None,
        utilisation=_utilisation(flops, seconds),
    )


def _by_device(works: Sequence[Work]) -> dict[str | None, list[Work]]:
    known = {work.device for work in works if work.device is not None}
    only = next(iter(known)) if len(known) == 1 else None
    groups: dict[str | None, list[Work]] = defaultdict(list)
    for work in works:
        if work.occupied:
            groups[work.device or only].append(work)
    return groups


def _device_seconds(works: Iterable[Work]) -> float:
    """Return device-seconds: attempts that overlap on a shared device count once."""
    own_s = 0.0
    shared: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for occupancy in (occupancy for work in works for occupancy in work.occupied):
        if occupancy.place is None:
            own_s += occupancy.seconds
        else:
            shared[occupancy.place].append((occupancy.began, occupancy.began + occupancy.seconds))
    return own_s + sum(_union_s(spans) for spans in shared.values())


def _utilisation(flops: float, seconds: dict[str | None, float]) -> float | None:
    possible = 0.0
    for device, device_s in seconds.items():
        peak = None if device is None else peak_flops_per_second(device)
        if peak is None:
            return None
        possible += device_s * peak
    return flops / possible if possible > 0 else None


def _union_s(spans: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of spans.

    >>> _union_s([(0, 2), (5, 6), (1, 3)])
    4.0
    """
    total, reach = 0.0, float("-inf")
    for began, ended in sorted(spans):
        total += max(0.0, ended - max(began, reach))
        reach = max(reach, ended)
    return total


def epoch_s(timestamp: object) -> float | None:
    """Convert an ISO 8601 timestamp to seconds since the epoch; None if it is not one."""
    try:
        return datetime.fromisoformat(str(timestamp)).timestamp()
    except ValueError:
        return None
