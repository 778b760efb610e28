"""Numbers, durations and tables as text for people."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.table import Table

LEFT_ALIGNED = ("state", "reason", "key", "status", "method", "setting")  # columns of words


def format4(value: float) -> str:
    """Format a number with four significant digits, 12,345 as 1.234e4.

    >>> [format4(x) for x in (0.49712, 20, 61234567, 1e21, -0.00012345)]
    ['0.4971', '20', '6.123e7', '1e21', '-1.234e-4']
    """
    text = f"{value:.4g}"
    if value and math.isfinite(value) and not 1e-3 <= abs(value) < 1e4:
        mantissa, _, exponent = f"{value:.3e}".partition("e")
        text = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return text


def duration(seconds: float | None) -> str:
    """Format seconds with their two largest units.

    >>> [duration(s) for s in (3.2, 75, 7300, 200_000, None)]
    ['3s', '1m15s', '2h01m', '2d07h', '?']
    """
    if seconds is None:
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02}h"


def plain_table(first: str, *others: str) -> Table:
    """Return a table without lines: numbers right-aligned, words left-aligned, only reasons wrapped."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(first, no_wrap=True)
    for name in others:
        justify = "left" if name in LEFT_ALIGNED else "right"
        table.add_column(name, justify=justify, no_wrap=name != "reason")  # type: ignore[arg-type]
    return table


class NarrowTable:
    """A table that leaves out columns, the last ones first, where all of them do not fit the width.

    A number is never cropped. Every row has a cell for each column; the first column is always shown.
    """

    def __init__(self, *columns: str) -> None:
        """Make a table without rows."""
        self.columns = columns
        self.rows: list[tuple[str, ...]] = []

    def add_row(self, *cells: str) -> None:
        """Add a row."""
        self.rows.append(cells)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Return the widths of the first column alone and of all columns."""
        most = Measurement.get(console, options.update(max_width=10_000), self._table(len(self.columns)))
        least = Measurement.get(console, options.update(max_width=10_000), self._table(1))
        return Measurement(least.maximum, most.maximum)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        """Yield the table with as many columns as fit."""
        wide = options.update(max_width=10_000)
        for n_columns in range(len(self.columns), 0, -1):
            table = self._table(n_columns)
            if n_columns == 1 or Measurement.get(console, wide, table).maximum <= options.max_width:
                yield table
                return

    def _table(self, n_columns: int) -> Table:
        table = plain_table(*self.columns[:n_columns])
        for row in self.rows:
            table.add_row(*row[:n_columns])
        return table
