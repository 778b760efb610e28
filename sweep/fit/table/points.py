"""Readers of tables of points: a sweep's points.csv, and any CSV, Parquet file or DataFrame."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sweep.config import ColumnsConfig
from sweep.errors import InputError
from sweep.records import Point

if TYPE_CHECKING:  # pandas takes long to import, and a sweep's own points need none of it
    import pandas as pd

DEFAULT_COLUMNS = ColumnsConfig()


def _read_csv(path: Path) -> pd.DataFrame:
    """Read every value as text, because a run key such as 12345678e1234567 is not a number.

    Raises InputError for another separator than a comma, and for two columns of one name.
    """
    import pandas as pd

    header = pd.read_csv(path, dtype=str, keep_default_na=False, header=None, nrows=1)
    names = header.iloc[0].tolist()
    marks = [mark for mark in (";", "\t", "|") if len(names) == 1 and mark in names[0]]
    if marks:
        raise InputError(
            f"points={path}: the columns are separated by {marks[0]!r}; save the table with commas"
        )
    twice = sorted({name for name in names if names.count(name) > 1 and name})
    if twice:
        raise InputError(f"points={path}: column {twice[0]!r} is not unique; keep one column of that name")
    _check_widths(path, len(names))
    return pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False, usecols=range(len(names)))


def _check_widths(path: Path, n_columns: int) -> None:
    """Raise InputError for a row with more values than columns."""
    with path.open(newline="", encoding="utf-8-sig") as lines:
        rows = (values for values in csv.reader(lines) if values)  # pandas skips blank lines too
        for row, values in enumerate(rows):
            if any(value.strip() for value in values[n_columns:]):
                raise InputError(
                    f"points={path}: row {row} has {len(values)} values but the header names {n_columns} "
                    f"columns; add the missing column names"
                )


def _read_parquet(path: Path) -> pd.DataFrame:
    import pandas as pd

    return pd.read_parquet(path)


READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
STATUSES = ("done", "diverged")
TEXT_COLUMNS = (
    "run_key",
    "name",
    "purpose",
    "schedule",
    "corpus",
    "corpus_sha256",
    "tokenizer",
    "tokenizer_sha256",
    "evaluation_sha256",
)
SIDE_COLUMNS = ("flops_chinchilla", "epochs")  # numbers that only some methods use
OPTIONAL = ("flops_budget", "n_params_non_embedding", "n_tokens_unique", "trunk")
MISSING_TEXT = frozenset({"", "nan", "none", "null", "<na>", "na"})  # pandas' NA is "<na>"


def read_table(path: str | Path, columns: ColumnsConfig = DEFAULT_COLUMNS) -> tuple[Point, ...]:
    """Read the points of a .csv or .parquet table.

    Required are columns for n_params, loss, and n_tokens or flops. flops_budget, n_params_non_embedding,
    n_tokens_unique, trunk, status, seed, run_key, name, schedule, corpus, tokenizer, epochs, flops_chinchilla
    and the three hashes are read where present; all other columns are ignored.

    Raises:
        InputError: the file cannot be read, a column is missing, the table is empty, or a value is not a
            finite number above zero. The message names file, column and row; row 1 follows the header.
    """
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"points={path}: unknown suffix {path.suffix!r}; use a {' or '.join(READERS)} file")
    try:
        frame = reader(path)
    except FileNotFoundError:
        raise InputError(f"points={path}: file not found") from None
    except (OSError, ValueError, csv.Error) as error:  # pandas' and pyarrow's parse errors are ValueErrors
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"points={path}: cannot read it as {path.suffix[1:]} ({first_line})") from None
    return from_dataframe(frame, columns, source=str(path))


def from_dataframe(
    frame: pd.DataFrame, columns: ColumnsConfig = DEFAULT_COLUMNS, *, source: str = "the DataFrame"
) -> tuple[Point, ...]:
    """Return the points of a DataFrame, one a row, as `read_table` does; `source` names it in errors."""
    names = _present_columns(frame, columns, source)
    trunk = names.pop("trunk", None)
    if frame.empty:
        raise InputError(f"points={source}: the table has no rows; give one row for each finished run")
    statuses = _statuses(frame, source)
    values = {
        field: _numbers(
            frame[name], name, source, statuses, optional=field in OPTIONAL, may_diverge=field == "loss"
        )
        for field, name in names.items()
    }
    texts = {field: _texts(frame[field]) for field in TEXT_COLUMNS if field in frame.columns}
    if trunk is not None:
        texts["trunk"] = _texts(frame[trunk])
    sides = {field: _side_numbers(frame[field]) for field in SIDE_COLUMNS if field in frame.columns}
    cells: dict[str, list[Any]] = {**values, **texts, **sides}
    return tuple(
        Point(
            status=status, seed=_seed(frame, row), **{field: column[row] for field, column in cells.items()}
        )
        for row, status in enumerate(statuses)
    )


def _present_columns(frame: pd.DataFrame, columns: ColumnsConfig, source: str) -> dict[str, str]:
    """Map fields of Point to columns of `frame`. Raises InputError when a required column is missing."""
    present, given = {}, [str(name) for name in frame.columns]
    for field in dataclasses.fields(ColumnsConfig):
        name, renamed = getattr(columns, field.name), getattr(DEFAULT_COLUMNS, field.name)
        if name in given:
            present[field.name] = name
        elif field.name in ("n_params", "loss") or name != renamed:
            raise _missing_column(f"columns.{field.name}", name, given, source)
    if "n_tokens" not in present and "flops" not in present:
        wanted = f"{columns.n_tokens} or {columns.flops}"
        raise _missing_column("columns.n_tokens or columns.flops", wanted, given, source)
    return present


def _missing_column(key: str, name: str, given: list[str], source: str) -> InputError:
    return InputError(
        f"points={source}: column {name!r} not found among {', '.join(given) or 'no columns'}: "
        f"set {key} to the right one"
    )


def _statuses(frame: pd.DataFrame, source: str) -> list[Literal["done", "diverged"]]:
    if "status" not in frame.columns:
        return ["done"] * len(frame)
    for row, value in enumerate(frame["status"], start=1):
        if value not in STATUSES:
            raise InputError(
                f"points={source}: invalid status={value!r} in row {row}: choose from {', '.join(STATUSES)}"
            )
    return list(frame["status"])


def _numbers(
    column: pd.Series, name: str, source: str, statuses: list[Any], *, optional: bool, may_diverge: bool
) -> list[float | None]:
    """Return the column as floats, with None only in optional columns and for losses of diverged runs."""
    numbers: list[float | None] = []
    for row, (value, status) in enumerate(zip(column, statuses, strict=True), start=1):
        number = _number(value)
        valid = number is not None and math.isfinite(number) and number > 0
        if valid:
            numbers.append(number)
        elif (optional and _is_missing(value)) or (may_diverge and status == "diverged"):
            numbers.append(None)
        else:
            shown = "no value" if _is_missing(value) else repr(value)
            raise InputError(
                f"points={source}: column {name!r} has {shown} in row {row}, not a finite number above zero"
            )
    return numbers


def _side_numbers(column: pd.Series) -> list[float | None]:
    """Return the column as floats, with None for anything but a finite number above zero."""
    numbers = [_number(value) for value in column]
    return [x if x is not None and math.isfinite(x) and x > 0 else None for x in numbers]


def _number(value: Any) -> float | None:
    if isinstance(value, (bool, np.bool_)):  # float(True) is 1.0
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _is_missing(value: Any) -> bool:
    return value is None or str(value).strip().lower() in MISSING_TEXT


def _texts(column: pd.Series) -> list[str | None]:
    return [None if _is_missing(value) else str(value) for value in column]


def _seed(frame: pd.DataFrame, row: int) -> int | None:
    number = _number(frame["seed"].iloc[row]) if "seed" in frame.columns else None
    return int(number) if number is not None and number.is_integer() else None
