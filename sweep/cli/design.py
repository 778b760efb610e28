"""The verb `suggest`."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from sweep.cli.arguments import (
    AsJson,
    ConfigDir,
    Overrides,
    SweepDirectory,
    budget_of,
    budget_or_multiple,
    directory_of,
)
from sweep.cli.training import catch_stop_signals, refit, say_outcome
from sweep.errors import EXIT_FAILED
from sweep.report.text.terminal import print_json, print_text, progress, say
from sweep.shell import path_argument

Target = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="FLOPS",
        help="Budget at which the answer should be known, in FLOPs or as a multiple of the largest planned "
        "one, such as 10x; by default 10 times --max-budget.",
    ),
]
Allowance = Annotated[
    str | None,
    typer.Option(
        "--flops-budget",
        metavar="FLOPS",
        help="FLOPs of all suggested runs; by default half of those of the sweep.",
    ),
]
MaxBudget = Annotated[
    str | None,
    typer.Option(
        "--max-budget",
        metavar="FLOPS",
        help="FLOPs of the largest suggested run; by default the largest planned budget.",
    ),
]
Arm = Annotated[str | None, typer.Option("--arm", metavar="NAME", help="Arm of the sweep.")]
Run = Annotated[bool, typer.Option("--run", help="Train the suggested runs, then fit.")]


def suggest(
    directory: SweepDirectory = None,
    overrides: Overrides = None,
    target: Target = None,
    flops_budget: Allowance = None,
    max_budget: MaxBudget = None,
    arm: Arm = None,
    run: Run = False,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
) -> None:
    """Suggest runs that narrow the answer at a target.

    Shows the interval now and the one expected after these runs. Only --run writes anything: the runs then
    become part of the sweep.
    """
    from sweep.report.numbers import format4
    from sweep.report.text.suggestion import suggestion_text
    from sweep.study import suggest as study
    from sweep.study.validate import largest_planned_budget

    sweep_dir = directory_of(directory, overrides, config_dir)
    found = study.suggest(
        sweep_dir,
        None if target is None else budget_or_multiple(target, lambda: largest_planned_budget(sweep_dir)),
        arm=arm,
        flops_budget=None if flops_budget is None else budget_of(flops_budget),
        max_budget=None if max_budget is None else budget_of(max_budget),
    )
    given = [path_argument(sweep_dir), f"--target {format4(found.target)}"]
    given += [f"--flops-budget {format4(found.allowance)}", f"--max-budget {format4(found.max_budget)}"]
    given += [] if arm is None else [f"--arm {shlex.quote(arm)}"]
    command = f"sweep suggest {' '.join(given)} --run"
    place = path_argument(sweep_dir)
    if as_json:
        following = f"sweep predict {place} {format4(found.target)}" if run else command
        print_json(found.to_json() | {"next": [following] if found.runs else []})
    else:
        print_text(suggestion_text(found, None if run else command))
    if not run or not found.plans:
        return
    from sweep.study.run import run_suggested

    with catch_stop_signals() as caught, progress() as (on_data, on_status):
        outcome = run_suggested(
            found.plans,
            sweep_dir,
            on_progress=on_data,
            on_status=on_status,
            on_notice=say,
            should_stop=lambda: bool(caught),
        )
    say_outcome(outcome)
    fits = refit(sweep_dir)
    if outcome.gave_up or outcome.status.n_failed:
        raise typer.Exit(EXIT_FAILED)
    following = f"sweep predict {place} {format4(found.target)}"
    if not fits[arm].has_answer:
        following = f"sweep fit {place}"
    say(f"the runs are points of the sweep now: {following}")
