"""The command line: one function a verb. People's text goes to stderr; stdout is for documents."""

from __future__ import annotations

import gc
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from sweep.cli.arguments import (
    Arguments,
    AsJson,
    ConfigDir,
    Directory,
    Overrides,
    arms_of,
    directory_of,
    first_arm_of,
)
from sweep.cli.data import data_app
from sweep.cli.laws import fit, predict, report
from sweep.cli_output import measure_packing
from sweep.cli_running import fit_and_draw, loading_ahead, say_how_to_follow, say_outcome, stop_flag
from sweep.errors import (
    EXIT_BUG,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    InputError,
    told_to_user,
)
from sweep.report.text.terminal import console, print_document, print_json, progress, say

app = typer.Typer(
    name="sweep",
    help="Train small, fit, extrapolate: sweeps of small decoders and the scaling laws fitted to them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command()
def plan(overrides: Overrides = None, config_dir: ConfigDir = None, as_json: AsJson = False) -> None:
    """Show the runs of an experiment and what they cost, before anything is spent."""
    from sweep.study import run as study

    arms = arms_of(overrides, config_dir)
    plans = [study.plan(arm) for arm in arms]
    states = {key: state for drawn in plans for key, state in study.run_states(drawn).items()}
    if as_json:
        print_json(study.plan_document(plans, states))
    else:
        from sweep.machine.workers import crew
        from sweep.report.text.plan import plan_text

        workers = crew(plans)
        for drawn in plans:
            known = study.known_hparams(drawn)
            console().print(plan_text(drawn, states, workers.n_workers, workers.speed, known))


@app.command()
def run(
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    only: Annotated[
        Literal["failed"] | None, typer.Option("--only", help="train just the runs that ended so")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="return when the workers are started; they go on by themselves")
    ] = False,
) -> None:
    """Prepare data, train every run that has no result, fit, and draw. Safe to repeat, kill and run twice."""
    from sweep.study import run as study
    from sweep.study import upkeep

    arms = arms_of(overrides, config_dir)
    if only is not None and not upkeep.failed_runs(study.sweep_directory(arms[0])):
        say(f"no run of {study.sweep_directory(arms[0])} has failed: nothing to train")
        return
    for warning in study.launch_warnings(arms[0]):
        say(f"warning: {warning}")
    with stop_flag() as asked, progress() as (on_data, on_status):
        outcome = study.run(
            *arms,
            on_progress=on_data,
            on_status=loading_ahead(on_status),
            should_stop=lambda: bool(asked),
            only=only,
            detach=detach,
        )
    if outcome.detached:
        say_how_to_follow(study.sweep_directory(arms[0]))
        return
    say_outcome(outcome)
    if any(seen.status == "done" for seen in outcome.status.runs):
        fit_and_draw(study.sweep_directory(arms[0]), arms[0])
    if outcome.gave_up or outcome.status.n_failed:
        raise typer.Exit(EXIT_FAILED)


@app.command("check-hparams")
def check_hparams(overrides: Overrides = None, config_dir: ConfigDir = None, as_json: AsJson = False) -> None:
    """Measure what the learning rate and the batch leave on the table at the grid's corners."""
    from sweep.study import run as study

    arms = arms_of(overrides, config_dir)
    with stop_flag() as asked, progress() as (on_data, on_status):
        outcome = study.run(
            *arms,
            on_progress=on_data,
            on_status=on_status,
            should_stop=lambda: bool(asked),
            check_hparams=True,
        )
    say_outcome(outcome)
    from sweep.report.hparams import document
    from sweep.report.text.hparams import hparam_text
    from sweep.study import laws as analysis

    checks = [study.hparam_check(arm) for arm in arms]
    sweep_dir = study.sweep_directory(arms[0])
    reports = analysis.measure_hparams(checks, sweep_dir, study.hparam_directory(arms[0]))
    if as_json:
        print_json(document(reports))
    for measured in reports:
        console().print(hparam_text(measured))
    if outcome.gave_up or outcome.status.n_failed:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def worker(directory: Directory) -> None:
    """Join a sweep from any process that sees its directory."""
    from sweep.launch.local import MEMORY_VARIABLES

    command = [sys.executable, "-P", "-m", "sweep.worker", str(directory)]
    os.execve(sys.executable, command, MEMORY_VARIABLES | os.environ)


