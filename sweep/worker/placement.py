"""Placement of a run on this worker's device, and a check that its data is visible."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from sweep.config.places import data_directory
from sweep.data.shards import find_manifest
from sweep.errors import DataError, InputError
from sweep.machine.devices import gpus
from sweep.machine.environment import N_THREADS, count_of
from sweep.plan.estimate import compilation_pays
from sweep.records import Placement
from sweep.store.plans import PlanEntry
from sweep.store.run_store import RunStore


def placement(entry: PlanEntry) -> Placement:
    """Return the placement of a run: its latest plan's settings, overridden by the launcher's environment.

    A worker without a launcher takes the first visible GPU, or one thread of the CPU. Raises InputError for
    an invalid number of threads.
    """
    experiment, environ = entry.experiment, os.environ
    device = environ.get("SWEEP_DEVICE") or _device(experiment.trainer.device)
    data_dir = environ.get("SWEEP_DATA_DIR")
    return Placement(
        data_dir=Path(data_dir) if data_dir else data_directory(experiment),
        device=device,
        n_threads=count_of(environ, N_THREADS) or 1,
        micro_batch_size=experiment.trainer.micro_batch_size,
        checkpoint_interval_s=experiment.trainer.checkpoint_interval_s,
        keep_checkpoint=experiment.trainer.keep_checkpoint,
        measure_noise_scale=experiment.trainer.measure_noise_scale,
        deterministic=experiment.trainer.deterministic,
        n_devices=experiment.trainer.n_devices,
        parallel=experiment.trainer.parallel,
        compile=compilation_pays(entry.time_s),
    )


def _device(wanted: str) -> str:
    return "cuda:0" if wanted == "cuda" or (wanted == "auto" and gpus()) else "cpu"


def check_data_visible(store: RunStore) -> None:
    """Raise InputError if this machine does not see the prepared data, without which every run fails."""
    entry = store.entries()[0]
    try:
        run = store.run_config(entry.run_key)
    except DataError:
        return  # a damaged config fails this run alone
    data_dir = placement(entry).data_dir
    needed = (run.corpus_sha256, *(one.corpus_sha256 for one in run.evaluation.sets))
    if any(find_manifest(data_dir, sha256, run.tokenizer_sha256) is None for sha256 in needed):
        raise InputError(
            f"{data_dir} on {socket.gethostname()} has no prepared data of {run.corpus}: put it where all "
            f"machines with workers can read it, or set SWEEP_DATA_DIR to its path on this machine"
        )
