"""The verbs that watch and maintain a sweep."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sweep.cli.arguments import (
    AsJson,
    ConfigDir,
    Directory,
    Overrides,
    SweepDirectory,
    directory_of,
    given_path,
)
from sweep.cli.next_steps import after_status
from sweep.errors import InputError
from sweep.report.text.terminal import print_json, print_text, say

RunName = Annotated[
    str, typer.Argument(metavar="RUN", help="Key or name of a run, as sweep status shows them.")
]
Runs = Annotated[
    list[str] | None, typer.Argument(metavar="RUN", help="Keys or names of runs, as sweep status shows them.")
]
Plans = Annotated[
    list[str] | None,
    typer.Option(
        "--plan",
        metavar="HASH",
        help="Exclude the runs that only this plan lists, and set it aside: the name of a file in DIR/plans, "
        "or its first digits. Can be repeated.",
    ),
]
Watch = Annotated[
    bool, typer.Option("--watch", help="Repeat every two seconds until the sweep is finished or cancelled.")
]
Reindex = Annotated[
    bool, typer.Option("--reindex", help="First rebuild points.csv, points.parquet and the SQL copy.")
]


def worker(directory: Directory) -> None:
    """Train runs of a sweep that was started elsewhere.

    Any machine that sees the directory of the sweep can run workers.
    """
    from sweep.launch.local import MEMORY_VARIABLES
    from sweep.store.plans import no_plan
    from sweep.store.run_store import RunStore

    if not RunStore(directory).has_plan():
        raise no_plan(directory)
    command = [sys.executable, "-P", "-m", "sweep.worker", str(directory)]
    os.execve(sys.executable, command, MEMORY_VARIABLES | os.environ)


def status(
    directory: SweepDirectory = None,
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    watch: Watch = False,
    as_json: AsJson = False,
    reindex: Reindex = False,
) -> None:
    """Show the state of every run and the work left."""
    from sweep.report.hparam_summary import known_of
    from sweep.store.run_store import RunStore
    from sweep.store.validations import read_registrations, read_validations

    if watch and as_json:
        raise InputError("--watch and --json exclude each other: give one of them")
    store = RunStore(directory_of(directory, overrides, config_dir))
    if reindex:
        from sweep.study import upkeep

        upkeep.reindex(store.sweep_dir)
    from sweep.study.departures import departed_runs

    seen = store.status()
    if as_json:
        validations = [one.to_json() for one in read_validations(store.sweep_dir)]
        registered = [one.to_json() for one in read_registrations(store.sweep_dir)]
        print_json(
            {
                **seen.to_json(),
                "hyperparameters": known_of(store.sweep_dir, seen),
                "departures": [asdict(one) for one in departed_runs(store.points()).values()],
                "predictions": registered,
                "validations": validations,
                "next": after_status(store, seen),
            }
        )
        return
    from sweep.report.text.status import progress_line, status_text
    from sweep.report.text.validation import validation_lines

    while watch and not seen.finished and not (seen.cancelled and "running" not in seen.counts):
        say(progress_line(seen))
        time.sleep(2)
        seen = store.status()
    remarks = {key: str(one) for key, one in departed_runs(store.points()).items()}
    print_text(status_text(seen, known_of(store.sweep_dir, seen), remarks))
    registrations, scored = read_registrations(store.sweep_dir), read_validations(store.sweep_dir)
    for line in validation_lines(registrations, scored, seen):
        print_text(line)
    if following := after_status(store, seen):
        print_text(f"next: {', '.join(following)}")


def cancel(directory: Directory) -> None:
    """Stop the workers of a sweep; they save their state."""
    from sweep.store.run_store import RunStore

    RunStore(directory).cancel()
    say(f"workers of {directory} stop at their next step: sweep run starts them again")


def exclude(
    directory: Directory,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Reason, kept with the points.")],
    runs: Runs = None,
    plans: Plans = None,
) -> None:
    """Exclude runs from fits; their points are kept."""
    from sweep.study import upkeep

    if not runs and not plans:
        raise InputError("no run is given: give keys or names that sweep status shows, or --plan HASH")
    keys, problem = upkeep.exclude(directory, runs or (), reason, plans=plans or ())
    for key in keys:
        say(f"{key} is excluded from fits: {reason}")
    for plan in plans or ():
        say(f"plan {plan} is set aside: sweep run with the same settings takes it up again")
    if problem:
        say(problem)


def export(
    directory: Directory,
    run: RunName,
    to: Annotated[Path, typer.Option("--to", metavar="OUT", help="Directory to create.", parser=given_path)],
) -> None:
    """Export a run's weights and tokenizer for transformers."""
    from sweep.config.places import data_directory
    from sweep.store.run_store import RunStore
    from sweep.study.checks import check_extras

    check_extras()
    store = RunStore(directory)
    data_dir = data_directory(store.latest_experiment())
    arguments = [str(directory), store.find_run(run), str(to), str(data_dir)]
    os.execv(sys.executable, [sys.executable, "-P", "-m", "sweep.train.export", *arguments])
