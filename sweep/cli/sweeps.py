"""The verbs `plan` and `run`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sweep.cli.arguments import (
    AsJson,
    ConfigDir,
    Overrides,
    Verbose,
    arms_of,
    require_experiment,
)
from sweep.cli.laws import show_fits
from sweep.cli.next_steps import after_fit, after_status
from sweep.cli.training import catch_stop_signals, say_outcome
from sweep.errors import EXIT_FAILED, InputError
from sweep.report.text.terminal import print_json, print_text, progress, say
from sweep.shell import path_argument

if TYPE_CHECKING:  # slow to import, and --help does not need them
    from sweep.config import ExperimentConfig
    from sweep.records import Plan
    from sweep.store.status import SweepStatus
    from sweep.study.afford import Kind, Limit, Resolution

PICTURES = ("answer", "isoflop_curves", "optima")  # in the order in which they are proposed

AsArm = Annotated[
    bool,
    typer.Option("--as-arm", help="Add the experiment to the sweep of its name as another arm."),
]
GpuHours = Annotated[
    float | None,
    typer.Option("--gpu-hours", metavar="H", help="Scale the budgets to take H hours of devices in all."),
]
Hours = Annotated[
    float | None,
    typer.Option("--hours", metavar="H", help="Scale the budgets to be finished in H hours here."),
]
Money = Annotated[
    float | None,
    typer.Option(
        "--money", metavar="M", help="Scale the budgets to cost M, at estimate.price_per_hour for a device."
    ),
]
Resolve = Annotated[
    float | None,
    typer.Option(
        "--resolve",
        metavar="NATS",
        help="Show how many seeds resolve this difference in loss of two settings.",
    ),
]
Detach = Annotated[
    bool, typer.Option("--detach", help="Return once the workers are started; they go on in the background.")
]
Only = Annotated[
    Literal["failed"] | None, typer.Option("--only", help="Train only the runs that failed for good.")
]


def plan(
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    as_arm: AsArm = False,
    gpu_hours: GpuHours = None,
    hours: Hours = None,
    money: Money = None,
    resolve: Resolve = None,
    as_json: AsJson = False,
) -> None:
    """Show the runs of an experiment and their cost.

    With --gpu-hours, --hours or --money, budgets are scaled to fit, and printed as settings for sweep run.
    Exits with 3, after the plan is shown, if the sweep of this name holds runs with other settings.
    """
    from sweep.config.places import sweep_directory
    from sweep.report.plans import plan_document, run_states
    from sweep.store.run_store import RunStore
    from sweep.study.checks import check_family, check_results_path
    from sweep.study.plan import plan_experiment
    from sweep.study.speed import measured

    arms, limit = _arms("plan", overrides, config_dir, as_arm), _limit(gpu_hours, hours, money)
    check_results_path(arms[0])
    if limit is None:
        chosen, plans = None, measured([plan_experiment(arm) for arm in arms], say)
    else:
        from sweep.study.afford import afford

        chosen = afford(arms, limit, say)
        plans = list(chosen.plans)
    resolved = None if resolve is None else _resolution(plans[0], resolve)
    states = {key: state for plan in plans for key, state in run_states(plan).items()}
    settings = [*(overrides or ()), *(chosen.overrides if chosen else ())]
    options = [*(["--config-dir", str(config_dir)] if config_dir else []), *(["--as-arm"] if as_arm else [])]
    following = shlex.join(["sweep", "run", *settings, *options])
    if "planned" not in states.values():
        following = f"sweep fit {path_argument(sweep_directory(arms[0]))}"
    if as_json:
        document = plan_document(plans, states)
        document |= {} if chosen is None else {"chosen": chosen.to_json()}
        document |= {} if resolved is None else {"resolve": resolved.to_json()}
        print_json(document | {"next": [following]})
    else:
        _print_plans(plans, states)
    for arm in plans:
        check_family(RunStore(sweep_directory(arm.experiment)), arm)
    if not as_json:
        if chosen is not None:
            print_text(f"chosen for {limit}, taking {chosen.used:.2g}: {' '.join(chosen.overrides)}")
        if resolved is not None:
            print_text(str(resolved))
        print_text(f"next: {following}")


def _print_plans(plans: Sequence[Plan], states: Mapping[str, str]) -> None:
    from sweep.machine.workers import worker_count
    from sweep.report.plans import known_hparams
    from sweep.report.text.plan import plan_text
    from sweep.study.speed import machine_speed

    workers, speed = worker_count(plans), machine_speed(plans[0].experiment)
    start_s = None if speed is None else speed.start_s
    for arm in plans:
        print_text(plan_text(arm, states, workers, known_hparams(arm), start_s))


def _resolution(plan: Plan, difference: float) -> Resolution:
    from sweep.study.afford import resolution

    return resolution(plan, difference)


def _limit(gpu_hours: float | None, hours: float | None, money: float | None) -> Limit | None:
    """Return the one limit that is given, None without any. Raises InputError for several."""
    from sweep.study.afford import Limit

    amounts: dict[Kind, float | None] = {"gpu_hours": gpu_hours, "hours": hours, "money": money}
    limits = [Limit(kind=kind, amount=amount) for kind, amount in amounts.items() if amount is not None]
    if len(limits) > 1:
        raise InputError("--gpu-hours, --hours and --money exclude each other: give one of them")
    return limits[0] if limits else None


def _arms(
    verb: str, overrides: Sequence[str] | None, config_dir: Path | None, as_arm: bool
) -> tuple[ExperimentConfig, ...]:
    """Return the arms of the composed experiment, with `as_arm` as a further arm of its sweep."""
    require_experiment(verb, overrides, config_dir)
    arms = arms_of(overrides, config_dir)
    if not as_arm:
        return arms
    from sweep.study import plan as study

    return tuple(study.as_arm(arm) for arm in arms)


def run(
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    only: Only = None,
    as_arm: AsArm = False,
    detach: Detach = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Train every run that has no result yet, then fit and draw.

    The command can be repeated, interrupted and run several times at once: finished runs are kept, and
    interrupted ones continue from their checkpoints.
    """
    from sweep.config.places import sweep_directory
    from sweep.store.run_store import RunStore
    from sweep.study.checks import launch_warnings
    from sweep.study.report import LivePage
    from sweep.study.run import run_experiment
    from sweep.study.upkeep import failed_runs

    arms = _arms("run", overrides, config_dir, as_arm)
    directory = sweep_directory(arms[0])
    if only is not None and not failed_runs(directory):
        say(f"no run of {directory} has failed: nothing to train")
        store = RunStore(directory)
        if as_json:
            print_json({"next": after_status(store, store.status()) if store.has_plan() else []})
        return
    for warning in launch_warnings(arms[0]):
        say(f"warning: {warning}")
    live = LivePage(directory, lambda problem: say(f"warning: {problem}"))

    def follow(status: SweepStatus) -> None:
        on_status(status)
        live.update(status)

    with catch_stop_signals() as caught, progress() as (on_data, on_status):
        outcome = run_experiment(
            *arms,
            on_progress=on_data,
            on_status=follow,
            on_notice=say,
            should_stop=lambda: bool(caught),
            only=only,
            detach=detach,
        )
    if outcome.detached and as_json:
        print_json({"detached": True, "next": [f"sweep status {path_argument(directory)} --json"]})
        return
    if outcome.detached:
        print_text(_how_to_follow(directory))
        return
    say_outcome(outcome)
    _say_offline_runs(directory)
    if any(seen.status == "done" for seen in outcome.status.runs):
        _fit_and_draw(directory, arms[0], as_json=as_json, verbose=verbose)
    elif as_json:
        print_json({"next": [f"sweep status {path_argument(directory)} --json"]})
    else:
        print_text(f"next: sweep status {path_argument(directory)}")
    if outcome.gave_up or outcome.status.n_failed:
        raise typer.Exit(EXIT_FAILED)


