"""Import of a table of runs of another trainer into a sweep."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sweep.config import ColumnsConfig
from sweep.errors import DataError, InputError
from sweep.fit import DEFAULT_COLUMNS, read_table
from sweep.records import POINT_COLUMNS, Point
from sweep.store.imports import import_points
from sweep.store.run_store import RunStore
from sweep.study.laws import not_found

EVALUATION = ("corpus_sha256", "tokenizer_sha256", "evaluation_sha256")
"""Fields that must agree for losses to be comparable."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """Result of an import: the rows added and skipped."""

    n_new: int
    n_known: int  # rows that had been imported before
    tables: tuple[Path, ...]  # points.csv and points.parquet
    left_out: tuple[str, ...]  # columns of the table with scores on evaluation sets


def import_table(
    table: Path,
    sweep_dir: Path,
    *,
    columns: ColumnsConfig = DEFAULT_COLUMNS,
    arm: str | None = None,
    same_evaluation: bool = False,
) -> Imported:
    """Add the rows of a .csv or .parquet table to a sweep as finished runs, and rebuild its points.csv.

    `sweep_dir` may be a new directory. In a sweep with points, the rows must have been evaluated like them:
    their columns of `EVALUATION` must be equal, or absent with `same_evaluation`; the caller then says
    that they are. That is recorded with each point. Scores on evaluation sets are not imported: nothing in a
    table says which text and windows they are of.

    Raises:
        InputError: The table cannot be read, a row is not a valid point, or the evaluations differ.
    """
    if sweep_dir.exists() and not sweep_dir.is_dir():
        raise InputError(f"--into {sweep_dir} is a file: give a directory")
    if not table.exists():
        raise not_found(table, "give a .csv, .tsv, .parquet or .jsonl file")
    given = read_table(table, columns)
    stored = RunStore(sweep_dir).points()
    arm = _arm(arm, {point.arm for point in stored.points}, sweep_dir)
    left_out = {exclusion.run_key for exclusion in stored.excluded}
    fitted = [point for point in stored.points if point.run_key not in left_out and point.arm == arm]
    points = [replace(point, arm=arm) for point in _evaluated_alike(given, fitted, table, same_evaluation)]
    provenance = {
        "table": table.name,
        "sha256": hashlib.sha256(_content(table)).hexdigest(),
        "same_evaluation_assumed": same_evaluation,
    }
    new = import_points(sweep_dir, points, provenance)
    return Imported(
        n_new=len(new),
        n_known=len(points) - len(new),
        tables=RunStore(sweep_dir).write_points(),
        left_out=tuple(name for name in given.extras if _is_set_score(name)),
    )


def _is_set_score(column: str) -> bool:
    """Return True for the columns loss_NAME and bits_per_byte_NAME of evaluation sets."""
    return column.startswith(("loss_", "bits_per_byte_")) and column not in POINT_COLUMNS


def _content(table: Path) -> bytes:
    try:
        return table.read_bytes()
    except OSError as error:
        raise DataError(f"{table} cannot be read ({error.strerror}): check its permissions") from None


def _arm(arm: str | None, stored: set[str | None], sweep_dir: Path) -> str | None:
    names = sorted(name for name in stored if name is not None)
    if stored and arm not in stored:
        choices = f"give --arm with one of {', '.join(names)}" if names else "leave --arm out"
        raise InputError(
            f"{sweep_dir} {'has arms' if names else 'has no arms'}, which are fitted one at a time: {choices}"
        )
    return arm


def _evaluated_alike(
    given: Sequence[Point], stored: Sequence[Point], table: Path, same_evaluation: bool
) -> list[Point]:
    """Return the points with the stored points' evaluation. Raises InputError where it differs."""
    if not stored:
        return list(given)
    points = list(given)
    for field in EVALUATION:
        wanted = {getattr(point, field) for point in stored}
        if len(wanted) > 1:
            raise InputError(
                f"the points of the sweep have {len(wanted)} values of {field}, so none can be compared with "
                f"{table}: import into a new directory"
            )
        (value,) = wanted
        for row, point in enumerate(points, start=1):
            found = getattr(point, field)
            if found is None and same_evaluation:
                points[row - 1] = replace(point, **{field: value})
            elif found != value:
                raise InputError(_difference(table, row, field, found, value))
    return points


def _difference(table: Path, row: int, field: str, found: str | None, wanted: str | None) -> str:
    if found is None:
        return (
            f"{table} has no {field} in row {row}, so its losses may be from other text than the sweep's: "
            f"add the column with {wanted}, or give --same-evaluation if text, tokenizer and windows are the "
            f"same"
        )
    return (
        f"{table}, row {row}: {field} is {found[:16]} and the sweep's {(wanted or 'none')[:16]}, so their "
        f"losses are not comparable: import into a new directory"
    )
