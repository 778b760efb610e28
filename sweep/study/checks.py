"""What is refused of an experiment before anything of it is written or trained."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from sweep.config import ExperimentConfig
from sweep.config.places import data_directory, sweep_directory
from sweep.data.batches import TrainBatches, evaluation_windows
from sweep.data.registry import scan
from sweep.data.shards import PreparedData
from sweep.errors import DataError, InputError
from sweep.machine.devices import gpus
from sweep.machine.workers import worker_count
from sweep.plan.devices import check_devices
from sweep.plan.estimate import disk_bytes
from sweep.records import Plan
from sweep.store.files import check_free_space
from sweep.store.run_store import RunStore


def check_extras() -> None:
    """Raises InputError when a library that only training needs is not installed."""
    missing = [name for name in ("torch", "safetensors") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"training needs {' and '.join(missing)}: pip install 'sweep[train]'")


def check_spread(drawn: Plan) -> None:
    """Raises InputError when a run of the plan cannot be spread over as many devices as asked for."""
    trainer = drawn.experiment.trainer
    for run in drawn.runs:
        check_devices(run.config, trainer.n_devices, trainer.parallel)


def check_data(drawn: Plan, prepared: PreparedData) -> None:
    """Raises DataError when the corpus is too small for a batch or for the held-out windows of the plan."""
    for config in {run.config.model.seq_len: run.config for run in drawn.runs}.values():
        evaluation_windows(prepared.heldout, config.model.seq_len, config.evaluation.n_tokens)
    largest = max(drawn.runs, key=lambda run: run.config.batch_tokens).config
    TrainBatches(prepared.train, largest.model.seq_len, largest.batch_size, largest.seed)


def check_arms(drawn: Sequence[Plan]) -> None:
    """Raises InputError when two arms ask for the same run: their difference changes no result."""
    owner: dict[str, str | None] = {}
    for arm_plan in drawn:
        arm = arm_plan.experiment.arm
        for run_key in {run.run_key for run in arm_plan.runs}:
            if owner.setdefault(run_key, arm) != arm:
                raise InputError(
                    f"arms {owner[run_key]} and {arm} are the same runs: choose keys that change a result"
                )


def check_evaluation(experiment: ExperimentConfig) -> None:
    """Raises DataError when more is to be scored than is held out: a token stands for a byte at least."""
    corpus = scan(experiment.data, data_directory(experiment))
    if corpus.n_bytes_held_out is None or corpus.n_documents is None:
        return  # not known before the text is read
    most = corpus.n_bytes_held_out + corpus.n_documents
    if experiment.evaluation.n_tokens > most:
        raise DataError(
            f"evaluation.n_tokens={experiment.evaluation.n_tokens:,} is more than the {most:,} tokens that "
            f"could be held out: lower it, or raise data.holdout_frac"
        )


def check_space(drawn: Sequence[Plan]) -> None:
    """Raises SafetyError when the runs that have no result yet may not fit where the sweep lies."""
    experiment = drawn[0].experiment
    store = RunStore(sweep_directory(experiment))
    left = [run.config for arm in drawn for run in arm.runs if not store.has_result(run.run_key)]
    keep = experiment.trainer.keep_checkpoint
    if left:
        needed = disk_bytes(left, worker_count(drawn).n_workers, keep_checkpoint=keep)
        check_free_space(store.sweep_dir, needed)


def check_device(experiment: ExperimentConfig) -> None:
    """Raises InputError when workers of this machine are to use a GPU and there is none."""
    if experiment.launch.name == "local" and experiment.trainer.device == "cuda" and not gpus():
        raise InputError("trainer.device=cuda, and this machine shows no GPU: choose trainer.device=cpu")


def check_results(store: RunStore, experiment: ExperimentConfig) -> None:
    """Raises SafetyError on a file system that cannot hold a sweep, InputError when it cannot be written."""
    try:
        store.check_filesystem()
    except OSError as error:
        raise InputError(
            f"results_dir={experiment.results_dir} cannot be written ({error.strerror}): choose another"
        ) from None
