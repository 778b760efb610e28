"""Planning and running an experiment, as typed functions: the API of a notebook too.

experiment = compose_experiment(["experiment=demo"])
run(experiment)
fitted = fit_sweep(sweep_directory(experiment), experiment.fit)
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sweep.config import ExperimentConfig, absolute_index_url
from sweep.data.shards import PreparedData, find_manifest, prepare
from sweep.data.sources import scan
from sweep.data.tokenizers import tokenizer_sha256, vocab_size
from sweep.errors import InputError, Interrupted, SweepError
from sweep.launch import sharing
from sweep.launch.base import Launcher
from sweep.launch.choose import check_launch, make_launcher
from sweep.launch.choose import detach as start_detached
from sweep.launch.crew import crew
from sweep.launch.devices import cores
from sweep.launch.supervisor import Orders
from sweep.launch.watch import see_through
from sweep.places import data_directory, hparam_directory, sweep_directory
from sweep.plan.grid import make_plan
from sweep.plan.hparam_check import HparamCheck, plan_check
from sweep.preflight import (
    check_arms,
    check_data,
    check_device,
    check_evaluation,
    check_extras,
    check_results,
    check_space,
    check_spread,
)
from sweep.records import Dataset, Plan
from sweep.report.plans import known_hparams, plan_document, run_states
from sweep.store.index_writer import catch_up, check_index, index_packages
from sweep.store.run_store import RunStore
from sweep.store.status import SweepStatus

if TYPE_CHECKING:  # a plan needs none of it
    from sweep.doctor import Diagnosis

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

DataProgress = Callable[[str, int, int], None]
"""Told the stage, the bytes done and the bytes in all while data is prepared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOutcome:
    """How `run` ended."""

    status: SweepStatus
    n_trained: int  # runs that got their result while we watched
    was_finished: bool  # before we started
    interrupted: bool  # asked to stop, with work left
    gave_up: str | None  # why dead workers were not replaced any more
    index_problem: str | None = None  # why the SQL copy lacks points
    detached: bool = False  # workers go on without us


def latest_experiment(sweep_dir: Path) -> ExperimentConfig:
    """The experiment planned last in a sweep. Raises InputError when there is no plan."""
    return RunStore(sweep_dir).latest_experiment()


def dataset(experiment: ExperimentConfig) -> Dataset:
    """Which corpus and tokenizer the experiment means; its size too once it is prepared.

    Writes nothing but what it remembers of the corpus' files, in `data_directory`. Raises DataError when
    there is no corpus to read.
    """
    corpus = scan(experiment.data, data_directory(experiment))
    recipe = tokenizer_sha256(experiment.tokenizer, corpus.sha256)
    manifest = find_manifest(data_directory(experiment), corpus.sha256, recipe)
    return Dataset(
        corpus=corpus.name,
        corpus_sha256=corpus.sha256,
        tokenizer=experiment.tokenizer.name,
        tokenizer_sha256=recipe,
        vocab_size=vocab_size(experiment.tokenizer),
        n_train_tokens=None if manifest is None else manifest.train.n_tokens,
    )


def prepare_data(experiment: ExperimentConfig, on_progress: DataProgress | None = None) -> PreparedData:
    """Tokenise the corpus into `data_directory`, once. Raises DataError or InputError in one sentence."""
    return prepare(experiment.data, experiment.tokenizer, data_directory(experiment), on_progress=on_progress)


def plan(experiment: ExperimentConfig) -> Plan:
    """The runs an experiment asks for. Writes as little as `dataset`.

    Raises InputError when none can be trained, or one not on as many devices as asked for.
    """
    drawn = make_plan(experiment, dataset(experiment))
    check_spread(drawn)
    return drawn


def hparam_check(experiment: ExperimentConfig) -> HparamCheck:
    """The corners of the experiment's grid and the runs that check its learning rate and batch there.

    Writes as little as `dataset`. Raises InputError when none can be trained.
    """
    return plan_check(experiment, dataset(experiment))


