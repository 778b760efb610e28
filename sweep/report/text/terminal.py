"""The two output streams of the command line.

Results that a person asked for go to stdout (`print_text`, `print_json`, `print_document`); progress,
warnings and errors go to stderr (`say`, `progress`).
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sweep.errors import InputError

if TYPE_CHECKING:  # rich and the fitter take a while to import, and --help needs neither
    from rich.console import Console, RenderableType

    from sweep.store.status import SweepStatus

LINE_EVERY_S = 5.0  # between two plain lines of progress, when stderr is not a terminal
UNLIMITED = 100_000  # columns when stdout is not a terminal: one line per table row, never wrapped or cropped

DataProgress = Callable[[str, int, int], None]
SweepProgress = Callable[["SweepStatus"], None]


def print_text(content: RenderableType) -> None:
    """Print a result on stdout: strings verbatim, tables and other rich renderables laid out.

    Colours appear on a terminal only, and not if NO_COLOR is set. Lines are as wide as the terminal;
    elsewhere they are never wrapped or cropped. Raises as `print_document`.
    """
    print_document(content + "\n" if isinstance(content, str) else _rendered(content))


def _rendered(content: RenderableType) -> str:
    from rich.console import Console
    from rich.measure import Measurement

    terminal = sys.stdout is not None and sys.stdout.isatty()
    stream = io.StringIO()
    console = Console(
        file=stream,
        force_terminal=terminal,
        width=None if terminal else UNLIMITED,
        highlight=False,
        markup=False,
        emoji=False,
    )
    if terminal:  # too narrow a terminal wraps the lines of a table; cropping would lose numbers
        needed = Measurement.get(console, console.options.update(max_width=UNLIMITED), content).minimum
        console.width = max(console.width, needed)
    console.print(content, soft_wrap=not terminal)
    text = stream.getvalue()
    return text if terminal else "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def print_json(document: Any) -> None:
    """Print one JSON document on stdout, at full precision. Raises as `print_document`."""
    print_document(json.dumps(document, indent=1, allow_nan=False) + "\n")


def print_document(text: str) -> None:
    """Write text to stdout.

    Raises InputError when stdout is closed, and OSError with "standard output" as its filename when writing
    fails; nothing is written to stdout after such a failure.
    """
    require_output()
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        error.filename = "standard output"
        raise


def require_output() -> None:
    """Raise InputError when stdout is closed: called before a verb works for a result that it only prints."""
    if sys.stdout is None:
        raise InputError("standard output is closed: redirect it to a file or a pipe to get the result")


def discard_if_closed() -> None:
    """Drop what is printed on stdout where it is closed, for verbs with results in files."""
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8")  # the null device, see `open_closed_streams`


def say(text: str) -> None:
    """Print one line of progress, a warning or an error on stderr.

    Where stderr cannot be written, as on a full disk, the line and all later ones are dropped: a message must
    not end a sweep.
    """
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def visible(text: str) -> str:
    r"""Return a sentence with its control characters, such as those of a file's name, as escapes.

    >>> print(visible("a\x1b[31m\nb"))
    a\x1b[31m\nb
    """
    return "".join(repr(sign)[1:-1] if unicodedata.category(sign) == "Cc" else sign for sign in text)


def _stderr_console() -> Console:
    """Return a console on stderr: as wide as the terminal; elsewhere plain and unwrapped."""
    from rich.console import Console

    terminal = sys.stderr.isatty()
    return Console(
        stderr=True,
        width=None if terminal else UNLIMITED,
        soft_wrap=not terminal,
        highlight=False,
        markup=False,
        emoji=False,
    )


@contextmanager
def progress() -> Iterator[tuple[DataProgress, SweepProgress]]:
    """Yield callbacks for data and sweep progress on stderr: live on a terminal, else a line every 5 s."""
    from rich.live import Live

    from sweep.report.text.status import progress_line, progress_view

    if sys.stderr.isatty():
        console = _stderr_console()
        with Live(console=console, transient=True, refresh_per_second=4, redirect_stdout=False) as live:
            yield (
                lambda stage, done, total: live.update(_data_line(stage, done, total)),
                lambda status: live.update(progress_view(status)),
            )
        return
    limited = _RateLimited(LINE_EVERY_S)
    yield (
        lambda stage, done, total: limited.say(_data_line(stage, done, total)),
        lambda status: limited.say(progress_line(status)),
    )


class _RateLimited:
    """Prints a line unless the previous one was printed less than `seconds` ago."""

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
