"""What every launcher promises: to start the worker command somewhere, and nothing else."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from sweep.store.run_store import RunStore

PARDON_VARIABLE = "SWEEP_PARDON"
"""Tells a worker to train only the runs pardoned under the name in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchState:
    """What a launcher knows of its workers."""

    n_running: int
    n_restarts: int
    stopped: bool  # a worker left because it was asked to
    gave_up: str | None  # why dead workers are not replaced any more


class Launcher(Protocol):
    """Starts worker processes and sees that work goes on. It never trains, and a worker never needs it."""

    outlives_us: ClassVar[bool]
    """Whether the workers go on, supervised, when this process leaves."""

    def start(self) -> None:
        """Start the workers. Call once."""
        ...

    def wait(self, timeout_s: float) -> LaunchState:
        """Look after the workers until none is left, or for `timeout_s` seconds."""
        ...

    def stop(self) -> None:
        """Ask every worker to save its state and leave; returns at once, may be repeated."""
        ...

    def kill(self) -> None:
        """End every worker without asking. What it held expires and is taken up by the next."""
        ...


def worker_command(sweep_dir: Path) -> list[str]:
    """The command that joins `sweep_dir`: this interpreter, and no module from the current directory."""
    return [sys.executable, "-P", "-m", "sweep.worker", str(sweep_dir.absolute())]


def left_over(store: RunStore, ended: str) -> str | None:
    """Why a sweep whose workers are gone is not finished, beginning with how they ended; None if it is."""
    status = store.status()
    if status.finished or status.cancelled:
        return None
    n_left = sum(not run.finished for run in status.runs)
    return f"{ended} with {n_left} runs left: {store.sweep_dir / 'logs'} says more"
