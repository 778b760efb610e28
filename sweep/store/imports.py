"""Points of runs that were trained elsewhere, stored as results with their provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sweep.errors import InputError
from sweep.identity import sha256_json
from sweep.records import BOOKKEEPING_COLUMNS, Point
from sweep.store.files import create_once, json_bytes
from sweep.store.plans import RUN_KEY, run_directory
from sweep.store.points import ResultError, check_imported
from sweep.store.run_store import RunStore

NAMING_FIELDS = frozenset({"run_key", "name", *BOOKKEEPING_COLUMNS})
"""Fields that do not decide whether two imported points are the same."""


def import_points(sweep_dir: Path, points: Sequence[Point], provenance: Mapping[str, Any]) -> list[str]:
    """Store points, one per row of a table in order, and return the keys of those that are new.

    The key of a point is its own run key if that has the form of one of this project's, else a hash of its
    values, so that importing a table again, or one that has grown, adds only new rows. `provenance` describes
    the table and is stored in every result.json; `Point.provenance` is its name, hash and row.

    Raises InputError, before anything is written, for a row that is not a valid point, that repeats another
    row, or that has the key of a different stored point.
    """
    stored = {str(point.run_key): point for point in RunStore(sweep_dir).points().points}
    new: dict[str, Point] = {}
    rows: dict[str, int] = {}
    for row, given in enumerate(points, start=1):
        point = _labelled(given, row, provenance)
        key = str(point.run_key)
        if key in rows:
            raise InputError(
                f"{provenance['table']}: row {row} repeats row {rows[key]}: remove it, or distinguish "
                f"replicates by a column seed"
            )
        rows[key] = row
        if key not in stored:
            new[key] = point
        elif _content(stored[key]) != _content(point):
            raise InputError(
                f"{provenance['table']}: row {row} has the run_key {key} of another point in {sweep_dir}: "
                f"remove the row, or its run_key"
            )
    for key, point in new.items():
        record = {**provenance, "row": rows[key], "imported_at": _now()}
        directory = run_directory(sweep_dir, key)
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:  # of a file system that creates no directories, such as /proc
            raise InputError(
                f"--into {sweep_dir} cannot be created ({error.strerror}): choose another"
            ) from None
        create_once(directory / "result.json", json_bytes({"point": point.values(), "provenance": record}))
    return list(new)


def _labelled(point: Point, row: int, provenance: Mapping[str, Any]) -> Point:
    """Return the point with its key, a name and its provenance. Raises InputError if it is not valid."""
    source = f"{provenance['table']}#{provenance['sha256'][:12]}:{row}"
    key = point.run_key or ""
    if not RUN_KEY.fullmatch(key):
        key = sha256_json({"imported": _content(point), "label": [point.run_key, point.name]})[:16]
    labelled = replace(point, run_key=key, name=f"{point.name or 'imported'}-{key[:6]}", provenance=source)
    try:
        check_imported(labelled.values())
    except ResultError as error:
        raise InputError(
            f"{provenance['table']}: row {row} cannot be imported: {error}; a point needs n_params, "
            f"n_tokens, flops and, unless it diverged, loss"
        ) from None
    return labelled


def _content(point: Point) -> dict[str, Any]:
    """Return the numbers and labels of a point, without those that an import adds."""
    return {name: _number(value) for name, value in point.values().items() if name not in NAMING_FIELDS}


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, int) else value


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
