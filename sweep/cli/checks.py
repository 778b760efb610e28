"""The verbs `validate` and `check-hparams`, which train further runs to check a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sweep.cli.arguments import (
    AsJson,
    ConfigDir,
    Overrides,
    SweepDirectory,
    arms_of,
    budget_or_multiple,
    directory_of,
    is_budget,
    require_experiment,
    split_arguments,
)
from sweep.cli.training import catch_stop_signals, refit, say_outcome
from sweep.errors import EXIT_FAILED, InputError
from sweep.report.text.terminal import print_json, print_text, progress, say
from sweep.shell import path_argument


def validate(
    directory: SweepDirectory = None,
    flops: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FLOPS…",
            help="Budgets in training FLOPs, or multiples of the largest planned one, as 4x; all are "
            "registered before any is trained.",
        ),
    ] = None,
    arm: Annotated[
        str | None, typer.Option("--arm", metavar="NAME", help="Arm of the sweep to validate.")
    ] = None,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
) -> None:
    """Test a prediction: register it, train it, and compare.

    The answer at a larger budget is written before training and never changed. Its run and the sizes on
    either side then become part of the sweep. The command can be repeated and interrupted.
    """
    from sweep.report.text.validation import validation_text
    from sweep.study import validate as study

    sweep_dir, budgets = _sweep_and_budgets(directory, flops, config_dir)
    with catch_stop_signals() as caught, progress() as (on_data, on_status):
        outcomes = study.validate_all(
            sweep_dir,
            budgets,
            arm=arm,
            on_progress=on_data,
            on_status=on_status,
            should_stop=lambda: bool(caught),
        )
    say_outcome(outcomes[0].run)
    for outcome in outcomes:
        if outcome.validation is None:
            at, n_runs = f"{outcome.registration.flops:g} FLOPs", len(outcome.registration.runs)
            say(f"the validation at {at} is not finished: repeat the command ({n_runs} runs in all)")
    finished = [outcome.validation for outcome in outcomes if outcome.validation is not None]
    if len(finished) < len(outcomes):
        raise typer.Exit(EXIT_FAILED)
    if outcomes[0].run.n_trained:
        refit(sweep_dir)
    if as_json:
        place = path_argument(sweep_dir)
        following = {"next": [f"sweep fit {place}", f"sweep report {place}"]}
        documents = [validation.to_json() | following for validation in finished]
        print_json(documents if len(documents) > 1 else documents[0])
    else:
        for validation in finished:
            print_text(validation_text(validation))


def _sweep_and_budgets(
    first: str | None, others: list[str] | None, config_dir: Path | None
) -> tuple[Path, list[float]]:
    """Return the sweep, given as a directory or by its experiment, and the budgets in FLOPs."""
    from sweep.study.validate import largest_planned_budget

    words, overrides = split_arguments(first, others)
    is_place = bool(words) and (Path(words[0]).is_dir() or not is_budget(words[0]))
    place = words.pop(0) if is_place else None
    if not words:
        raise InputError("give the directory of a sweep and a budget, as in sweep validate results/demo 1e21")
    sweep_dir = directory_of(place, overrides, config_dir)
    return sweep_dir, [budget_or_multiple(word, lambda: largest_planned_budget(sweep_dir)) for word in words]


def check_hparams(overrides: Overrides = None, config_dir: ConfigDir = None, as_json: AsJson = False) -> None:
    """Measure the loss due to learning rate and batch size.

    Trains half and twice the learning rate and the batch size at the corners of the grid.
    """
    from sweep.config.places import hparam_directory, sweep_directory
    from sweep.report.hparams import document
    from sweep.report.text.hparams import hparam_text
    from sweep.study.laws import measure_hparams
    from sweep.study.plan import hparam_check
    from sweep.study.run import run_experiment

    require_experiment("check-hparams", overrides, config_dir)
    arms = arms_of(overrides, config_dir)
    with catch_stop_signals() as caught, progress() as (on_data, on_status):
        outcome = run_experiment(
            *arms,
            on_progress=on_data,
            on_status=on_status,
            on_notice=say,
            should_stop=lambda: bool(caught),
            check_hparams=True,
        )
    say_outcome(outcome)
    checks = [hparam_check(arm) for arm in arms]
    reports = measure_hparams(checks, sweep_directory(arms[0]), hparam_directory(arms[0]))
    if as_json:
        place = path_argument(sweep_directory(arms[0]))
        print_json(document(reports) | {"next": [f"sweep fit {place}"]})
    else:
        for measured in reports:
            print_text(hparam_text(measured))
    if outcome.gave_up or outcome.status.n_failed:
        raise typer.Exit(EXIT_FAILED)
