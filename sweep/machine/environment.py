"""Environment of worker processes: variables with numbers, limits of threads, and standard streams."""

from __future__ import annotations

import math
import os
import sys
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


def open_closed_streams() -> None:
    """Open standard streams that are closed on the null device, so that no file gets their numbers.

    The programs that this process becomes or starts have them, too. `sys.stdout` stays None, since a result
    that is asked for would be lost.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
            os.set_inheritable(opened, True)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w")
