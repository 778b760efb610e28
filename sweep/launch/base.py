"""The launcher interface and the functions that all launchers share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from sweep.store.run_store import RunStore

RETRY_GROUP_VARIABLE = "SWEEP_RETRY_GROUP"
"""Environment variable that limits a worker to the runs of one retry group (`RunStore.retry`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchState:
    """The state of a launcher's workers."""

    n_running: int
    n_restarts: int
    stopped: bool  # a worker exited because it was asked to
    gave_up: str | None  # reason why dead workers are not restarted any more


class Launcher(Protocol):
    """Starts worker processes and restarts dead ones while runs are left. It never trains.

    Workers do not depend on it: they coordinate through the files of the sweep alone.
    """

    survives_exit: ClassVar[bool]
    """True if the workers keep running, supervised, after this process has exited."""

    def start(self) -> None:
        """Start the workers. Call once."""
        ...

    def wait(self, timeout_s: float) -> LaunchState:
        """Supervise the workers until all have exited, for at most `timeout_s` seconds."""
        ...

    def stop(self) -> None:
        """Ask every worker to save its state and exit. Returns at once; may be called again."""
        ...

    def kill(self) -> None:
        """Kill every worker. Their attempts expire, and other workers continue the runs."""
        ...


def supervise_until_done(
    launcher: Launcher, *, should_stop: Callable[[], bool], look: Callable[[], float]
) -> LaunchState:
    """Start the workers, supervise them until all have exited, and return their final state.

    Once `should_stop` returns true the workers are asked to save and exit. `look` is called between waits and
    returns the length of the next wait in seconds. The workers are also stopped if it raises.
    """
    launcher.start()
    stopping = False
    try:
        while (state := launcher.wait(0)).n_running:
            if should_stop() and not stopping:
                launcher.stop()
                stopping = True
            launcher.wait(look())
        return state
    except BaseException:
        launcher.stop()
        raise


def worker_command(sweep_dir: Path) -> list[str]:
    """Return the command that joins `sweep_dir`, run by this interpreter without the current directory."""
    return [sys.executable, "-P", "-m", "sweep.worker", str(sweep_dir.absolute())]


def unfinished_reason(store: RunStore, ended: str) -> str | None:
    """Return a message, starting with `ended`, if runs are left after all workers have exited; else None."""
    status = store.status()
    if status.finished or status.cancelled:
        return None
    n_left = sum(not run.finished for run in status.runs)
    return f"{ended} with {n_left} runs left: see the logs in {store.sweep_dir / 'logs'}"
