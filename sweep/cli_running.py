"""Around a sweep that runs: a request to stop, what is loaded meanwhile, how it ended, what it found."""

from __future__ import annotations

import contextlib
import importlib
import os
import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import typer

from sweep.cli_output import show_fits
from sweep.errors import EXIT_STOPPED
from sweep.report.text.terminal import say

if TYPE_CHECKING:  # scipy and pandas: --help must not wait for them
    from sweep.config import ExperimentConfig
    from sweep.store.status import SweepStatus
    from sweep.study.run import RunOutcome

LOADER = "loading ahead"  # the name of a thread


def loading_ahead(on_status: Callable[[SweepStatus], None]) -> Callable[[SweepStatus], None]:
    """`on_status` which, when first called, has what fits and draws loaded on cycles that workers leave.

    It takes a second or two that would otherwise come after the last run.
    """
    loader = threading.Thread(target=_load, name=LOADER, daemon=True)

    def told(status: SweepStatus) -> None:
        if loader.ident is None:
            loader.start()
        on_status(status)

    return told


def _load() -> None:
    with contextlib.suppress(OSError, AttributeError):  # Linux alone has a niceness for each thread
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
    for module in ("sweep.study.laws", "sweep.store.tables", "sweep.report.figures.draw"):
        importlib.import_module(module)


def _wait_for_loader() -> None:
    """A fork made while another thread imports would wait for that import for ever."""
    for thread in threading.enumerate():
        if thread.name == LOADER:
            thread.join()


def fit_and_draw(sweep_dir: Path, experiment: ExperimentConfig) -> None:
    """Fit a sweep, show its laws, draw its figures, and name every file."""
    from sweep.machine.devices import cores
    from sweep.study import laws as analysis

    _wait_for_loader()
    fits = analysis.fit_arms(sweep_dir, experiment.fit, n_processes=len(cores()))
    try:
        written = analysis.write_fits(sweep_dir, fits)
    finally:
        show_fits(fits, as_json=False)
    for path in (*written, *analysis.report(sweep_dir, len(cores()))):
        say(str(path))


def say_outcome(outcome: RunOutcome) -> None:
    """Tell how a sweep ended. Raises typer.Exit when it was stopped with work left."""
    n_runs = len(outcome.status.runs)
    if outcome.interrupted:
        say(f"stopped with the state saved; start it again to go on ({outcome.n_trained} runs finished)")
        raise typer.Exit(EXIT_STOPPED)
    if outcome.was_finished:
        say(f"all {n_runs} runs had ended before: nothing to train")
    for failed in outcome.status.runs:
        if failed.finished and failed.status not in ("done", "diverged"):
            say(f"{failed.name} ended as {failed.status}: {failed.reason}")
    for problem in (outcome.gave_up, outcome.index_problem):
        if problem:
            say(problem)


def say_how_to_follow(sweep_dir: Path) -> None:
    """After --detach: the commands for what is next, ready to be copied."""
    directory = shlex.quote(str(sweep_dir))
    say("the workers go on by themselves")
    for verb, purpose in (
        (f"status {directory} --watch", "to follow them"),
        (f"cancel {directory}", "to have them save and leave"),
        (f"fit {directory}", "when they are done"),
    ):
        say(f"  sweep {verb:<40}  {purpose}")


@contextlib.contextmanager
def stop_flag() -> Iterator[list[int]]:
    """A list that SIGINT or SIGTERM, however often, makes non-empty."""
    asked: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if not asked:
            say("stopping: workers save their state")
        asked.append(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
