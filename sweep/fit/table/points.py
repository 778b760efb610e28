"""Readers of tables of points: a sweep's points.csv, tables of other people's runs, and DataFrames.

Legend: N parameters, D tokens, C training FLOPs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from sweep.config import ColumnsConfig
from sweep.errors import InputError
from sweep.fit.table.columns import (
    DEFAULT_COLUMNS,
    Column,
    column_notes,
    find_columns,
    has_usual_name,
    is_optimum,
)
from sweep.fit.table.files import Cells, read_cells
from sweep.fit.table.numbers import decimal_mark, is_missing, number
from sweep.fit.table.where import selected_rows
from sweep.records import Point

if TYPE_CHECKING:  # pandas takes long to import, and files are read without it
    import pandas as pd

DONE = frozenset({"done", "finished", "complete", "completed", "success", "succeeded", "ok"})
DIVERGED = frozenset({"diverged"})
TEXT_COLUMNS = (
    "run_key",
    "name",
    "arm",
    "purpose",
    "schedule",
    "corpus",
    "corpus_sha256",
    "tokenizer",
    "tokenizer_sha256",
    "evaluation_sha256",
)
SIDE_COLUMNS = ("flops_chinchilla", "epochs")  # numbers that only some methods use
SIDE_COUNTS = ("seed", "vocab_size", "seq_len")
OPTIONAL = ("flops_budget", "n_params_non_embedding", "n_tokens_unique")
LABELS = ("status", "trunk")  # fields of ColumnsConfig that are texts
SAME_COUNT = 0.05  # of ln C: budgets this near 6 N D are that count before it was rounded to whole batches


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Table(Sequence[Point]):
    """The points of a table, in its order, with what is known about their rows and columns."""

    source: str  # names the table in messages
    points: tuple[Point, ...]
    rows: tuple[str, ...]  # name of each point's row, as "row 3 (line 4)"
    columns: Mapping[str, str]  # name of each field's column
    extras: Mapping[str, tuple[Any, ...]]  # the other columns, aligned with `points`
    notes: tuple[str, ...]  # sentences about how the table was read

    @property
    def is_optima(self) -> bool:
        """True for a table of optima, one a budget: it lacks the loss or N, or its column of N is N_opt."""
        if not {"loss", "n_params"} <= self.columns.keys():
            return True
        return "flops" in self.columns and is_optimum(self.columns["n_params"])

    def __len__(self) -> int:
        return len(self.points)

    @overload
    def __getitem__(self, index: int) -> Point: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Point, ...]: ...
    def __getitem__(self, index: int | slice) -> Point | tuple[Point, ...]:
        return self.points[index]


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """The rows of a table to read."""

    where: str | None = None  # an expression, as `selected_rows` takes it
    best_of_cell: bool = False  # only the run of lowest loss among those of equal N and D, of any arm
    drop_incomplete: bool = False  # no rows without a number for N, D, C or the loss


ALL_ROWS = Selection()


def read_table(
    path: str | Path, columns: ColumnsConfig = DEFAULT_COLUMNS, selection: Selection = ALL_ROWS
) -> Table:
    """Read the points of a .csv, .tsv, .parquet or .jsonl table.

    Required are columns for n_params, loss, and n_tokens or flops; a table without losses or without sizes is
    read as one of optima, if it has one row for each C. Columns are found by their usual names and units (see
    `find_columns`), or named by `columns`. `notes` of the result say how.

    Raises:
        InputError: the file cannot be read, a column is missing or ambiguous, the table is empty, or a value
            is not a finite number above zero. The message names file, column and row; row 1 follows the
            header.
    """
    return _table(read_cells(Path(path)), columns, selection)


def from_dataframe(
    frame: pd.DataFrame,
    columns: ColumnsConfig = DEFAULT_COLUMNS,
    *,
    source: str = "the DataFrame",
    selection: Selection = ALL_ROWS,
) -> Table:
    """Return the points of a DataFrame, one a row, as `read_table` does; `source` names it in errors."""
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise InputError(f"{source}: column {str(twice)!r} is not unique; keep one column of that name")
    cells = Cells(source=source, columns={str(name): frame[name].tolist() for name in frame.columns})
    if frame.empty and len(frame.columns):
        raise InputError(f"{source}: the table has no rows; give one row for each finished run")
    return _table(cells, columns, selection)


def _table(cells: Cells, columns: ColumnsConfig, selection: Selection) -> Table:
    found = find_columns(
        list(cells.columns), columns, lambda name: _is_numeric(cells.columns[name]), cells.source
    )
    labels = {field: found.pop(field).name for field in LABELS if field in found}
    readers = _readers(cells, found)
    rows, notes = _selected(cells, found, readers, selection)
    statuses = _statuses(cells, labels.get("status"), rows)
    values = {field: _numbers(cells, found[field], readers[field], rows, statuses) for field in found}
    notes = (*cells.notes, *column_notes(found), *notes, *_cost_from_budget(found, values))
    names = {field: column.name for field, column in found.items()}
    if "flops" in values and "flops" not in names:
        names["flops"] = names["flops_budget"]
    texts = {
        field: [
            None if is_missing(cells.columns[name][row]) else str(cells.columns[name][row]) for row in rows
        ]
        for field, name in ({field: field for field in TEXT_COLUMNS} | labels).items()
        if name in cells.columns and field != "status"
    }
    sides = {
        field: [convert(cells.columns[field][row]) for row in rows]
        for fields, convert in ((SIDE_COLUMNS, _positive), (SIDE_COUNTS, _count))
        for field in fields
        if field in cells.columns
    }
    fields: dict[str, list[Any]] = {"status": statuses, **values, **texts, **sides}
    points = tuple(Point(**{name: column[at] for name, column in fields.items()}) for at in range(len(rows)))
    _check_fields(cells, found, points)
    kept = list(range(len(points)))
    if selection.best_of_cell:
        kept = _best_of_cells(points)
        over = " in any arm" if any(point.arm is not None for point in points) else ""
        notes += (f"kept {len(kept)} of {len(points)} rows, the lowest loss of each N and D{over}",)
        points = tuple(replace(point, arm=None) for point in points)
    used = {*names.values(), *labels.values(), *TEXT_COLUMNS, *SIDE_COLUMNS, *SIDE_COUNTS}
    return Table(
        source=cells.source,
        points=tuple(points[at] for at in kept),
        rows=tuple(cells.place(rows[at]) for at in kept),
        columns=names,
        extras={
            name: tuple(column[rows[at]] for at in kept)
            for name, column in cells.columns.items()
            if name not in used
        },
        notes=notes,
    )


def _is_numeric(values: Sequence[Any]) -> bool:
    """Return true if most cells that hold anything are numbers."""
    given = [value for value in values if not is_missing(value)]
    n_numbers = sum(any(number(value, mark, "flops") is not None for mark in ".,") for value in given)
    return 2 * n_numbers > len(given)


Reader = Callable[[int], float | None]  # the number of a field in a row


def _readers(cells: Cells, found: Mapping[str, Column]) -> dict[str, Reader]:
    """Return a reader of each field, with the decimal mark that its column, else the table, uses."""
    marks = {field: decimal_mark(cells.columns[column.name]) for field, column in found.items()}
    shown = set(marks.values()) - {None}
    readers: dict[str, Reader] = {}
    for field, column in found.items():
        values = cells.columns[column.name]
        has_comma = any(isinstance(value, str) and "," in value for value in values)
        if field == "loss":  # "4,428" and "4.428" are no losses of four thousand
            open_mark = "," if has_comma else "."
        else:
            open_mark = "," if shown == {","} or (has_comma and cells.semicolons and not shown) else "."
        readers[field] = _reader(values, column, marks[field] or open_mark)
    return readers


def _reader(values: Sequence[Any], column: Column, mark: str) -> Reader:
    def read(row: int) -> float | None:
        value = number(values[row], mark, column.field, column.factor)
        if not column.logarithm or value is None or not math.isfinite(value):
            return value
        return math.log(value) if value > 0 else None

    return read


def _selected(
    cells: Cells, found: Mapping[str, Column], readers: Mapping[str, Reader], selection: Selection
) -> tuple[list[int], tuple[str, ...]]:
    """Return the rows to read, and a note for each selection."""
    rows: list[int] = list(range(cells.n_rows))
    notes: tuple[str, ...] = ()
    if selection.where is not None:
        names = list(dict.fromkeys([*cells.columns, *found]))

        def cell(name: str, row: int) -> Any:
            return cells.columns[name][row] if name in cells.columns else readers[name](row)

        rows = selected_rows(selection.where, names, cell, cells.n_rows)
        if not rows:
            raise InputError(
                f"{cells.source}: --where {selection.where!r} selects none of {cells.n_rows} rows"
            )
        notes += (f"--where selects {len(rows)} of {cells.n_rows} rows",)
    if selection.drop_incomplete:
        needed = [field for field in found if field not in OPTIONAL]
        complete = [row for row in rows if all(_is_finite(readers[field](row)) for field in needed)]
        incomplete = sorted(set(rows) - set(complete))
        wrong = [
            row for row in incomplete if not any(_lacks(cells, found[f], readers[f], row) for f in needed)
        ]
        rows = sorted({*complete, *wrong})  # a text that is no number is an error below, not a missing value
        n_dropped = len(incomplete) - len(wrong)
        notes += (f"dropped {n_dropped} incomplete row{'s' * (n_dropped > 1)}",)
        if not rows:
            raise InputError(f"{cells.source}: every row lacks a number for one of {', '.join(needed)}")
    return rows, notes


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _lacks(cells: Cells, column: Column, read: Reader, row: int) -> bool:
    value = read(row)
    return is_missing(cells.columns[column.name][row]) or (value is not None and not math.isfinite(value))


def _statuses(cells: Cells, name: str | None, rows: Sequence[int]) -> list[Literal["done", "diverged"]]:
    if name is None:
        return ["done"] * len(rows)
    statuses: list[Literal["done", "diverged"]] = []
    for row in rows:
        value = cells.columns[name][row]
        status = str(value).strip().lower()
        if status not in DONE | DIVERGED:
            raise InputError(
                f"{cells.source}: {name}={value!r} in {cells.place(row)} is not done, finished or "
                f"diverged: remove such rows, use sweep fit --where '{name} == \"finished\"', or name "
                f"another column with --column status=NAME"
            )
        statuses.append("diverged" if status in DIVERGED else "done")
    return statuses


def _numbers(
    cells: Cells, column: Column, read: Reader, rows: Sequence[int], statuses: Sequence[str]
) -> list[float | None]:
    """Return a field's numbers, with None only in optional columns and for losses of diverged runs."""
    numbers: list[float | None] = []
    for row, status in zip(rows, statuses, strict=True):
        value, cell = read(row), cells.columns[column.name][row]
        if value is not None and math.isfinite(value) and value > 0:
            numbers.append(value)
        elif (column.field in OPTIONAL and is_missing(cell)) or (
            column.field == "loss" and status == "diverged"
        ):
            numbers.append(None)
        else:
            shown = "no value" if cell is None or str(cell).strip() == "" else repr(cell)
            remedy = (
                ": remove such rows, or use sweep fit --drop-incomplete"
                if _lacks(cells, column, read, row)
                else ""
            )
            raise InputError(
                f"{cells.source}: column {column.name!r} has {shown} in {cells.place(row)}, not a finite "
                f"number above zero{remedy}"
            )
    return numbers


