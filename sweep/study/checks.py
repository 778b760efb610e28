"""Checks of an experiment before anything is written or trained."""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import psutil

from sweep.config import ExperimentConfig
from sweep.config.places import data_directory, sweep_directory
from sweep.data.batches import TrainBatches, evaluation_windows, set_windows
from sweep.data.shards import PreparedData, open_prepared
from sweep.errors import DataError, InputError, SafetyError
from sweep.machine.devices import gpus, unusable_gpus
from sweep.machine.workers import worker_count
from sweep.plan.devices import check_devices
from sweep.plan.estimate import disk_bytes
from sweep.records import Plan
from sweep.shell import path_argument
from sweep.store.families import Difference, family_of, nearest, shown
from sweep.store.files import check_free_space, check_writable
from sweep.store.run_store import RunStore

LOCAL_FILESYSTEMS = frozenset(
    "apfs bcachefs btrfs exfat ext2 ext3 ext4 f2fs hfs jfs ntfs ntfs3 overlay ramfs reiserfs squashfs tmpfs "
    "ufs vfat xfs zfs".split()
)
"""File systems of a single machine, which it may still export to others under the same path."""


def check_extras() -> None:
    """Raise InputError when a library that only training needs is not installed."""
    missing = [name for name in ("torch", "safetensors") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"training needs {' and '.join(missing)}: pip install 'sweep[train]'")


def check_tracking(experiment: ExperimentConfig) -> None:
    """Raise InputError when the library of the tracking service is not installed."""
    for name in tracking_packages(experiment):
        if importlib.util.find_spec(name) is None:
            raise InputError(
                f"tracking={experiment.tracking.name} needs the package {name}: pip install 'sweep[{name}]', "
                f"or set tracking=none"
            )


def tracking_packages(experiment: ExperimentConfig) -> list[str]:
    """Return the packages that the tracking of an experiment needs."""
    return [] if experiment.tracking.name == "none" else [experiment.tracking.name]


def check_fit_methods(experiment: ExperimentConfig) -> None:
    """Raise InputError when the experiment names an unknown fit method."""
    if experiment.fit.methods is not None:
        from sweep.fit import method_names  # numpy and all methods: a plan needs them for this check only

        method_names(experiment.fit)


def check_parallel(plan: Plan) -> None:
    """Raise InputError when a run of the plan cannot be trained on `trainer.n_devices` devices."""
    trainer = plan.experiment.trainer
    for run in plan.runs:
        check_devices(run.config, trainer.n_devices, trainer.parallel)


def check_corpus_size(plan: Plan, prepared: PreparedData) -> None:
    """Raise DataError when the corpus is too small for a batch or for the plan's held-out windows."""
    for config in {run.config.model.seq_len: run.config for run in plan.runs}.values():
        evaluation_windows(prepared.heldout, config.model.seq_len, config.evaluation)
        for one in config.evaluation.sets:
            data = open_prepared(prepared.directory.parents[1], one.corpus_sha256, config.tokenizer_sha256)
            try:
                set_windows(data.heldout, config.model.seq_len, config.evaluation)
            except DataError as error:
                raise DataError(f"evaluation.sets.{one.name}: {error}") from None
    largest = max(plan.runs, key=lambda run: run.config.batch_tokens).config
    TrainBatches(prepared.train, largest.model.seq_len, largest.batch_size, largest.seed)


def check_arms(plans: Sequence[Plan]) -> None:
    """Raise InputError when two arms have a run in common: their difference changes no result."""
    owner: dict[str, str | None] = {}
    for plan in plans:
        arm = plan.experiment.arm
        for run_key in {run.run_key for run in plan.runs}:
            if owner.setdefault(run_key, arm) != arm:
                raise InputError(
                    f"arms {owner[run_key]} and {arm} are the same runs: choose keys that change a result"
                )


def check_family(store: RunStore, plan: Plan, *, has_as_arm: bool = True) -> None:
    """Raise SafetyError when the sweep holds this arm's runs with other settings and none with these.

    Settings of sizes, budgets, seeds and execution may differ. Runs of two families would be fitted as one.
    `has_as_arm` is false for a verb without the option --as-arm.
    """
    stored = [old for old in store.plans() if old.experiment.arm == plan.experiment.arm]
    found = nearest(store, family_of(plan.experiment, plan.runs[0].config), stored)
    if found is None or not found[1]:
        return
    differing = found[1]
    directory = path_argument(store.sweep_dir)
    n_runs = len({entry.run_key for old in stored for entry in old.entries})
    hashes = " ".join(f"--plan {old.hash[:8]}" for old in stored)
    as_arm = "" if plan.experiment.arm or not has_as_arm else "add --as-arm to fit them side by side, "
    raise SafetyError(
        f"{store.sweep_dir} holds {n_runs} run{'s' if n_runs > 1 else ''} with {shown(differing, 'stored')}, "
        f"this plan has {shown(differing, 'given')}, and nothing was trained: "
        f"give it a name of its own, such as name={_free_name(plan.experiment, differing)}, {as_arm}"
        f"or first replace the old runs with sweep exclude {directory} {hashes} --reason TEXT"
    )


