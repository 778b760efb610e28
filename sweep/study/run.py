"""Planning and running an experiment, as typed functions: the API of a notebook too.

experiment = compose_experiment(["experiment=demo"])
run(experiment)
fitted = fit_sweep(sweep_directory(experiment), experiment.fit)
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sweep.config import ExperimentConfig, absolute_index_url
from sweep.config.places import data_directory, hparam_directory, sweep_directory
from sweep.errors import Interrupted
from sweep.launch import sharing
from sweep.launch.base import Launcher, supervise_until_done
from sweep.launch.choose import check_launch, make_launcher
from sweep.launch.choose import detach as start_detached
from sweep.launch.spec import LaunchSpec
from sweep.machine.workers import worker_count
from sweep.records import Plan
from sweep.report.plans import known_hparams, plan_document, run_states
from sweep.store.run_store import RunStore
from sweep.store.sql.copy import catch_up, check_index
from sweep.store.status import SweepStatus
from sweep.study.checks import (
    check_arms,
    check_data,
    check_device,
    check_evaluation,
    check_extras,
    check_results,
    check_space,
)
from sweep.study.plan import (
    DataProgress,
    dataset,
    diagnose,
    hparam_check,
    latest_experiment,
    plan,
    plan_of_check,
    prepare_data,
)

__all__ = [
    "DataProgress",
    "RunOutcome",
    "check_extras",
    "check_space",
    "data_directory",
    "dataset",
    "diagnose",
    "hparam_check",
    "hparam_directory",
    "known_hparams",
    "latest_experiment",
    "launch_warnings",
    "plan",
    "plan_document",
    "prepare_data",
    "run",
    "run_states",
    "sweep_directory",
]

POLL_S = 0.5  # between two looks at a running sweep


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOutcome:
    """How `run` ended."""

    status: SweepStatus
    n_trained: int = 0  # runs that got their result while we watched
    was_finished: bool = False  # before we started
    interrupted: bool = False  # asked to stop, with work left
    gave_up: str | None = None  # why dead workers were not replaced any more
    index_problem: str | None = None  # why the SQL copy lacks points
    detached: bool = False  # workers go on without us


def run(
    *experiments: ExperimentConfig,
    on_progress: DataProgress | None = None,
    on_status: Callable[[SweepStatus], None] = lambda status: None,
    should_stop: Callable[[], bool] = lambda: False,
    only: Literal["failed"] | None = None,
    detach: bool = False,
    check_hparams: bool = False,
) -> RunOutcome:
    """Prepare the data, plan, and train what has no result yet. Safe to repeat, to kill and to run twice.

    Several experiments are the arms of one sweep: one queue, and where they are is told by the first.
    `check_hparams` trains the runs of `hparam_check` instead, in `hparam_directory`.

    `on_status` is called about twice a second; once `should_stop` is true the workers save and leave. `only`
    limits the training to the runs that were given up, of which there must be some. With `detach` it returns
    when the workers are started, and they go on without this process.
    Raises InputError or SafetyError before anything is trained.
    """
    arms = [_absolute(experiment) for experiment in experiments]
    experiment = arms[0]
    draw, where = (plan_of_check, hparam_directory) if check_hparams else (plan, sweep_directory)
    store = RunStore(where(experiment))
    asked = [draw(arm) for arm in arms]
    if not check_hparams:  # where the arms' checks meet, one run serves both
        check_arms(asked)
    _refuse(asked, store)

    def watched(stage: str, n_bytes_done: int, n_bytes: int) -> None:
        if should_stop():
            raise Interrupted("stopped while data was prepared; what is done is kept")
        if on_progress is not None:
            on_progress(stage, n_bytes_done, n_bytes)

    prepared = [prepare_data(arm, watched) for arm in arms]
    drawn = [draw(arm) for arm in arms]  # anew: with the sizes of the data
    for arm_plan, data in zip(drawn, prepared, strict=True):
        check_data(arm_plan, data)
    check_results(store, experiment)
    retry_group = None if only is None else secrets.token_hex(8)
    _pardon(store, retry_group)  # before the plan, whose change has live workers look again
    for arm_plan in drawn:
        store.add_plan(arm_plan)
    store.clear_cancel()
    before = store.status()
    if before.finished:
        problem = catch_up(store, experiment.store, experiment.name)
        return RunOutcome(status=before, was_finished=True, index_problem=problem)
    spec = LaunchSpec(
        sweep_dir=str(store.sweep_dir.absolute()),
        device=experiment.trainer.device,
        needs=tuple(sorted({str(data.directory.absolute()) for data in prepared})),
        n_devices=experiment.trainer.n_devices,
        packing=worker_count(drawn).packing,
        retry_group=retry_group,
    )
    if detach:
        start_detached(experiment.launch, spec)
        return RunOutcome(status=before, detached=True)
    launcher = make_launcher(experiment.launch, spec)
    gave_up = _watch(launcher, RunStore(store.sweep_dir, retry_group=retry_group), on_status, should_stop)
    status = store.status()
    return RunOutcome(
        status=status,
        n_trained=_n_results(status) - _n_results(before),
        interrupted=not status.finished and (should_stop() or status.cancelled),
        gave_up=gave_up,
        index_problem=catch_up(store, experiment.store, experiment.name),
    )


def _refuse(asked: Sequence[Plan], store: RunStore) -> None:
    """Raises InputError or SafetyError for all that can be told before anything is written."""
    experiment = asked[0].experiment
    check_extras()
    check_index(experiment.store)
    check_device(experiment)
    for arm_plan in asked:
        check_evaluation(arm_plan.experiment)
    if not all(store.has_result(run.run_key) for arm_plan in asked for run in arm_plan.runs):
        check_launch(experiment.launch)
    check_space(asked)


def _watch(
    launcher: Launcher,
    store: RunStore,
    on_status: Callable[[SweepStatus], None],
    should_stop: Callable[[], bool],
) -> str | None:
    """See the workers through. Returns why they were given up, or None."""

    def look() -> float:
        looked = time.monotonic()
        on_status(store.status())
        return max(POLL_S, 5 * (time.monotonic() - looked))  # thousands of runs are read more rarely

    return supervise_until_done(launcher, should_stop=should_stop, look=look).gave_up


def launch_warnings(experiment: ExperimentConfig) -> list[str]:
    """What may keep workers elsewhere from seeing the sweep, a sentence each; none for launch=local."""
    if experiment.launch.name == "local":
        return []
    places = [("results_dir", sweep_directory(experiment)), ("data_dir", data_directory(experiment))]
    return sharing.warnings(places)


def _absolute(experiment: ExperimentConfig) -> ExperimentConfig:
    """Workers read the plan from anywhere: the user's data directory and database become absolute.

    So does the default data directory for workers on other machines, whose users' caches may lie elsewhere.
    """
    url = experiment.store.index_url
    if experiment.data_dir is not None or experiment.launch.name != "local":
        data_dir = str(data_directory(experiment).expanduser().absolute())
        experiment = replace(experiment, data_dir=data_dir)
    if url is not None:
        experiment = replace(experiment, store=replace(experiment.store, index_url=absolute_index_url(url)))
    return experiment


def _pardon(store: RunStore, pardon: str | None) -> None:
    """Whoever starts a sweep again wants its failed runs tried again.

    Another process may be writing the sweep's first plan at this moment: then there is nothing to pardon yet.
    """
    if not store.has_plan():
        return
    for seen in store.failed():
        store.retry(seen.run_key, pardon)


def _n_results(status: SweepStatus) -> int:
    return sum(count for state, count in status.counts.items() if state in ("done", "diverged"))
