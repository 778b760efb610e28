"""Numbers, durations and tables as text for people."""

from __future__ import annotations

import math

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
