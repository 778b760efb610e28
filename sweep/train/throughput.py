"""Training throughput of one process, measured on request: `python -m sweep.train.throughput`.

Protocol, one line each: read a task as JSON, write "ready" once the model is warm; then, until the input
ends, read a number of seconds and of threads, and write the steps done in that time as JSON. The caller
starts several such processes once and lets some of them train at the same time.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray

from sweep.config import RunConfig, read_run
from sweep.records import Placement
from sweep.train.device import initialise_device
from sweep.train.models.gpt import GPT
from sweep.train.step import TrainingStep

WARM_STEPS = 5  # include compilation, graph capture and the allocator's first requests
IN_A_ROW = 20  # steps queued before the clock is read, since training waits for the device at records only


def measure(task: dict[str, Any], lines: IO[str], out: IO[str]) -> None:
    """Serve one task: {"run": .., "device": .., "micro_batch_size": .., "compile": ..}."""
    run = read_run(task["run"])
    initialise_device(torch.device(task["device"]), deterministic=False)
    torch.set_num_threads(1)
    take_step = training_step(run, task)
    for step in range(WARM_STEPS):
        take_step(step % run.n_steps)
    _wait(take_step.device)
    _write_line(out, "ready")
    for line in lines:
        seconds, n_threads = line.split()
        torch.set_num_threads(int(n_threads))
        _write_line(out, json.dumps(_train_for(float(seconds), take_step)))


def _train_for(seconds: float, take_step: TrainingStep) -> dict[str, float]:
    in_a_row = IN_A_ROW if take_step.device.type == "cuda" else 1
    n_steps, started = 0, time.monotonic()
    while (taken_s := time.monotonic() - started) < seconds:
        for _ in range(in_a_row):
            take_step(n_steps % take_step.run.n_steps)
            n_steps += 1
        _wait(take_step.device)
    return {"n_steps": n_steps, "seconds": taken_s}


def training_step(run: RunConfig, task: dict[str, Any]) -> TrainingStep:
    """Return a run's training step on random tokens."""
    placement = Placement(
        data_dir=Path(),
        device=task["device"],
        n_threads=1,
        micro_batch_size=task["micro_batch_size"],
        checkpoint_interval_s=1e9,
        compile=task["compile"],
    )
    model = GPT(run.model)
    model.initialise(torch.Generator().manual_seed(0))
    tokens = np.random.default_rng(0).integers(
        run.model.vocab_size, size=(run.batch_size, run.model.seq_len + 1), dtype=np.int64
    )

    def rows(step: int, start: int, stop: int) -> NDArray[np.int64]:
        return tokens[start:stop]

    return TrainingStep(model.to(placement.device), run, placement, rows)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _write_line(out: IO[str], line: str) -> None:
    out.write(line + "\n")
    out.flush()


if __name__ == "__main__":
    measure(json.loads(sys.stdin.readline()), sys.stdin, sys.stdout)
