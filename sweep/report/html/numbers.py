"""Numbers of the document: rounded, and null where they are not finite."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

DIGITS = 6  # significant, of numbers that are drawn


def rounded(value: Any, digits: int = DIGITS) -> Any:
    """Return plain JSON types with floats rounded to significant digits, and None for those not finite.

    >>> rounded([1 / 3, float("nan"), 2.0, 7, "x"], 3)
    [0.333, None, 2, 7, 'x']
    """
    if isinstance(value, np.ndarray):
        return rounded(value.tolist(), digits)
    if isinstance(value, Mapping):
        return {str(name): rounded(item, digits) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item, digits) for item in value]
    if isinstance(value, np.generic):
        return rounded(value.item(), digits)
    return _number(value, digits) if isinstance(value, float) else value


def _number(value: float, digits: int) -> float | int | None:
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short
