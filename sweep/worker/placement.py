"""Where a worker carries out a run, and whether the data for it is seen from there."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from sweep.config.places import data_directory
from sweep.data.shards import find_manifest
from sweep.errors import DataError, InputError
from sweep.machine.devices import gpus
from sweep.machine.environment import N_THREADS, count_of
from sweep.records import Placement
from sweep.store.plans import PlanEntry
from sweep.store.run_store import RunStore


def placement(entry: PlanEntry) -> Placement:
    """Where a run is carried out: what its latest plan says, overruled by what this worker's launcher says.

    By hand, a worker takes the first GPU it sees, else one thread of the CPU. Raises InputError for threads
    that are no number.
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
    )


def _device(wanted: str) -> str:
    return "cuda:0" if wanted == "cuda" or (wanted == "auto" and gpus()) else "cpu"


def check_data(store: RunStore) -> None:
    """Raises InputError where this machine does not see the prepared data: every run would fail for good."""
    entry = store.entries()[0]
    try:
        run = store.run_config(entry.run_key)
    except DataError:
        return  # this run's own trouble
    data_dir = placement(entry).data_dir
    if find_manifest(data_dir, run.corpus_sha256, run.tokenizer_sha256) is None:
        raise InputError(
            f"{data_dir} holds no prepared data of {run.corpus}, seen from {socket.gethostname()}: put it "
            f"where all machines with workers see it, or say where it lies here with SWEEP_DATA_DIR"
        )
