"""Environment variables of worker processes that hold numbers, and the variables that limit their threads."""

from __future__ import annotations

import math
from collections.abc import Mapping

from sweep.errors import InputError

N_THREADS = "SWEEP_N_THREADS"
"""Environment variable: threads of a run on a CPU; 1 by default."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Variables that limit the threads of numerical libraries."""


def number_of(environ: Mapping[str, str], name: str) -> float | None:
    """Return the finite number of seconds in a variable; None if it is unset or empty.

    Raises InputError for any other value.

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
        raise InputError(f"{name}={text!r} is invalid: set it to a finite number of seconds, or unset it")
    return number


def count_of(environ: Mapping[str, str], name: str, least: int = 1) -> int | None:
    """Return the integer in a variable, at least `least`; None if it is unset or empty.

    Raises InputError for any other value.

    >>> count_of({"SWEEP_N_THREADS": "4"}, "SWEEP_N_THREADS")
    4
    """
    text = environ.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and int(text) >= least):
        raise InputError(f"{name}={text!r} is invalid: set it to an integer of at least {least}, or unset it")
    return int(text)
