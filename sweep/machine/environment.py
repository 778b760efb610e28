"""Numbers that launchers tell their workers by environment variables, or that a user sets by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping

from sweep.errors import InputError


def number_of(environ: Mapping[str, str], name: str) -> float | None:
    """The finite number in a variable; None where it is unset or empty. Raises InputError for anything else.

    >>> number_of({"SWEEP_DEADLINE": "1.5e9"}, "SWEEP_DEADLINE")
    1500000000.0
    """
    text = environ.get(name, "")
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{name}={text!r} is no number of seconds: unset it, or give one")
    return number


def count_of(environ: Mapping[str, str], name: str, least: int = 1) -> int | None:
    """The whole number in a variable, `least` or above; None where it is unset or empty.

    Raises InputError for anything else.

    >>> count_of({"SWEEP_N_THREADS": "4"}, "SWEEP_N_THREADS")
    4
    """
    text = environ.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and int(text) >= least):
        raise InputError(f"{name}={text!r} is no whole number from {least} up: unset it, or give one")
    return int(text)