@app.command()
def status(
    arguments: Arguments = None,
    config_dir: ConfigDir = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="again every two seconds, until all is done or drained")
    ] = False,
    as_json: AsJson = False,
    reindex: Annotated[
        bool, typer.Option("--reindex", help="first write points.csv, points.parquet and the SQL copy again")
    ] = False,
) -> None:
    """Show every run's state, attempts and reason, how fast work goes, and how much is left."""
    from sweep.report.hparam_summary import known_of
    from sweep.store.run_store import RunStore

    if watch and as_json:
        raise InputError("--watch and --json are both given: a document is printed once")
    store = RunStore(directory_of(arguments, config_dir))
    if reindex:
        from sweep.study import upkeep

        upkeep.reindex(store.sweep_dir)
    seen = store.status()
    if as_json:
        print_json({**seen.to_json(), "hyperparameters": known_of(store.sweep_dir, seen)})
        return
    from sweep.report.text.status import progress_line, status_text

    while watch and not seen.finished and not (seen.cancelled and "leased" not in seen.counts):
        say(progress_line(seen))
        time.sleep(2)
        seen = store.status()
    console().print(status_text(seen, known_of(store.sweep_dir, seen)))


@app.command()
def cancel(directory: Directory) -> None:
    """Have all workers of a sweep stop at their next step with their state saved."""
    from sweep.store.run_store import RunStore

    RunStore(directory).cancel()
    say(f"workers of {directory} stop at their next step; sweep run starts them again")


@app.command()
def exclude(
    directory: Directory,
    run_key: Annotated[str, typer.Argument(metavar="RUN_KEY")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="kept beside the point")],
) -> None:
    """Keep a run's point, but never fit it."""
    from sweep.study import upkeep

    problem = upkeep.exclude(directory, run_key, reason)
    say(f"{run_key} is excluded from fits: {reason}")
    if problem:
        say(problem)


@app.command()
def export(
    directory: Directory,
    run_key: Annotated[str, typer.Argument(metavar="RUN_KEY")],
    to: Annotated[Path, typer.Option("--to", metavar="OUT", help="a directory that is not there yet")],
) -> None:
    """Write a finished run's weights and tokenizer as a checkpoint that transformers loads."""
    from sweep.study import run as study

    study.check_extras()
    data_dir = study.data_directory(study.latest_experiment(directory))
    arguments = [str(directory), run_key, str(to), str(data_dir)]
    os.execv(sys.executable, [sys.executable, "-P", "-m", "sweep.train.export", *arguments])


for verb in (fit, predict, report):
    app.command()(verb)


@app.command()
def doctor(
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    packing: Annotated[
        bool,
        typer.Option("--packing", help="measure how many workers should share a device, and remember it"),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what this machine has, what is missing for the experiment, and how to get it."""
    from sweep.study import run as study

    if packing:
        measure_packing(arms_of(overrides, config_dir), as_json)
        return
    diagnosis = study.diagnose(first_arm_of(overrides, config_dir))
    if as_json:
        print_json(diagnosis.to_json())
    else:
        say(diagnosis.to_text())
    if not diagnosis.ok:
        raise typer.Exit(EXIT_FAILED)


app.add_typer(data_app, name="data")


@app.command()
def config(overrides: Overrides = None, config_dir: ConfigDir = None) -> None:
    """Print the resolved config as YAML."""
    from omegaconf import OmegaConf

    from sweep.config import to_dict

    print_document(OmegaConf.to_yaml(OmegaConf.create(to_dict(first_arm_of(overrides, config_dir)))))


def main() -> None:
    """Run the command line: our own errors and the system's become one sentence and their exit code.

    A wrong verb or option is typer's to explain, with exit code 2; whatever else escapes is our bug.
    """
    try:
        app()
    except BrokenPipeError:  # the reader of our document left
        sys.exit(EXIT_FAILED)
    except SystemExit as leaving:
        if leaving.code == EXIT_INTERRUPTED:  # typer's, after Ctrl-C
            say("interrupted: files that were finished stay, give the command again for the others")
        raise
    except Exception as error:
        told = told_to_user(error)
        if told is not None:
            say(f"error: {told}")
            sys.exit(told.exit_code)
        import traceback

        traceback.print_exception(error)
        say(f"this is a bug in sweep, please report it with the lines above: {type(error).__name__}: {error}")
        sys.exit(EXIT_BUG)
    finally:
        gc.freeze()  # Python would look through all that is loaded for garbage, a last time, before it leaves
