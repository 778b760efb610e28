"""The two streams of the command line: documents on stdout, people's text and progress on stderr."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sweep.errors import InputError

if TYPE_CHECKING:  # rich and the fitter take a while to import, and --help needs neither
    from rich.console import Console

    from sweep.store.status import SweepStatus

LINE_EVERY_S = 5.0  # between two plain lines of progress, where there is no terminal
PIPE_WIDTH = 200  # columns, where nobody can say

DataProgress = Callable[[str, int, int], None]
SweepProgress = Callable[["SweepStatus"], None]


def print_json(document: Any) -> None:
    """One document on stdout, at full precision. Raises as `print_document`."""
    print_document(json.dumps(document, indent=1, allow_nan=False) + "\n")


def print_document(text: str) -> None:
    """Text on stdout. Raises OSError, which names it, when it does not arrive; no more is written then."""
    if sys.stdout is None:
        raise InputError("standard output is closed, and that is where the document goes")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        error.filename = "standard output"
        raise


def say(text: str) -> None:
    """One line on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def console() -> Console:
    """Tables and colours on stderr; plain and wide where it is no terminal."""
    from rich.console import Console

    terminal = sys.stderr.isatty()
    return Console(
        stderr=True, width=None if terminal else PIPE_WIDTH, soft_wrap=not terminal, highlight=False
    )


@contextmanager
def progress() -> Iterator[tuple[DataProgress, SweepProgress]]:
    """Callbacks for data and sweep progress: live on a terminal, else a plain line every few seconds."""
    from rich.live import Live

    from sweep.report.text.status import progress_line, progress_view

    if sys.stderr.isatty():
        with Live(console=console(), transient=True, refresh_per_second=4) as live:
            yield (
                lambda stage, done, total: live.update(_data_line(stage, done, total)),
                lambda seen: live.update(progress_view(seen)),
            )
        return
    every = _Every(LINE_EVERY_S)
    yield (
        lambda stage, done, total: every.say(_data_line(stage, done, total)),
        lambda seen: every.say(progress_line(seen)),
    )


class _Every:
    """Says a line unless the last one was said a moment ago."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.last = seconds, -seconds

    def say(self, line: str) -> None:
        now = time.monotonic()
        if now - self.last >= self.seconds:
            self.last = now
            say(line)


def _data_line(stage: str, n_bytes_done: int, n_bytes: int) -> str:
    of_all = f" of {n_bytes / 1e6:.1f}" if n_bytes else ""
    return f"data: {stage}, {n_bytes_done / 1e6:.1f}{of_all} MB"
