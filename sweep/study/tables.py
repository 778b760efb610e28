"""Fits of a table: the laws of its runs, or the power laws of its optima."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.config import ColumnsConfig, FitConfig
from sweep.errors import InputError
from sweep.fit import DEFAULT_COLUMNS, Fit, fit, read_table
from sweep.fit.table.files import is_known_table
from sweep.fit.table.optima import OptimaLaw, optima_law
from sweep.fit.table.points import ALL_ROWS, Selection, from_dataframe
from sweep.shell import path_argument
from sweep.study.laws import not_found

if TYPE_CHECKING:  # slow to import, and only annotations need it
    import pandas as pd


def fit_any_table(
    source: str | Path | pd.DataFrame,
    config: FitConfig | None = None,
    *,
    columns: ColumnsConfig = DEFAULT_COLUMNS,
    selection: Selection = ALL_ROWS,
    reconcile: bool = False,
    on_note: Callable[[str], None] | None = None,
) -> Fit | OptimaLaw:
    """Fit a table of runs, one a row, or the power laws of a table of optima. Writes nothing.

    `source` is a file or a DataFrame. `columns` names columns that are not found by their usual names,
    `selection` the rows to fit; `on_note` receives each sentence about how the table was read. Raises
    InputError as `read_table`.
    """
    if not isinstance(source, str | Path):
        table = from_dataframe(source, columns, selection=selection)
    elif not Path(source).exists():
        raise not_found(source)
    elif is_fit(source):
        raise InputError(
            f"{source} is a fit, not a table: ask it with sweep predict {path_argument(source)} 10x"
        )
    else:
        table = read_table(source, columns, selection)
    if on_note is not None:
        for note in table.notes:
            on_note(note)
    config = config or FitConfig()
    if table.is_optima:
        return optima_law(table, config.confidence)
    return fit(table, config, reconcile=reconcile)


def fit_table(
    source: str | Path | pd.DataFrame,
    config: FitConfig | None = None,
    *,
    columns: ColumnsConfig = DEFAULT_COLUMNS,
    selection: Selection = ALL_ROWS,
    reconcile: bool = False,
    on_note: Callable[[str], None] | None = None,
) -> Fit:
    """Fit a table of runs, one a row, as `fit_any_table` does. Raises InputError for a table of optima."""
    found = fit_any_table(
        source, config, columns=columns, selection=selection, reconcile=reconcile, on_note=on_note
    )
    if isinstance(found, OptimaLaw):
        raise InputError(
            "the table holds one optimum for each budget, and no runs: show its laws with sweep fit TABLE, "
            "or sweep.fit_optima in Python"
        )
    return found


def fit_optima(
    source: str | Path | pd.DataFrame,
    *,
    columns: ColumnsConfig = DEFAULT_COLUMNS,
    on_note: Callable[[str], None] | None = None,
) -> OptimaLaw:
    """Fit power laws to a table of optima, one a budget. Raises InputError for a table of runs."""
    found = fit_any_table(source, columns=columns, on_note=on_note)
    if not isinstance(found, OptimaLaw):
        raise InputError("the table holds runs, and not one optimum for each budget: use sweep.fit_table")
    return found


def is_fit(path: str | Path) -> bool:
    """Return whether a file is a fit.json."""
    if Path(path).suffix.lower() != ".json":
        return False
    try:
        document = json.loads(Path(path).read_bytes())
    except (OSError, ValueError):  # not of this program: the reader of tables says why
        return False
    return isinstance(document, dict) and {"schema_version", "methods"} <= document.keys()


def is_table(source: str) -> bool:
    """Return whether a source is a file of a table of runs; a .json file is that of a fit."""
    path = Path(source)
    return path.is_file() and path.suffix.lower() != ".json" and is_known_table(path)