def _plan_check(experiment: ExperimentConfig) -> Plan:
    """The runs of the check that the experiment's own sweep does not have.

    The rule's own setting at a corner is a run of the grid, by its key, for the seeds that they share: it is
    trained once and stays a point of the grid.
    """
    drawn = hparam_check(experiment).plan
    grid = RunStore(sweep_directory(experiment))
    runs = tuple(run for run in drawn.runs if not grid.has_result(run.run_key))
    if not runs:
        reasons = "; ".join(f"{cell.name}: {cell.reason}" for cell in drawn.dropped[:3])
        raise InputError(f"no other setting can be trained at the grid's corners ({reasons})")
    return replace(drawn, runs=runs)


def diagnose(experiment: ExperimentConfig) -> Diagnosis:
    """What this machine has and lacks for an experiment. Leaves nothing behind but what a plan does."""
    from sweep.doctor import Needs, examine

    memory_bytes, refusal, launch_refusal = 0, None, None
    try:
        check_launch(experiment.launch)
    except SweepError as error:
        launch_refusal = str(error)
    try:
        memory_bytes = max(run.memory_bytes for run in plan(experiment).runs)
    except SweepError as error:
        refusal = str(error)
    packages = ["torch", "safetensors"]
    packages += ["tokenizers"] if experiment.tokenizer.name != "byte" else []
    packages += ["datasets"] if experiment.data.source == "huggingface" else []
    packages += index_packages(experiment.store)
    needs = Needs(
        results_dir=sweep_directory(experiment),
        data_dir=data_directory(experiment),
        device=experiment.trainer.device,
        precision=experiment.precision,
        packages=tuple(packages),
        memory_bytes=memory_bytes,
        refusal=refusal,
        launch=experiment.launch.name,
        launch_refusal=launch_refusal,
    )
    return examine(needs, len(cores()))


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
    draw = _plan_check if check_hparams else plan
    asked = [draw(arm) for arm in arms]  # a bad experiment is refused before anything is written
    if not check_hparams:  # where the arms' checks meet, one run serves both
        check_arms(asked)
    for arm_plan in asked:
        check_spread(arm_plan)
    check_extras()
    check_index(experiment.store)
    check_device(experiment)
    for arm in arms:
        check_evaluation(arm)
    where = hparam_directory if check_hparams else sweep_directory
    store = RunStore(where(experiment))
    if not all(store.has_result(run.run_key) for arm_plan in asked for run in arm_plan.runs):
        check_launch(experiment.launch)
    check_space(asked)

    def watched(stage: str, n_bytes_done: int, n_bytes: int) -> None:
        if should_stop():
            raise Interrupted("stopped while data was prepared; what is done is kept")
        if on_progress is not None:
            on_progress(stage, n_bytes_done, n_bytes)

    prepared = [prepare_data(arm, watched) for arm in arms]
    drawn = [draw(arm) for arm in arms]
    for arm_plan, data in zip(drawn, prepared, strict=True):
        check_data(arm_plan, data)
    check_results(store, experiment)
    pardon = None if only is None else secrets.token_hex(8)
    _pardon(store, pardon)  # before the plan, whose change has live workers look again
    for arm_plan in drawn:
        store.add_plan(arm_plan)
    store.clear_cancel()
    before = store.status()
    if before.finished:
        return RunOutcome(
            status=before,
            n_trained=0,
            was_finished=True,
            interrupted=False,
            gave_up=None,
            index_problem=catch_up(store, experiment.store, experiment.name),
        )
    orders = Orders(
        sweep_dir=str(store.sweep_dir.absolute()),
        device=experiment.trainer.device,
        needs=tuple(sorted({str(data.directory.absolute()) for data in prepared})),
        n_devices=experiment.trainer.n_devices,
        packing=crew(drawn).packing,
        pardon=pardon,
    )
    if detach:
        start_detached(experiment.launch, orders)
        return RunOutcome(
            status=before, n_trained=0, was_finished=False, interrupted=False, gave_up=None, detached=True
        )
    launcher = make_launcher(experiment.launch, orders)
    gave_up = _watch(launcher, RunStore(store.sweep_dir, pardon=pardon), on_status, should_stop)
    status = store.status()
    return RunOutcome(
        index_problem=catch_up(store, experiment.store, experiment.name),
        status=status,
        n_trained=_n_results(status) - _n_results(before),
        was_finished=False,
        interrupted=not status.finished and (should_stop() or status.cancelled),
        gave_up=gave_up,
    )


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

    return see_through(launcher, should_stop=should_stop, look=look).gave_up


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