def _fit_and_draw(
    sweep_dir: Path, experiment: ExperimentConfig, *, as_json: bool = False, verbose: bool = False
) -> None:
    """Fit a sweep, write its laws, figures and report, and print the answer and what to open."""
    from sweep.study import laws
    from sweep.study.departures import departure_warnings
    from sweep.study.report import write_report

    for warning in departure_warnings(sweep_dir):
        say(f"warning: {warning}")
    fits = laws.fit_arms(sweep_dir, experiment.fit)
    closing: list[str] = []
    following = after_fit(sweep_dir, fits, experiment.fit)
    try:
        laws.write_fits(sweep_dir, fits)
        page, *figures = write_report(sweep_dir)
        pictures = best_picture([path for path in figures if path.suffix == ".png"])
        closing = [f"report: {page}", *(f"picture: {path}" for path in pictures)]
    finally:  # the laws are printed even where the disk is full
        show_fits(
            fits,
            experiment.fit,
            sweep_dir=sweep_dir,
            closing=closing,
            following=following,
            as_json=as_json,
            verbose=verbose,
        )


def best_picture(pictures: Sequence[Path]) -> list[Path]:
    """Return the picture to open first, as a list of one; empty without pictures."""
    by_name = {path.stem: path for path in reversed(pictures)}
    return [*(by_name[name] for name in PICTURES if name in by_name), *pictures][:1]


def _say_offline_runs(sweep_dir: Path) -> None:
    """Say which command sends the runs that wandb recorded offline."""
    offline = list((sweep_dir / "wandb").glob("offline-run-*"))
    if offline:
        pattern = f"{path_argument(sweep_dir / 'wandb')}/offline-run-*"
        say(f"{len(offline)} offline run{'s' if len(offline) > 1 else ''} of wandb: wandb sync {pattern}")


def _how_to_follow(sweep_dir: Path) -> str:
    """Return the commands that follow a detached sweep, ready to be copied."""
    directory = path_argument(sweep_dir)
    verbs = (
        (f"status {directory} --watch", "follow the workers"),
        (f"cancel {directory}", "have them save their state and end"),
        (f"fit {directory}", "fit the laws when they are done"),
    )
    lines = [f"  sweep {verb:<40}  {purpose}" for verb, purpose in verbs]
    return "\n".join(["the workers continue in the background", *lines])
