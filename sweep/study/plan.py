"""Data set, runs and hyperparameter check of an experiment, and the diagnosis of this machine for it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.config import AnyTokenizerConfig, ExperimentConfig
from sweep.config.limits import MAX_ARM_CHARS
from sweep.config.places import data_directory, sweep_directory
from sweep.data.batches import check_held_out
from sweep.data.corpus import Corpus
from sweep.data.overlap import Overlap, measure_overlap
from sweep.data.registry import as_set, scan
from sweep.data.shards import PreparedData, find_manifest, open_prepared, prepare, prepare_set
from sweep.data.sources.hub import is_path
from sweep.data.tokenizers.tokenizers import check_tokenizer, tokenizer_sha256, vocab_size
from sweep.errors import DataError, InputError, SweepError
from sweep.launch.choose import check_launch
from sweep.machine.devices import cores
from sweep.plan.devices import with_precision
from sweep.plan.grid import heldout_warnings, make_plan
from sweep.plan.hparam_check import HparamCheck, plan_check
from sweep.plan.speed import with_speed
from sweep.records import Dataset, Plan
from sweep.report.numbers import format4
from sweep.store.families import differences, family_of, stored_family
from sweep.store.run_store import RunStore
from sweep.store.sql.copy import index_packages
from sweep.study.checks import check_fit_methods, check_parallel, tracking_packages
from sweep.study.speed import device_of, machine_speed, measured, speed_remedy

if TYPE_CHECKING:  # slow to import, and a plan does not need it
    from sweep.machine.doctor import Diagnosis

DataProgress = Callable[[str, int, int], None]
"""Called with the stage, the bytes done and the total bytes while data is prepared."""


def latest_experiment(sweep_dir: Path) -> ExperimentConfig:
    """Return the experiment planned last in a sweep. Raises InputError when there is no plan."""
    return RunStore(sweep_dir).latest_experiment()


def arm_experiment(store: RunStore, arm: str | None) -> ExperimentConfig:
    """Return the experiment of an arm. Raises InputError for an unknown one."""
    experiments = {experiment.arm: experiment for experiment in store.arm_experiments()}
    if arm in experiments:
        return experiments[arm]
    names = ", ".join(str(name) for name in experiments if name is not None)
    if arm is None:
        raise InputError(f"{store.sweep_dir} has arms: choose one with --arm NAME, from {names}")
    raise InputError(f"unknown arm {arm}: " + (f"choose from {names}" if names else "the sweep has no arms"))


def dataset(experiment: ExperimentConfig) -> Dataset:
    """Return the experiment's corpus and tokenizer, with the corpus size once it is prepared.

    Writes only its cache of the corpus' files, in `data_directory`. Raises DataError when there is no corpus
    to read, or the tokenizer cannot be used.
    """
    return _dataset(experiment, _corpus(experiment))


def _corpus(experiment: ExperimentConfig) -> Corpus:
    check_tokenizer(experiment.tokenizer)
    return scan(experiment.data, data_directory(experiment))


def _dataset(experiment: ExperimentConfig, corpus: Corpus) -> Dataset:
    _check_text(experiment.tokenizer, corpus)
    recipe = tokenizer_sha256(experiment.tokenizer, corpus.sha256)
    manifest = find_manifest(data_directory(experiment), corpus.sha256, recipe)
    splits = None if manifest is None else (manifest.train, manifest.heldout)
    return Dataset(
        corpus=corpus.name,
        corpus_sha256=corpus.sha256,
        n_copies=None if corpus.n_documents is None else corpus.n_copies,
        n_blank=None if corpus.n_documents is None else corpus.n_blank,
        tokenizer=experiment.tokenizer.name,
        tokenizer_sha256=recipe,
        vocab_size=vocab_size(experiment.tokenizer),
        sets=_sets(experiment),
        n_train_tokens=splits[0].n_tokens if splits else None,
        n_documents=sum(split.n_documents for split in splits) if splits else corpus.n_documents,
        n_documents_held_out=splits[1].n_documents if splits else corpus.n_documents_held_out,
        n_tokens_held_out=splits[1].n_tokens if splits else None,
        bytes_per_token=(
            sum(split.n_bytes for split in splits) / sum(split.n_tokens for split in splits)
            if splits
            else None
        ),
        parts=tuple(asdict(part) for part in manifest.parts) if manifest else (),
    )


def _dataset_of_runs(experiment: ExperimentConfig) -> Dataset:
    """Return `dataset`. Raises DataError as it does, and when less is held out than runs are scored on.

    The number of held-out tokens is known once the data is prepared; before, it is bounded by the bytes and
    documents, because each token but the separator and a space added in front of a text is at least a byte.
    """
    corpus = _corpus(experiment)
    found = _dataset(experiment, corpus)
    evaluation, seq_len = experiment.evaluation, experiment.model.seq_len
    if found.n_tokens_held_out is not None:
        check_held_out(evaluation.n_tokens, seq_len, found.n_tokens_held_out)
    elif corpus.n_bytes_held_out is not None and corpus.n_documents_held_out is not None:
        most = corpus.n_bytes_held_out + 2 * corpus.n_documents_held_out
        check_held_out(evaluation.n_tokens, seq_len, most, is_bound=True)
    return found


def _sets(experiment: ExperimentConfig) -> dict[str, str]:
    """Return the hash of each evaluation set. Raises DataError for one that is empty or cannot be encoded."""
    found = {}
    for name, config in (experiment.evaluation.sets or {}).items():
        try:
            corpus = scan(as_set(config), data_directory(experiment))
            _check_text(experiment.tokenizer, corpus)
            _check_length(corpus, experiment.model.seq_len)
        except SweepError as error:
            raise type(error)(f"evaluation.sets.{name}: {error}") from None
        found[name] = corpus.sha256
    return found


def _check_length(corpus: Corpus, seq_len: int) -> None:
    """Raise DataError for a set shorter than a window; a token is at least one byte or a separator."""
    if corpus.n_bytes is not None and corpus.n_bytes + (corpus.n_documents or 0) <= seq_len:
        raise DataError(
            f"it has {corpus.n_bytes} bytes, one window at model.seq_len={seq_len} needs {seq_len + 1} "
            f"tokens: give it more text"
        )


def _check_text(tokenizer: AnyTokenizerConfig, corpus: Corpus) -> None:
    check_tokenizer(tokenizer, nul=corpus.nul, space_mark=corpus.space_mark, largest_byte=corpus.largest_byte)


def overlap_of(experiment: ExperimentConfig, prepared: Dataset) -> dict[str, Overlap]:
    """Return the overlap of held-out text and of each prepared evaluation set with the training text."""
    data_dir = data_directory(experiment)
    main = open_prepared(data_dir, prepared.corpus_sha256, prepared.tokenizer_sha256)
    found = {"heldout": measure_overlap(main.train, main.heldout)}
    for name, sha256 in prepared.sets.items():
        if find_manifest(data_dir, sha256, prepared.tokenizer_sha256) is not None:
            one = open_prepared(data_dir, sha256, prepared.tokenizer_sha256)
            found[name] = measure_overlap(main.train, one.heldout)
    return found


def prepare_data(experiment: ExperimentConfig, on_progress: DataProgress | None = None) -> PreparedData:
    """Tokenise the corpus and the evaluation sets into `data_directory` unless they are there.

    Raises DataError or InputError.
    """
    data_dir = data_directory(experiment)
    prepared = prepare(experiment.data, experiment.tokenizer, data_dir, on_progress=on_progress)
    for config in (experiment.evaluation.sets or {}).values():
        prepare_set(config, experiment.data, experiment.tokenizer, data_dir, on_progress=on_progress)
    return prepared


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
    plan = make_plan(experiment, _dataset_of_runs(experiment), device_of(experiment))
    check_parallel(plan)
    return with_speed(plan, machine_speed(experiment), device_of(experiment))


def as_arm(experiment: ExperimentConfig) -> ExperimentConfig:
    """Return the experiment as a further arm of the sweep of its name.

    The arm is named after the settings in which the experiment differs from the sweep's latest plan without
    an arm. Raises InputError where there is no such plan, it differs in nothing, or runs would be shared.
    """
    store = RunStore(sweep_directory(experiment))
    base = [plan for plan in store.plans() if plan.experiment.arm is None][-1:]
    if not base or experiment.arm is not None:
        reason = "it has arms: add the setting to arms" if base or store.has_plan() else "it has no run yet"
        raise InputError(f"--as-arm adds an arm to the plain runs of {store.sweep_dir}, and {reason}")
    plan = plan_experiment(experiment)
    found = differences(stored_family(store, base[0]), family_of(experiment, plan.runs[0].config))
    if not found:
        raise InputError(f"--as-arm needs a setting other than those of {store.sweep_dir}: leave it out")
    name = ",".join(f"{one.key.removeprefix('content of ')}={one.given}" for one in found)
    if len(name) > MAX_ARM_CHARS:
        name = f"{name[: MAX_ARM_CHARS - 9]}~{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    arm = replace(experiment, arm=name)
    plain = {entry.run_key for entry in base[0].entries}
    shared = [run.config.name for run in plan.runs if run.run_key in plain]
    if shared:
        raise InputError(
            f"{name} changes nothing in {len(shared)} of {len(plan.runs)} runs, such as {shared[0]}, which "
            f"one arm alone can hold: give the experiment a name= of its own"
        )
    return arm


def hparam_check(experiment: ExperimentConfig) -> HparamCheck:
    """Return the corners of the grid and the runs that check learning rate and batch size there.

    Writes only what `dataset` writes. Raises InputError when no run can be trained.
    """
    return plan_check(experiment, _dataset_of_runs(experiment), device_of(experiment))


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
        raise InputError(
            f"no other setting can be trained at the grid's corners ({reasons}): change the settings in "
            f"hparam_check, or the grid"
        )
    plan = replace(plan, runs=runs)
    check_parallel(plan)
    return with_speed(plan, machine_speed(experiment), device_of(experiment))


def diagnose(
    experiment: ExperimentConfig, on_notice: Callable[[str], None] = lambda sentence: None
) -> Diagnosis:
    """Return what this machine has and lacks for an experiment.

    Measures the machine's speed where it is not known, after a sentence to `on_notice`. Writes only that, and
    what a plan writes.
    """
    from sweep.machine.doctor import Needs, examine

    memory_bytes, refusal, launch_refusal, speed = 0, None, None, None
    precision = with_precision(experiment, device_of(experiment)).precision
    try:
        check_launch(experiment.launch)
    except SweepError as error:
        launch_refusal = str(error)
    try:
        (plan,) = measured([plan_experiment(experiment)], on_notice)
        memory_bytes = max(run.memory_bytes for run in plan.runs)
        speed = None if machine_speed(experiment) is None else _speed_sentence(plan)
    except SweepError as error:
        refusal = str(error)
    packages = ["torch", "safetensors"]
    packages += ["tokenizers"] if experiment.tokenizer.name != "byte" else []
    data = experiment.data
    packages += ["datasets"] if data.source == "huggingface" and not is_path(data.dataset) else []
    packages += [*index_packages(experiment.store), *tracking_packages(experiment)]
    needs = Needs(
        results_dir=sweep_directory(experiment),
        data_dir=data_directory(experiment),
        device=experiment.trainer.device,
        precision="fp32" if precision == "auto" else precision,
        packages=tuple(packages),
        memory_bytes=memory_bytes,
        refusal=refusal,
        speed=speed,
        speed_remedy=speed_remedy(experiment),
        launch=experiment.launch.name,
        launch_refusal=launch_refusal,
    )
    return examine(needs, len(cores()))


def _speed_sentence(plan: Plan) -> str:
    """Return the speed of one worker on the smallest and the largest step of a plan."""
    runs = sorted(plan.runs, key=lambda run: run.flops / run.config.n_steps)
    low, high = (run.flops / run.time_s for run in (runs[0], runs[-1]))
    smallest, largest = (format4(float(f"{speed:.2g}")) for speed in (low, high))
    return f"{smallest} FLOP/s by one worker on the smallest steps, {largest} on the largest"
