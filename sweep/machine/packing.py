"""How many workers share one device: what was measured on this machine, remembered, and looked up.

Small runs leave a GPU waiting for its host, so several at once are faster together; large ones only crowd
each other out. On a CPU the places are cores, and a worker is one thread. Nothing is assumed of either:
without a measurement there is one worker on a device.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import platformdirs

from sweep.errors import InputError

WORTH = 0.05  # of the throughput that one worker more must bring


@dataclass(frozen=True, kw_only=True, slots=True)
class Throughput:
    """What `n_workers` workers together do on one device with models of one size."""

    n_params: int
    n_workers: int
    mps: bool  # NVIDIA's multi-process service
    steps_per_second: float  # of all workers together


@dataclass(frozen=True, kw_only=True, slots=True)
class Packing:
    """A choice: workers on one device, and how much faster they are together than one alone."""

    n_workers: int
    mps: bool
    speedup: float


ALONE = Packing(n_workers=1, mps=False, speedup=1.0)


def packing_file() -> Path:
    """Where measurements of this user's machines lie."""
    return platformdirs.user_cache_path("sweep") / "packing.json"


def packing_json(device: str, rows: Sequence[Throughput]) -> bytes:
    """The file's content with what was measured on `device` in the place of anything earlier."""
    known = _read(packing_file()) | {device: [asdict(row) for row in rows]}
    return json.dumps({"schema_version": 1, "devices": known}, indent=1).encode()


def remembered(device: str) -> tuple[Throughput, ...]:
    """What was measured on `device`; empty when nothing was. Raises InputError for a file that is damaged."""
    path = packing_file()
    try:
        return tuple(_row(row) for row in _read(path).get(device, ()))
    except (TypeError, ValueError):
        raise InputError(
            f"{path} is no record of sweep doctor --packing: delete it and measure again"
        ) from None


def best_packing(rows: Sequence[Throughput], work: Iterable[tuple[int, float]]) -> Packing:
    """The fewest workers that finish `work` within 5 % of the best time.

    `work` is pairs of n_params and the seconds that a worker alone takes.
    The seconds of a size shrink by the speedup measured at the nearest measured size, by ratio. With K
    workers and a speedup of S at a size, its seconds become seconds / S.
    """
    items = [(n_params, seconds) for n_params, seconds in work if seconds > 0]
    ways = sorted({(row.n_workers, row.mps) for row in rows} & _ways_of_every_size(rows))
    if not items or not ways:
        return ALONE
    total = math.fsum(seconds for _, seconds in items)
    taken = {way: math.fsum(s / _speedup(rows, n, *way) for n, s in items) for way in ways}
    best = min(taken.values())
    n_workers, mps = next(way for way in ways if taken[way] <= best * (1 + WORTH))
    return Packing(n_workers=n_workers, mps=mps, speedup=total / taken[n_workers, mps])


def _ways_of_every_size(rows: Sequence[Throughput]) -> set[tuple[int, bool]]:
    """Ways that were measured at every size that has a measurement of one worker alone."""
    sizes = {row.n_params for row in rows if (row.n_workers, row.mps) == (1, False)}
    ways = {(row.n_workers, row.mps) for row in rows}
    measured = {(row.n_params, row.n_workers, row.mps) for row in rows}
    return {way for way in ways if sizes and all((size, *way) in measured for size in sizes)}


def _speedup(rows: Sequence[Throughput], n_params: int, n_workers: int, mps: bool) -> float:
    alone = {row.n_params: row.steps_per_second for row in rows if (row.n_workers, row.mps) == (1, False)}
    nearest = min(alone, key=lambda size: abs(math.log(size / n_params)))
    together = next(
        row.steps_per_second
        for row in rows
        if (row.n_params, row.n_workers, row.mps) == (nearest, n_workers, mps)
    )
    return together / alone[nearest]


def _row(values: dict[str, Any]) -> Throughput:
    """Raises TypeError or ValueError for what no measurement gives."""
    row = Throughput(**values)
    if type(row.mps) is not bool or any(type(n) is not int for n in (row.n_params, row.n_workers)):
        raise TypeError(values)
    if min(row.n_params, row.n_workers) < 1 or not 0 < row.steps_per_second < math.inf:
        raise ValueError(values)
    return row


def _read(path: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        content = json.loads(path.read_text())
        devices: dict[str, list[dict[str, Any]]] = dict(content["devices"].items())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"{path} is no record of sweep doctor --packing: delete it and measure again"
        ) from None
    return devices
