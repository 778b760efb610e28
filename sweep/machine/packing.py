"""Packing: the number of workers that share one device, chosen from measurements on this machine.

Small runs leave a GPU waiting for its host, so several at once have a higher total throughput; large runs
only compete. On a CPU the places are cores, and a worker is one thread. Without a measurement the number is
the default of `sweep.machine.workers`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sweep.config.places import cache_directory
from sweep.errors import InputError

WORTH = 0.05  # fraction of the throughput that an additional worker must gain


@dataclass(frozen=True, kw_only=True, slots=True)
class PackingRow:
    """Measured throughput of `n_workers` workers on one device with models of one size."""

    n_params: int
    n_workers: int
    mps: bool  # with NVIDIA's multi-process service
    steps_per_second: float  # of all workers together


@dataclass(frozen=True, kw_only=True, slots=True)
class Packing:
    """A choice of workers per device."""

    n_workers: int
    mps: bool
    speedup: float  # of all workers together, relative to one alone


ALONE = Packing(n_workers=1, mps=False, speedup=1.0)


def packing_file() -> Path:
    """Return the path of the user's measurements. Raises InputError for a user without a home directory."""
    directory = cache_directory()
    if directory is None:
        raise InputError("measurements have no place without a home directory: set HOME or XDG_CACHE_HOME")
    return directory / "packing.json"


def packing_json(device: str, rows: Sequence[PackingRow]) -> bytes:
    """Return the new content of the file, with `rows` replacing earlier measurements of `device`."""
    known = _read(packing_file()) | {device: [asdict(row) for row in rows]}
    return json.dumps({"schema_version": 1, "devices": known}, indent=1).encode()


def remembered(device: str) -> tuple[PackingRow, ...]:
    """Return the measurements of `device`; empty if there are none. Raises InputError for a damaged file."""
    if cache_directory() is None:
        return ()
    path = packing_file()
    try:
        return tuple(_row(row) for row in _read(path).get(device, ()))
    except (TypeError, ValueError):
        raise _damaged(path) from None


def best_packing(rows: Sequence[PackingRow], work: Iterable[tuple[int, float]]) -> Packing:
    """Return the packing with the fewest workers that finishes `work` within 5 % of the best time.

    `work` holds pairs of n_params and the seconds that one worker alone takes. With K workers, the seconds of
    a size are divided by the speedup measured at the nearest measured size, by ratio.
    """
    items = [(n_params, seconds) for n_params, seconds in work if seconds > 0]
    options = sorted({(row.n_workers, row.mps) for row in rows} & _measured_at_every_size(rows))
    if not items or not options:
        return ALONE
    total = math.fsum(seconds for _, seconds in items)
    times = {option: math.fsum(s / _speedup(rows, n, *option) for n, s in items) for option in options}
    best = min(times.values())
    n_workers, mps = next(option for option in options if times[option] <= best * (1 + WORTH))
    return Packing(n_workers=n_workers, mps=mps, speedup=total / times[n_workers, mps])


def _measured_at_every_size(rows: Sequence[PackingRow]) -> set[tuple[int, bool]]:
    """Return the pairs (n_workers, mps) measured at every size with a measurement of one worker alone."""
    sizes = {row.n_params for row in rows if (row.n_workers, row.mps) == (1, False)}
    options = {(row.n_workers, row.mps) for row in rows}
    measured = {(row.n_params, row.n_workers, row.mps) for row in rows}
    return {option for option in options if sizes and all((size, *option) in measured for size in sizes)}


def _speedup(rows: Sequence[PackingRow], n_params: int, n_workers: int, mps: bool) -> float:
    alone = {row.n_params: row.steps_per_second for row in rows if (row.n_workers, row.mps) == (1, False)}
    nearest = min(alone, key=lambda size: abs(math.log(size / n_params)))
    together = next(
        row.steps_per_second
        for row in rows
        if (row.n_params, row.n_workers, row.mps) == (nearest, n_workers, mps)
    )
    return together / alone[nearest]


def _row(values: dict[str, Any]) -> PackingRow:
    """Raises TypeError or ValueError for values that cannot come from a measurement."""
    row = PackingRow(**values)
    if type(row.mps) is not bool or any(type(n) is not int for n in (row.n_params, row.n_workers)):
        raise TypeError(values)
    if min(row.n_params, row.n_workers) < 1 or not 0 < row.steps_per_second < math.inf:
        raise ValueError(values)
    return row


def _read(path: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        content = json.loads(path.read_text())
        devices: dict[str, list[dict[str, Any]]] = dict(content["devices"].items())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(path) from None
    return devices


def _damaged(path: Path) -> InputError:
    return InputError(f"{path} is damaged: delete it, and measure again with sweep doctor --packing")