def _positive(value: Any) -> float | None:
    found = number(value)
    return found if found is not None and math.isfinite(found) and found > 0 else None


def _count(value: Any) -> int | None:
    found = number(value)
    return int(found) if found is not None and found.is_integer() else None


def _cost_from_budget(found: Mapping[str, Column], values: dict[str, list[float | None]]) -> tuple[str, ...]:
    """Take C from the budgets where no other column gives it, and return a note if that is not 6 N D."""
    budgets = values.get("flops_budget")
    if budgets is None or "flops" in found or None in budgets:
        return ()
    name = found["flops_budget"].name
    n_params, n_tokens = values.get("n_params"), values.get("n_tokens")
    if n_params and n_tokens:
        triples = zip(budgets, n_params, n_tokens, strict=True)
        if all(n and d and c and abs(math.log(c / (6 * n * d))) <= SAME_COUNT for c, n, d in triples):
            return ()
        note = f'C is read from the budgets in column "{name}", which differ from 6 N D'
    else:
        note = f'C is read from the budgets in column "{name}"'
    values["flops"] = list(budgets)
    return (note,)


def _check_fields(cells: Cells, found: Mapping[str, Column], points: Sequence[Point]) -> None:
    """Raise InputError where columns are missing: for runs, and for optima."""
    has_cost = any(point.flops is not None for point in points)
    absent = [field for field in ("n_params", "loss") if field not in found]
    if not absent:
        if "n_tokens" not in found and not has_cost:
            raise _missing_column(cells, "n_tokens or flops", "n_tokens")
        return
    budgets = {point.flops for point in points}
    optima = has_cost and len(absent) == 1 and len(budgets) == len(points)
    if not optima or (absent == ["n_params"] and "n_tokens" in found):
        raise _missing_column(cells, absent[0], absent[0])


def _missing_column(cells: Cells, wanted: str, field: str) -> InputError:
    for name, values in cells.columns.items():
        texts = (at for at, value in enumerate(values) if not is_missing(value) and number(value) is None)
        if has_usual_name(field, name) and (at := next(texts, None)) is not None:
            return InputError(
                f"{cells.source}: column {name!r} has {values[at]!r} in {cells.place(at)}, not a number: "
                f"correct the column, or name another with --column {field}=NAME"
            )
    return InputError(
        f"{cells.source}: no column for {wanted} among {', '.join(cells.columns) or 'no columns'}: name it "
        f"with --column {field}=NAME"
    )


def _best_of_cells(points: Sequence[Point]) -> list[int]:
    """Return the index of the lowest loss of each N and D, or N and C, and of every run without a loss."""
    best: dict[object, int] = {}
    for at, point in enumerate(points):
        if point.loss is None or point.status == "diverged":
            best[at] = at
            continue
        cell = (point.n_params, point.n_tokens if point.n_tokens is not None else point.flops)
        other = best.setdefault(cell, at)
        if point.loss < (points[other].loss or math.inf):
            best[cell] = at
    return sorted(best.values())
