"""Laws of learning rate and batch, fitted to the runs of a sweep or of a table."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweep.config import ColumnsConfig
from sweep.errors import InputError
from sweep.fit import DEFAULT_COLUMNS, read_table
from sweep.fit.hparam_laws import WINDOW, HparamLaws, fit_hparam_laws
from sweep.fit.refusals import RefusedError
from sweep.fit.table.points import ALL_ROWS, Selection, Table
from sweep.records import Point
from sweep.store.files import write_atomic
from sweep.store.run_store import RunStore

FILE = "hparam_laws.json"  # in the directory of the sweep
CHECK = "hparams"  # directory of the runs of a hyperparameter check, in that of the sweep
COLUMNS = {
    "lr": ("lr_peak", "lr", "learning_rate", "max_lr", "peak_lr"),
    "batch": ("batch_tokens", "tokens_per_step"),
}
"""Usual names of the columns of a table."""
_SCALED = re.compile(r"(.+?)\s*\*\s*([0-9][0-9.]*(?:e[+-]?\d+)?)", re.IGNORECASE)


def fit_sweep_hparams(sweep_dir: Path, *, window: float = WINDOW, confidence: float = 0.95) -> HparamLaws:
    """Fit the laws to all runs of a sweep, those of its arms and of its hyperparameter check included.

    Excluded and diverged runs are left out. Raises InputError for a directory without runs, and for a
    refusal.
    """
    points = {point.run_key: point for point in (*_points(sweep_dir), *_points(sweep_dir / CHECK))}
    if not points:
        raise InputError(f"{sweep_dir} has no finished run: give the directory of a sweep that has been run")
    return _fitted(str(sweep_dir), list(points.values()), window, confidence)


def _points(sweep_dir: Path) -> list[Point]:
    """Return the points of a sweep, without those that a user excluded; none without a directory."""
    if not sweep_dir.is_dir():
        return []
    stored = RunStore(sweep_dir).points()
    left_out = {item.run_key for item in stored.excluded if not item.reason.startswith("purpose: ")}
    return [point for point in stored.points if point.run_key not in left_out]


def fit_table_hparams(
    path: Path,
    *,
    columns: ColumnsConfig = DEFAULT_COLUMNS,
    lr: str | None = None,
    batch: str | None = None,
    selection: Selection = ALL_ROWS,
    window: float = WINDOW,
    confidence: float = 0.95,
) -> HparamLaws:
    """Fit the laws to a table. `lr` and `batch` name columns, such as "bs * 2048" for a batch in sequences.

    Raises InputError as `read_table`, for a column that is not found, and for a refusal.
    """
    table = read_table(path, columns, selection)
    rates = _column(table, "lr", lr)
    batches = _column(table, "batch", batch)
    if rates is None:
        raise InputError(f"{path}: no column for the learning rate {_among(table)}: name it with --lr")
    points = [
        replace(point, lr_peak=rate, batch_tokens=None if size is None else round(size))
        for point, rate, size in zip(table.points, rates, batches or [None] * len(table.points), strict=True)
    ]
    return _fitted(str(path), points, window, confidence)


def write_hparam_laws(sweep_dir: Path, laws: HparamLaws) -> Path:
    """Write hparam_laws.json and return its path. Raises OSError where the sweep is read-only."""
    path = sweep_dir / FILE
    write_atomic(path, (json.dumps(laws.to_json(), indent=1, allow_nan=False) + "\n").encode())
    return path


def _fitted(source: str, points: Sequence[Point], window: float, confidence: float) -> HparamLaws:
    try:
        return fit_hparam_laws(points, window=window, confidence=confidence)
    except RefusedError as refused:
        raise InputError(f"{source}: no law: {refused.refusal.reason}") from None


def _column(table: Table, axis: str, given: str | None) -> list[float | None] | None:
    """Return the numbers of a column; None where none is given or has a usual name."""
    if given is None:
        usual = [name for name in COLUMNS[axis] if name in table.extras]
        return _numbers(table.extras[usual[0]], 1.0) if usual else None
    scaled = _SCALED.fullmatch(given)
    name, factor = (scaled[1], float(scaled[2])) if scaled and given not in table.extras else (given, 1.0)
    if name in table.columns.values():
        field = next(field for field, column in table.columns.items() if column == name)
        raise InputError(f"{table.source}: column {name!r} is read as {field}: give --{axis} another one")
    if name not in table.extras:
        raise InputError(
            f"{table.source}: column {given!r} not found {_among(table)}: give --{axis} one of them, or one "
            f"times a number, as 'bs * 2048'"
        )
    numbers = _numbers(table.extras[name], factor)
    if not any(numbers):
        raise InputError(
            f"{table.source}: column {name!r} holds no number above 0: give --{axis} another column"
        )
    return numbers


def _among(table: Table) -> str:
    """Return the columns that may hold a rate or a batch, as the end of a sentence that one is not found."""
    names = ", ".join(table.extras)
    return f"among {names}" if names else f"next to {', '.join(table.columns.values())}"


def _numbers(values: Sequence[Any], factor: float) -> list[float | None]:
    found: list[float | None] = []
    for value in values:
        try:
            number = factor * float(str(value))
        except ValueError:
            number = math.nan
        found.append(number if math.isfinite(number) and number > 0 else None)
    return found
