"""Writer of points.csv and points.parquet, the points of a sweep as a table."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pyarrow  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]

from sweep.records import Point
from sweep.store.files import write_atomic
from sweep.store.points import COLUMN_TYPES, column_values

_ARROW = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}


def write_tables(directory: Path, points: tuple[Point, ...]) -> tuple[Path, Path]:
    """Write points.csv and points.parquet into `directory`; unknown values are empty cells or nulls.

    Counts beyond 2^53 are exact in the CSV and nearest doubles in the Parquet file.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    columns = column_values(points)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))  # csv writes floats with repr, without rounding
    schema = pyarrow.schema([(name, _ARROW[COLUMN_TYPES.get(name, float)]) for name in columns])
    arrays = [
        pyarrow.array([_cell(name, value) for value in values], schema.field(name).type)
        for name, values in columns.items()
    ]
    table = pyarrow.Table.from_arrays(arrays, schema=schema)
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink)
    paths = directory / "points.csv", directory / "points.parquet"
    for path, data in zip(paths, (text.getvalue().encode(), sink.getvalue().to_pybytes()), strict=True):
        write_atomic(path, data)
    return paths


def _cell(name: str, value: float | str | None) -> float | str | None:
    return float(value) if value is not None and COLUMN_TYPES.get(name, float) is float else value
