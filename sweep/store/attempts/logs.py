"""The last log lines of a failed attempt: its traceback, or the end of its worker's log."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from sweep.store.attempts.attempts import Attempt
from sweep.store.files import create, read_json

TAIL_BYTES = 8192
TAIL_LINES = 12


def keep_tail(attempt_dir: Path, log: Path | None) -> None:
    """Store the end of a dead worker's log as error.txt of the attempt, unless there is one.

    The restarted worker appends to the same log, so later its end belongs to other runs.
    """
    if log is None or (attempt_dir / "error.txt").exists():
        return
    with contextlib.suppress(OSError):
        create(attempt_dir / "error.txt", "\n".join(_last_lines(log)).encode(), durable=False)


def log_tail(sweep_dir: Path, attempt: Attempt) -> tuple[str, ...]:
    """Return up to TAIL_LINES last lines about a failed attempt; empty if there is no log."""
    own = _last_lines(attempt.path / "error.txt")
    if own:
        return own
    worker_id = str((read_json(attempt.path / "claim.json") or {}).get("worker_id", ""))
    name = worker_id.rpartition("-")[0]  # logs are named after the worker id without its last part
    return _last_lines(sweep_dir / "logs" / f"{name}.log") if name and "/" not in name else ()


def _last_lines(path: Path) -> tuple[str, ...]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ()
    return tuple(line.rstrip() for line in text.splitlines() if line.strip())[-TAIL_LINES:]
