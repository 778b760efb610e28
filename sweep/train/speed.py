"""Seconds of optimizer steps of a few runs, measured on request: `python -m sweep.train.speed`.

Reads one line of JSON, {"runs": [..], "device": .., "micro_batch_size": .., "seconds": .., "began": ..}, and
writes one, {"start_s": .., "steps": [{"index": .., "n_tokens": .., "seconds": ..}, ..]}. On a CPU with one
thread seconds are processor time, which other programs of the machine do not lengthen.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from typing import Any

import torch

from sweep import flops
from sweep.config import RunConfig, read_run
from sweep.machine.environment import N_THREADS, count_of
from sweep.train.device import initialise_device
from sweep.train.step import without_garbage_collection
from sweep.train.throughput import training_step

MAX_STEP_FLOPS = {"cpu": 1.5e10, "cuda": 2e14}  # of a measured step: a larger batch is cut to it
N_WARM = 3
MIN_STEPS = 3


def measure(task: dict[str, Any], n_threads: int) -> dict[str, Any]:
    """Return the steps measured before the time is over, and the seconds that the process took to start."""
    device = torch.device(task["device"])
    initialise_device(device, deterministic=False)
    torch.set_num_threads(n_threads)
    is_cpu_time = device.type == "cpu" and n_threads == 1
    start_s = time.process_time() if is_cpu_time else time.time() - task["began"]
    deadline = time.monotonic() + task["seconds"]
    steps = []
    for index, document in enumerate(task["runs"]):
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            break
        run = _cut(read_run(document), device.type)
        seconds = _step_s(run, task, left_s / (len(task["runs"]) - index), is_cpu_time)
        steps.append({"index": index, "n_tokens": run.batch_tokens, "seconds": seconds})
    return {"start_s": start_s, "steps": steps}


def _cut(run: RunConfig, device: str) -> RunConfig:
    """Return the run with a batch of at most MAX_STEP_FLOPS."""
    sequence_flops = flops.flops_per_token(run.model) * run.model.seq_len
    n_sequences = max(1, min(run.batch_size, int(MAX_STEP_FLOPS[device] / sequence_flops)))
    n_tokens = n_sequences * run.model.seq_len
    return replace(run, batch_tokens=n_tokens, n_tokens=run.n_steps * n_tokens)


def _step_s(run: RunConfig, task: dict[str, Any], seconds: float, is_cpu_time: bool) -> float:
    """Return the seconds of a step, by all steps within about `seconds`, after the first few."""
    clock = time.process_time if is_cpu_time else time.monotonic
    take_step = training_step(run, {**task, "compile": False})
    deadline, n_steps, began = time.monotonic() + seconds, 0, 0.0
    with without_garbage_collection():
        while n_steps < N_WARM + MIN_STEPS or time.monotonic() < deadline:
            if n_steps == N_WARM:
                began = clock()
            take_step(n_steps % run.n_steps)
            if take_step.device.type == "cuda":
                torch.cuda.synchronize()
            n_steps += 1
    return (clock() - began) / (n_steps - N_WARM)


if __name__ == "__main__":
    import os

    print(json.dumps(measure(json.loads(sys.stdin.readline()), count_of(os.environ, N_THREADS) or 1)))
