"""Cells and tables of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


def rows(header: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table."""
    return [_row(header), _row(["---"] * len(header)), *(_row(cells) for cells in body)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def number(value: float, digits: int = 3) -> str:
    """Return a number to some significant digits, counts from 1,000 in thousands or millions."""
    for scale, letter in ((1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{number(value / scale, digits)}{letter}"
    return np.format_float_positional(value, precision=digits, fractional=False, trim="k").rstrip(".")


def count_interval(estimate: float, ends: tuple[float, float] | None, digits: int = 3) -> str:
    """Return a count with its interval."""
    text = number(estimate, digits)
    return text if ends is None else f"{text} [{number(ends[0], digits)}, {number(ends[1], digits)}]"


def interval(estimate: float, ends: tuple[float, float] | None, decimals: int = 3) -> str:
    """Return a number with its interval, with fixed decimals."""
    text = f"{estimate:.{decimals}f}"
    return text if ends is None else f"{text} [{ends[0]:.{decimals}f}, {ends[1]:.{decimals}f}]"


def percent(value: float) -> str:
    """Return a signed share in percent."""
    return f"{value:+.1%}".replace("%", " %")


def flops(value: float) -> str:
    """Return FLOPs in short scientific notation."""
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
