"""Training by a verb: its stop signals, its outcome, and the fit of new runs."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import typer

from sweep.errors import EXIT_STOPPED
from sweep.report.text.terminal import say

if TYPE_CHECKING:  # slow to import, and --help does not need them
    from sweep.fit import Fit
    from sweep.study.run import RunOutcome


@contextlib.contextmanager
def catch_stop_signals() -> Iterator[list[int]]:
    """Yield a list that SIGINT and SIGTERM append their number to, instead of ending the process."""
    caught: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if not caught:
            say("stopping: workers save their state")
        caught.append(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say_outcome(outcome: RunOutcome) -> None:
    """Report the end of a run on stderr. Raises typer.Exit when it was stopped with work left."""
    n_runs = len(outcome.status.runs)
    if outcome.interrupted:
        say(f"stopped, state saved: run the same command to continue ({outcome.n_trained} runs finished)")
        raise typer.Exit(EXIT_STOPPED)
    if outcome.was_finished:
        say(f"all {n_runs} runs are finished: nothing to train")
    for failed in outcome.status.runs:
        if failed.finished and failed.status not in ("done", "diverged"):
            say(f"{failed.name} ended as {failed.status}: {failed.reason}")
    for problem in (outcome.gave_up, outcome.index_problem):
        if problem:
            say(problem)


def refit(sweep_dir: Path) -> dict[str | None, Fit]:
    """Fit a sweep with its new runs, draw its figures, and return the fits by arm."""
    from sweep.store.run_store import RunStore
    from sweep.study import laws
    from sweep.study.report import write_report

    fits = laws.fit_sweep(sweep_dir, RunStore(sweep_dir).latest_experiment().fit)
    write_report(sweep_dir)
    return fits
