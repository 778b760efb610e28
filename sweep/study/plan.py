"""What an experiment asks for: its data set and its runs, and whether this machine can carry them out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.config import ExperimentConfig
from sweep.config.places import data_directory, sweep_directory
from sweep.data.registry import scan
from sweep.data.shards import PreparedData, find_manifest, prepare
from sweep.data.tokenizers.tokenizers import tokenizer_sha256, vocab_size
from sweep.errors import InputError, SweepError
from sweep.launch.choose import check_launch
from sweep.machine.devices import cores
from sweep.plan.grid import make_plan
from sweep.plan.hparam_check import HparamCheck, plan_check
from sweep.records import Dataset, Plan
from sweep.store.run_store import RunStore
from sweep.store.sql.copy import index_packages
from sweep.study.checks import check_fit_methods, check_spread

if TYPE_CHECKING:  # a plan needs none of it
    from sweep.machine.doctor import Diagnosis

DataProgress = Callable[[str, int, int], None]
"""Told the stage, the bytes done and the bytes in all while data is prepared."""


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
    check_fit_methods(experiment)
    drawn = make_plan(experiment, dataset(experiment))
    check_spread(drawn)
    return drawn


def hparam_check(experiment: ExperimentConfig) -> HparamCheck:
    """The corners of the experiment's grid and the runs that check its learning rate and batch there.

    Writes as little as `dataset`. Raises InputError when none can be trained.
    """
    return plan_check(experiment, dataset(experiment))


def plan_of_check(experiment: ExperimentConfig) -> Plan:
    """The runs of the check that the experiment's own sweep does not have.

    The rule's own setting at a corner is a run of the grid, by its key, for the seeds that they share: it is
    trained once and stays a point of the grid. Raises InputError as `plan`.
    """
    drawn = hparam_check(experiment).plan
    grid = RunStore(sweep_directory(experiment))
    runs = tuple(run for run in drawn.runs if not grid.has_result(run.run_key))
    if not runs:
        reasons = "; ".join(f"{cell.name}: {cell.reason}" for cell in drawn.dropped[:3])
        raise InputError(f"no other setting can be trained at the grid's corners ({reasons})")
    chosen = replace(drawn, runs=runs)
    check_spread(chosen)
    return chosen


def diagnose(experiment: ExperimentConfig) -> Diagnosis:
    """What this machine has and lacks for an experiment. Leaves nothing behind but what a plan does."""
    from sweep.machine.doctor import Needs, examine

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
