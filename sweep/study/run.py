"""Training of a sweep: `run_experiment`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sweep.config import ExperimentConfig, absolute_index_url
from sweep.config.places import data_directory, hparam_directory, sweep_directory
from sweep.data.shards import PreparedData
from sweep.errors import Interrupted
from sweep.launch.base import Launcher, supervise_until_done
from sweep.launch.choose import check_launch, make_launcher
from sweep.launch.choose import detach as start_detached
from sweep.launch.spec import LaunchSpec
from sweep.machine.workers import worker_count
from sweep.records import Plan
from sweep.store.run_store import RunStore
from sweep.store.sql.copy import catch_up, check_index
from sweep.store.status import SweepStatus
from sweep.study.checks import (
    check_arms,
    check_corpus_size,
    check_device,
    check_extras,
    check_family,
    check_results,
    check_space,
    check_tracking,
)
from sweep.study.plan import DataProgress, plan_experiment, plan_hparam_check, prepare_data
from sweep.study.speed import learn
from sweep.tracking.decision import Decision, decide, describe, write_decision

POLL_S = 0.5  # between two reads of the status of a running sweep


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOutcome:
    """The end of a call of `run_experiment`."""

    status: SweepStatus
    n_trained: int = 0  # runs that got their result during the call
    was_finished: bool = False  # nothing was left to train
    interrupted: bool = False  # stopped on request, with work left
    gave_up: str | None = None  # why dead workers were not replaced any more
    index_problem: str | None = None  # why the SQL copy lacks points
    detached: bool = False  # workers go on in the background


def run_experiment(
    *experiments: ExperimentConfig,
    on_progress: DataProgress | None = None,
    on_status: Callable[[SweepStatus], None] = lambda status: None,
    on_notice: Callable[[str], None] = lambda sentence: None,
    should_stop: Callable[[], bool] = lambda: False,
    only: Literal["failed"] | None = None,
    detach: bool = False,
    check_hparams: bool = False,
) -> RunOutcome:
    """Prepare the data, plan, and train every run without a result. Safe to repeat, kill and run twice.

    Several experiments are the arms of one sweep: one queue, in the directory of the first. `check_hparams`
    trains the runs of `plan_hparam_check` instead, in `hparam_directory`. With `adaptive.enabled` runs are
    added and trained afterwards, a round at a time, as `sweep.study.adaptive.decide` chooses them.

    `on_notice` gets sentences about the tracking service, about added runs and about cells that are dropped
    once the size of the corpus is known. `on_status` is called about twice a second; once `should_stop`
    returns true the workers save their state and end. `only="failed"` limits the training to runs that were
    given up, at least one. With `detach` the call returns once the workers are started; they go on in the
    background.

    Raises InputError or SafetyError before anything is trained.
    """
    plan_arm, directory_of = (
        (plan_hparam_check, hparam_directory) if check_hparams else (plan_experiment, sweep_directory)
    )

    def plan_all(arms: Sequence[ExperimentConfig]) -> list[Plan]:
        plans = [plan_arm(arm) for arm in arms]
        if not check_hparams:  # runs of a check may serve several arms, and are compared with each other only
            check_arms(plans)
        for plan in plans:
            check_family(RunStore(sweep_directory(experiments[0])), plan, has_as_arm=not check_hparams)
        return plans

    outcome = run_plans(
        experiments,
        plan_all,
        directory_of(experiments[0]),
        on_progress=on_progress,
        on_status=on_status,
        on_notice=on_notice,
        should_stop=should_stop,
        only=only,
        detach=detach,
    )
    if check_hparams or only is not None or not experiments[0].adaptive.enabled:
        return outcome
    if detach:
        on_notice("adaptive.enabled=true adds runs when this command is repeated without --detach")
        return outcome
    return _add_runs(
        [_absolute(experiment) for experiment in experiments],
        directory_of(experiments[0]),
        outcome,
        on_status=on_status,
        on_notice=on_notice,
        should_stop=should_stop,
    )


def _add_runs(
    arms: Sequence[ExperimentConfig],
    sweep_dir: Path,
    outcome: RunOutcome,
    *,
    on_status: Callable[[SweepStatus], None],
    on_notice: Callable[[str], None],
    should_stop: Callable[[], bool],
) -> RunOutcome:
    """Add and train runs until every arm has reached its goal or spent its allowance.

    A round is written as plans before it is trained, and follows from the points and plans on disk: after a
    kill its unfinished runs are trained with the plans of the sweep, and then count as points.
    """
    from sweep.study.adaptive import decide  # scipy is slow to import, and other sweeps do not need it

    n_trained = outcome.n_trained
    while outcome.status.finished and not outcome.status.n_failed and not should_stop():
        decisions = [decide(sweep_dir, arm) for arm in arms]
        for arm, decision in zip(arms, decisions, strict=True):
            on_notice(f"{decision.reason}{'' if arm.arm is None else f' (arm {arm.arm})'}")
        plans = [plan for decision in decisions for plan in decision.plans]
        if not plans:
            break
        outcome = run_suggested(
            plans, sweep_dir, on_status=on_status, on_notice=on_notice, should_stop=should_stop
        )
        n_trained += outcome.n_trained
    return replace(outcome, n_trained=n_trained, was_finished=outcome.was_finished and not n_trained)


def run_suggested(
    plans: Sequence[Plan],
    sweep_dir: Path,
    *,
    on_progress: DataProgress | None = None,
    on_status: Callable[[SweepStatus], None] = lambda status: None,
    on_notice: Callable[[str], None] = lambda sentence: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> RunOutcome:
    """Add the plans of a suggestion to the sweep in `sweep_dir` and train every run without a result.

    Raises InputError or SafetyError before anything is trained.
    """

    def plan_all(arms: Sequence[ExperimentConfig]) -> list[Plan]:
        for plan in plans:
            check_family(RunStore(sweep_dir), plan)
        return list(plans)

    return run_plans(
        [plan.experiment for plan in plans],
        plan_all,
        sweep_dir,
        on_progress=on_progress,
        on_status=on_status,
        on_notice=on_notice,
        should_stop=should_stop,
    )


def run_plans(
    experiments: Sequence[ExperimentConfig],
    plan_all: Callable[[Sequence[ExperimentConfig]], Sequence[Plan]],
    sweep_dir: Path,
    *,
    on_progress: DataProgress | None = None,
    on_status: Callable[[SweepStatus], None] = lambda status: None,
    on_notice: Callable[[str], None] = lambda sentence: None,
    should_stop: Callable[[], bool] = lambda: False,
    before_training: Callable[[Sequence[Plan]], None] = lambda plans: None,
    only: Literal["failed"] | None = None,
    detach: bool = False,
) -> RunOutcome:
    """Add the plans of some experiments to the sweep in `sweep_dir` and train every run without a result.

    `plan_all` is called twice: before the data is prepared, to check the plans, and once its size is known.
    `before_training` is called with the final plans before anything of them is written; an exception from it
    ends the call. The other parameters are those of `run_experiment`.

    Raises InputError or SafetyError before anything is trained.
    """
    arms = [_absolute(experiment) for experiment in experiments]
    experiment = arms[0]
    store = RunStore(sweep_dir)
    plans = plan_all(arms)
    _check(plans, store)
    tracking = _tracking_of(plans, store)

    def on_data(stage: str, n_bytes_done: int, n_bytes: int) -> None:
        if should_stop():
            raise Interrupted("stopped while data was prepared; finished files are kept")
        if on_progress is not None:
            on_progress(stage, n_bytes_done, n_bytes)

    prepared = [prepare_data(arm, on_data) for arm in arms]
    known = {cell.name for plan in plans for cell in plan.dropped}
    plans = plan_all(arms)  # again, now that the size of the data is known
    for cell in (cell for plan in plans for cell in plan.dropped if cell.name not in known):
        on_notice(f"dropped {cell.name}: {cell.reason}")
    for plan, data in zip(plans, prepared, strict=True):
        check_corpus_size(plan, data)
    check_results(store, experiment)
    before_training(plans)
    retry_group = None if only is None else secrets.token_hex(8)
    _retry_failed(store, retry_group)  # before the plan is written: running workers look again after it
    for plan in plans:
        store.add_plan(plan)
    store.clear_cancel()
    before = store.status()
    if before.finished:
        problem = catch_up(store, experiment.store, experiment.name)
        return RunOutcome(status=before, was_finished=True, index_problem=problem)
    if (tracking := tracking or _tracking_of(plans, store)) is not None:
        write_decision(store.sweep_dir, tracking)
        on_notice(describe(store.sweep_dir, tracking))
    spec = _launch_spec(store, plans, prepared, retry_group)
    if detach:
        start_detached(experiment.launch, spec)
        return RunOutcome(status=before, detached=True)
    launcher = make_launcher(experiment.launch, spec)
    retried = RunStore(store.sweep_dir, retry_group=retry_group)
    gave_up = _supervise(launcher, retried, _n_started(plans), on_status, should_stop)
    status = store.status()
    learn(plans, store, _finished(status) - _finished(before))
    return RunOutcome(
        status=status,
        n_trained=_n_results(status) - _n_results(before),
        interrupted=not status.finished and (should_stop() or status.cancelled),
        gave_up=gave_up,
        index_problem=catch_up(store, experiment.store, experiment.name),
    )


def _launch_spec(
    store: RunStore, plans: Sequence[Plan], prepared: Sequence[PreparedData], retry_group: str | None
) -> LaunchSpec:
    trainer = plans[0].experiment.trainer
    return LaunchSpec(
        sweep_dir=str(store.sweep_dir.absolute()),
        device=trainer.device,
        needs=tuple(sorted({str(data.directory.absolute()) for data in prepared})),
        n_devices=trainer.n_devices,
        packing=worker_count(plans).packing,
        retry_group=retry_group,
    )


def _check(plans: Sequence[Plan], store: RunStore) -> None:
    """Raise InputError or SafetyError for every problem that shows before anything is written."""
    experiment = plans[0].experiment
    check_extras()
    check_tracking(experiment)
    check_index(experiment.store)
    check_device(experiment)
    if not all(store.has_result(run.run_key) for plan in plans for run in plan.runs):
        check_launch(experiment.launch)
    check_space(plans, store)


def _tracking_of(plans: Sequence[Plan], store: RunStore) -> Decision | None:
    """Decide once for all workers whether the runs are sent to the tracking service; None without tracking.

    Raises InputError where its library cannot record.
    """
    config = plans[0].experiment.tracking
    if config.name == "none" or all(store.has_result(run.run_key) for plan in plans for run in plan.runs):
        return None
    return decide(config)


def _n_started(plans: Sequence[Plan]) -> int:
    """Return how many workers alone are as fast as those of a local launch; 0 where a cluster decides."""
    return max(1, int(worker_count(plans).speed)) if plans[0].experiment.launch.name == "local" else 0


def _supervise(
    launcher: Launcher,
    store: RunStore,
    n_workers: int,
    on_status: Callable[[SweepStatus], None],
    should_stop: Callable[[], bool],
) -> str | None:
    """Run the workers to their end. Returns why dead ones were not replaced any more, or None."""

    def look() -> float:
        started = time.monotonic()
        on_status(replace(store.status(), n_workers=n_workers))
        return max(POLL_S, 5 * (time.monotonic() - started))  # less often where the status takes long

    return supervise_until_done(launcher, should_stop=should_stop, look=look).gave_up


def _absolute(experiment: ExperimentConfig) -> ExperimentConfig:
    """Return the experiment with absolute paths, so that workers can read the plan from any directory.

    The default data directory becomes explicit for workers on other machines: their user's cache may be
    elsewhere.
    """
    url = experiment.store.index_url
    if experiment.data_dir is not None or experiment.launch.name != "local":
        data_dir = str(data_directory(experiment).absolute())
        experiment = replace(experiment, data_dir=data_dir)
    if url is not None:
        experiment = replace(experiment, store=replace(experiment.store, index_url=absolute_index_url(url)))
    return experiment


def _retry_failed(store: RunStore, retry_group: str | None) -> None:
    """Have the failed runs tried again: starting a sweep again asks for that.

    Does nothing while another process is still writing the sweep's first plan.
    """
    if not store.has_plan():
        return
    for failed in store.failed():
        store.retry(failed.run_key, retry_group)


def _finished(status: SweepStatus) -> set[str]:
    """Return the keys of the runs with a result."""
    return {run.run_key for run in status.runs if run.status in ("done", "diverged")}


def _n_results(status: SweepStatus) -> int:
    return sum(count for state, count in status.counts.items() if state in ("done", "diverged"))
