"""Data set, runs and hyperparameter check of an experiment, and the diagnosis of this machine for it."""

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
from sweep.plan.grid import heldout_warnings, make_plan
from sweep.plan.hparam_check import HparamCheck, plan_check
from sweep.records import Dataset, Plan
from sweep.store.run_store import RunStore
from sweep.store.sql.copy import index_packages
from sweep.study.checks import check_fit_methods, check_parallel

if TYPE_CHECKING:  # slow to import, and a plan does not need it
    from sweep.machine.doctor import Diagnosis

DataProgress = Callable[[str, int, int], None]
"""Called with the stage, the bytes done and the total bytes while data is prepared."""


def latest_experiment(sweep_dir: Path) -> ExperimentConfig:
    """Return the experiment planned last in a sweep. Raises InputError when there is no plan."""
    return RunStore(sweep_dir).latest_experiment()


def dataset(experiment: ExperimentConfig) -> Dataset:
    """Return the experiment's corpus and tokenizer, with the corpus size once it is prepared.

    Writes only its cache of the corpus' files, in `data_directory`. Raises DataError when there is no corpus
    to read.
    """
    corpus = scan(experiment.data, data_directory(experiment))
    recipe = tokenizer_sha256(experiment.tokenizer, corpus.sha256)
    manifest = find_manifest(data_directory(experiment), corpus.sha256, recipe)
    splits = None if manifest is None else (manifest.train, manifest.heldout)
    return Dataset(
        corpus=corpus.name,
        corpus_sha256=corpus.sha256,
        tokenizer=experiment.tokenizer.name,
        tokenizer_sha256=recipe,
        vocab_size=vocab_size(experiment.tokenizer),
        n_train_tokens=splits[0].n_tokens if splits else None,
        n_documents=sum(split.n_documents for split in splits) if splits else corpus.n_documents,
        n_documents_held_out=splits[1].n_documents if splits else corpus.n_documents_held_out,
        n_tokens_held_out=splits[1].n_tokens if splits else None,
        bytes_per_token=(
            sum(split.n_bytes for split in splits) / sum(split.n_tokens for split in splits)
            if splits
            else None
        ),
    )


def prepare_data(experiment: ExperimentConfig, on_progress: DataProgress | None = None) -> PreparedData:
    """Tokenise the corpus into `data_directory` unless it is there. Raises DataError or InputError."""
    return prepare(experiment.data, experiment.tokenizer, data_directory(experiment), on_progress=on_progress)


def held_out_warnings(sweep_dir: Path) -> list[str]:
    """Return a warning if few documents are held out in a sweep whose prepared data is on this machine."""
    store = RunStore(sweep_dir)
    try:
        run = store.run_config(min(store.run_keys()))
        data_dir = data_directory(store.latest_experiment())
        manifest = find_manifest(data_dir, run.corpus_sha256, run.tokenizer_sha256)
    except (SweepError, ValueError):  # no run, or no readable plan or data: a fit needs neither
        return []
    return [] if manifest is None else heldout_warnings(manifest.heldout.n_documents)


def plan_experiment(experiment: ExperimentConfig) -> Plan:
    """Return the runs of an experiment. Writes only what `dataset` writes.

    Raises InputError when no run can be trained, or one of them not on `trainer.n_devices` devices.
    """
    check_fit_methods(experiment)
    plan = make_plan(experiment, dataset(experiment))
    check_parallel(plan)
    return plan


def hparam_check(experiment: ExperimentConfig) -> HparamCheck:
    """Return the corners of the grid and the runs that check learning rate and batch size there.

    Writes only what `dataset` writes. Raises InputError when no run can be trained.
    """
    return plan_check(experiment, dataset(experiment))


def plan_hparam_check(experiment: ExperimentConfig) -> Plan:
    """Return the runs of the hyperparameter check that have no result in the experiment's own sweep.

    A corner's run under the experiment's own rules has the key of a grid run: a grid point serves both.
    Raises InputError as `plan_experiment` does.
    """
    plan = hparam_check(experiment).plan
    grid = RunStore(sweep_directory(experiment))
    runs = tuple(run for run in plan.runs if not grid.has_result(run.run_key))
    if not runs:
        reasons = "; ".join(f"{cell.name}: {cell.reason}" for cell in plan.dropped[:3])
        raise InputError(f"no other setting can be trained at the grid's corners ({reasons})")
    plan = replace(plan, runs=runs)
    check_parallel(plan)
    return plan


def diagnose(experiment: ExperimentConfig) -> Diagnosis:
    """Return what this machine has and lacks for an experiment. Writes only what a plan writes."""
    from sweep.machine.doctor import Needs, examine

    memory_bytes, refusal, launch_refusal = 0, None, None
    try:
        check_launch(experiment.launch)
    except SweepError as error:
        launch_refusal = str(error)
    try:
        memory_bytes = max(run.memory_bytes for run in plan_experiment(experiment).runs)
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