def _free_name(experiment: ExperimentConfig, differing: Sequence[Difference]) -> str:
    """Return a name of a sweep that does not exist yet, from the first setting that differs."""
    key = differing[0].key.rpartition(".")[2]
    initials = "".join(word[0] for word in re.split(r"[ _]", key))
    value = re.sub(r"[^A-Za-z0-9.+-]", "", differing[0].given.removeprefix("sha256:"))[:12]
    base = f"{experiment.name[:80]}_{initials}{value}".rstrip(".")
    names = itertools.chain([base], (f"{base}_{number}" for number in itertools.count(2)))
    return next(name for name in names if not sweep_directory(experiment).with_name(name).exists())


def check_space(plans: Sequence[Plan], store: RunStore) -> None:
    """Raise InputError for a read-only disk, SafetyError for one too small for the runs without a result."""
    experiment = plans[0].experiment
    left = [run.config for plan in plans for run in plan.runs if not store.has_result(run.run_key)]
    keep = experiment.trainer.keep_checkpoint
    if left:
        _check_writes(experiment, lambda: check_writable(store.sweep_dir))
        needed = disk_bytes(left, worker_count(plans).n_workers, keep_checkpoint=keep)
        check_free_space(store.sweep_dir, needed)


def check_device(experiment: ExperimentConfig) -> None:
    """Raise InputError when local workers are to use a GPU and this machine has none."""
    if experiment.launch.name == "local" and experiment.trainer.device == "cuda" and not gpus():
        reason = unusable_gpus() or "this machine shows no NVIDIA GPU"
        raise InputError(f"trainer.device=cuda, and {reason}: choose trainer.device=cpu, or see sweep doctor")


def check_results_path(experiment: ExperimentConfig) -> None:
    """Raise InputError where a file or a dangling link stands in the way of the sweep's directory."""
    directory = sweep_directory(experiment)
    first = next((path for path in (directory, *directory.parents) if os.path.lexists(path)), Path())
    if not first.is_dir():
        raise InputError(
            f"results_dir={experiment.results_dir} cannot be used, {first} is no directory: choose another"
        )


def check_results(store: RunStore, experiment: ExperimentConfig) -> None:
    """Raise SafetyError for a file system that cannot hold a sweep, InputError for one that is read-only."""
    _check_writes(experiment, store.check_filesystem)


def _check_writes(experiment: ExperimentConfig, check: Callable[[], None]) -> None:
    try:
        check()
    except OSError as error:
        raise InputError(
            f"results_dir={experiment.results_dir} cannot be written ({error.strerror}): choose another"
        ) from None


def launch_warnings(experiment: ExperimentConfig) -> list[str]:
    """Return a sentence for unused GPUs, and for each directory that other machines may not see."""
    if experiment.launch.name == "local":
        unusable = unusable_gpus() if experiment.trainer.device == "auto" else None
        return [] if unusable is None else [f"{unusable}: runs train on the CPU; see sweep doctor"]
    return sharing_warnings(
        [("results_dir", sweep_directory(experiment)), ("data_dir", data_directory(experiment))]
    )


def sharing_warnings(paths: Iterable[tuple[str, Path]]) -> list[str]:
    """Return a sentence for each path, given with its config key, on a file system of one machine."""
    types = [(key, path, filesystem_type(path)) for key, path in paths]
    return [
        f"{key}={path} is on {kind}, which other machines usually cannot see: workers on a machine that does "
        f"not see it refuse to start"
        for key, path, kind in types
        if kind in LOCAL_FILESYSTEMS
    ]


def filesystem_type(path: Path) -> str | None:
    """Return the type of the file system that holds `path`, existing or not; None where it is unknown."""
    types = {part.mountpoint: part.fstype for part in psutil.disk_partitions(all=True)}
    resolved = path.absolute().resolve()
    return next((types[str(above)] for above in (resolved, *resolved.parents) if str(above) in types), None)
