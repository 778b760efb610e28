"""Writes points to the SQL copy in a background thread, with retries."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.config import StoreConfig, check_index_url
from sweep.errors import IndexUnavailable, InputError, SweepError
from sweep.shell import path_argument
from sweep.store.plans import PlanEntry
from sweep.store.run_store import RunStore

if TYPE_CHECKING:
    from sweep.store.sql.table import SqlIndex

URL_VARIABLE = "SWEEP_INDEX_URL"
RETRY_S = 30.0  # after a failed write, unless another point is committed first
CLOSE_S = 5.0  # longest time that an exiting worker waits for unwritten points
CATCH_UP_S = 60.0  # the same at the end of a sweep


def index_url(config: StoreConfig) -> str | None:
    """Return the URL of the database, from the environment or else the config; None for no copy.

    Raises InputError if the URL in the environment is not of a supported database.
    """
    from_environment = os.environ.get(URL_VARIABLE)
    if not from_environment:
        return config.index_url
    check_index_url(from_environment, URL_VARIABLE)
    return from_environment


def check_index(config: StoreConfig) -> None:
    """Raise InputError if a copy is configured and the libraries for it are not installed."""
    missing = [name for name in index_packages(config) if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"a SQL copy needs {' and '.join(missing)}: pip install 'sweep[sql]', or unset store.index_url"
        )


def index_packages(config: StoreConfig) -> tuple[str, ...]:
    """Return the libraries that the copy needs; empty without a copy."""
    url = index_url(config)
    if url is None:
        return ()
    return ("sqlalchemy",) if url.startswith("sqlite") else ("sqlalchemy", "psycopg")


def _write_stderr(sentence: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # stderr may be closed
        sys.stderr.write(f"{sentence}\n")
        sys.stderr.flush()


def copy_name(sweep_dir: Path, sweep: str) -> str:
    """Return the name of a sweep in the copy: that of a hyperparameter check has its directory appended."""
    inside = (sweep_dir.absolute().parent / "plans").is_dir()
    return f"{sweep}/{sweep_dir.name}" if inside else sweep


class IndexWriter:
    """Copies the points that a worker commits, in a thread; the worker waits for it only when it exits.

    A point that cannot be written is kept and tried again with the next one. Points still missing when the
    worker exits are written by `catch_up`, at the end of `sweep run`, or by `rebuild`.
    """

    def __init__(self, sweep_dir: Path, warn: Callable[[str], None] = _write_stderr) -> None:
        self._sweep_dir, self._warn = sweep_dir, warn
        self._changed = threading.Condition()
        self._pending: dict[tuple[str, str], set[str]] = {}  # run keys by URL and sweep
        self._has_new = self._closing = False
        self._failing = False
        self._thread: threading.Thread | None = None
        self._indexes: dict[str, SqlIndex] = {}  # by URL; each checks its tables once

    def offer(self, entry: PlanEntry) -> None:
        """Queue the point of a run that has its result; returns at once."""
        try:
            url = index_url(entry.experiment.store)
        except InputError as error:
            self._warn_once(str(error))
            return
        if url is None:
            return
        with self._changed:
            sweep = copy_name(self._sweep_dir, entry.experiment.name)
            self._pending.setdefault((url, sweep), set()).add(entry.run_key)
            self._has_new = True
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="index", daemon=True)
                with contextlib.suppress(RuntimeError):  # cannot start a thread now: try with the next point
                    thread.start()
                    self._thread = thread
            self._changed.notify()

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Write the remaining points, for at most `timeout_s` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                wait_s = RETRY_S if self._pending else None
                self._changed.wait_for(lambda: self._has_new or self._closing, wait_s)
                if self._closing and not self._has_new:
                    return
                self._has_new = False
                todo = {place: set(keys) for place, keys in self._pending.items()}
            for (url, sweep), keys in todo.items():
                if self._written(url, sweep, keys):
                    self._forget(url, sweep, keys)

    def _written(self, url: str, sweep: str, keys: set[str]) -> bool:
        try:
            self._write(url, sweep, keys)
        except Exception as error:  # no error may stop the sweep
            self._warn_once(_sentence(error))
            return False
        self._failing = False
        return True

    def _write(self, url: str, sweep: str, keys: set[str]) -> None:
        from sweep.store.sql.table import SqlIndex, point_row  # SQLAlchemy is an extra, and slow to import

        if url not in self._indexes:
            self._indexes[url] = SqlIndex(url)
        rows = (point_row(self._sweep_dir, sweep, key) for key in sorted(keys))
        self._indexes[url].write(row for row in rows if row is not None)

    def _forget(self, url: str, sweep: str, keys: set[str]) -> None:
        with self._changed:
            left = self._pending[url, sweep] - keys
            self._pending[url, sweep] = left
            if not left:
                del self._pending[url, sweep]

    def _warn_once(self, sentence: str) -> None:
        if not self._failing:
            self._failing = True
            self._warn(f"{sentence}; the sweep continues, and its points are written later")


def catch_up(store: RunStore, config: StoreConfig, sweep: str, timeout_s: float = CATCH_UP_S) -> str | None:
    """Write the points that are missing or outdated in the database, within `timeout_s`.

    Returns None on success, else an error message.
    """
    problem: list[str | None] = ["the database of the SQL copy did not answer in time"]

    def write() -> None:
        try:
            url = index_url(config)
            if url is not None:
                _synchronise(store, url, sweep, everything=False)
            problem[0] = None
        except Exception as error:
            problem[0] = _sentence(error)

    thread = threading.Thread(target=write, name="index", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if problem[0] is None:
        return None
    remedy = f"sweep status {path_argument(store.sweep_dir)} --reindex"
    return f"{problem[0]}: the sweep is complete without it; update it with {remedy}"


def rebuild(store: RunStore, config: StoreConfig, sweep: str) -> int | None:
    """Write every point again and delete the rows of runs without a result.

    Returns the number of points, None without a copy. Raises IndexUnavailable or InputError.
    """
    url = index_url(config)
    if url is None:
        return None
    check_index(config)
    return _synchronise(store, url, sweep, everything=True)


def _synchronise(store: RunStore, url: str, sweep: str, *, everything: bool) -> int:
    from sweep.store.sql.table import SqlIndex, point_row

    index, sweep = SqlIndex(url), copy_name(store.sweep_dir, sweep)
    known = index.known(sweep)
    keys = list(store.run_keys())
    rows = (row for key in keys if (row := point_row(store.sweep_dir, sweep, key)) is not None)
    fresh = (
        row
        for row in rows
        if everything or known.get(row["run_key"]) != (row["finished_at"], row["excluded"])
    )
    n_written = index.write(fresh)
    if everything:
        index.remove(sweep, [key for key in known if not store.has_result(key)])
    return n_written


def _sentence(error: Exception) -> str:
    """Return the message of an error of sweep; of others only the type, since a message may hold secrets."""
    if isinstance(error, SweepError):
        return str(error)
    return str(IndexUnavailable(f"the SQL copy cannot be written ({type(error).__name__})"))
