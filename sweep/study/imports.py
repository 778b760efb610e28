"""Import of a table of runs of another trainer into a sweep."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sweep.config import ColumnsConfig
from sweep.errors import DataError, InputError
from sweep.fit import DEFAULT_COLUMNS, read_table
from sweep.fit.table.points import Table
from sweep.records import POINT_COLUMNS, Point
from sweep.store.imports import import_points
from sweep.store.run_store import RunStore, StoredPoints
from sweep.study.laws import arm_directory, not_found

EVALUATION = ("corpus_sha256", "tokenizer_sha256", "evaluation_sha256")
"""Fields that must agree for losses to be comparable."""

MAX_NAMED = 5  # arms that a message names
MAX_NAME = 200  # bytes of the name of an arm, which is that of a directory too


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

    `sweep_dir` may be a new directory. The arm of a row is that of the table's column arm, else `arm`, which
    may be new to the sweep. In an arm with points, the rows must have been evaluated like them: their columns
    of `EVALUATION` must be equal, or absent with `same_evaluation`; the caller then says that they are. That
    is recorded with each point. Scores on evaluation sets are not imported: nothing in a table says which
    text and windows they are of.

    Raises:
        InputError: The table cannot be read, a row is not a valid point, the evaluations differ, or some
            runs of the sweep would have an arm and others none.
    """
    if sweep_dir.exists() and not sweep_dir.is_dir():
        raise InputError(f"--into {sweep_dir} is a file: give a directory")
    if not table.exists():
        raise not_found(table, "give a .csv, .tsv, .parquet or .jsonl file")
    if table.is_dir():
        raise InputError(f"{table} is a directory: give a table, such as the points.csv of a sweep")
    given = read_table(table, columns)
    store = RunStore(sweep_dir)
    stored = store.points()
    labelled = _with_arms(given, arm, table)
    added, known = {point.arm for point in labelled}, _known_arms(store, stored)
    _check_arms(added, known, sweep_dir)
    _check_names(added, known)
    left_out = {exclusion.run_key for exclusion in stored.excluded}
    fitted = [point for point in stored.points if point.run_key not in left_out]
    points = _evaluated_alike(labelled, fitted, table, same_evaluation)
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


def _with_arms(given: Table, arm: str | None, table: Path) -> list[Point]:
    """Return the points with their arms: those of the column arm, else `arm`.

    Raises InputError where the column has empty cells, or values other than `arm`.
    """
    if arm is not None and not arm.strip():
        raise InputError("--arm is empty: give the name of an arm, or leave it out")
    named = sorted({point.arm for point in given if point.arm is not None})
    if not named:
        return [replace(point, arm=arm) for point in given]
    unnamed = next((row for point, row in zip(given, given.rows, strict=True) if point.arm is None), None)
    if unnamed is not None:
        raise InputError(f"{table} has no arm in {unnamed}, and arms in others: fill in its column arm")
    if arm is not None and named != [arm]:
        raise InputError(
            f"--arm {arm} differs from the column arm of {table} ({_listed(named)}): leave --arm out to keep "
            f"the column's arms, or remove the column"
        )
    return list(given)


def _known_arms(store: RunStore, stored: StoredPoints) -> set[str | None]:
    """Return the arms of the sweep, planned ones included: only None without arms, none for a new sweep."""
    planned = store.arm_experiments() if store.has_plan() else []
    return {point.arm for point in stored.points} | {experiment.arm for experiment in planned}


def _check_arms(added: set[str | None], known: set[str | None], sweep_dir: Path) -> None:
    """Raise InputError where runs with an arm and runs without one would be in one sweep."""
    names = [name for name in known if name is not None]
    if not known or None in added & known or (names and None not in added):
        return
    if names:
        raise InputError(
            f"{sweep_dir} has arms, and each is fitted alone: give --arm with one of {_listed(names)}, or "
            f"with a new name"
        )
    raise InputError(
        f"{sweep_dir} has runs without an arm, and those of {_listed(added)} would not be fitted with them: "
        f"import into a new directory, or leave --arm and the column arm out"
    )


def _check_names(added: set[str | None], known: set[str | None]) -> None:
    """Raise InputError for an arm without a directory of its own, or with a name that cannot be printed."""
    directories: dict[str, str] = {}
    for name in sorted(name for name in known | added if name is not None):
        directory = arm_directory(Path(), name).name
        usable = name.isprintable() and len(name.encode()) <= MAX_NAME and name not in (".", "..")
        if name in added and not usable:
            raise InputError(
                f"{name[:40]!r} cannot be the name of an arm: use letters, digits and marks, at most "
                f"{MAX_NAME} bytes, and not . or .. alone"
            )
        other = directories.setdefault(directory, name)
        if other != name and {name, other} & added:
            raise InputError(f"arms {other} and {name} would share the directory {directory}: rename one")


def _listed(names: Iterable[str | None]) -> str:
    """Return the names in order, at most MAX_NAMED of them."""
    known = sorted(name for name in names if name is not None)
    return ", ".join([*known[:MAX_NAMED], *(["…"] if len(known) > MAX_NAMED else [])])


def _evaluated_alike(
    given: Sequence[Point], stored: Sequence[Point], table: Path, same_evaluation: bool
) -> list[Point]:
    """Return the points with the evaluation of their arm's stored points.

    Raises InputError where it differs.
    """
    points = list(given)
    wanted = _evaluations(stored)
    for field in EVALUATION:
        for at, point in enumerate(points):
            values = wanted.get((point.arm, field))
            if values is None:  # a new arm
                continue
            if len(values) > 1:
                raise InputError(
                    f"the points of the sweep have {len(values)} values of {field}, so none can be compared "
                    f"with {table}: import into a new directory"
                )
            (value,) = values
            found = getattr(point, field)
            if found is None and same_evaluation:
                points[at] = point = replace(point, **{field: value})
            elif found != value:
                raise InputError(_difference(table, at + 1, field, found, value))
    return points


def _evaluations(stored: Sequence[Point]) -> dict[tuple[str | None, str], set[Any]]:
    """Return the values of each field of `EVALUATION` in each arm."""
    values: dict[tuple[str | None, str], set[Any]] = {}
    for point in stored:
        for field in EVALUATION:
            values.setdefault((point.arm, field), set()).add(getattr(point, field))
    return values


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
