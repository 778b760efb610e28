"""A compiled step in a fresh process: `python -m tests.train.compiled_step OPTIMIZER`."""

import copy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from sweep.records import Placement
from sweep.train.cuda import CudaStep
from sweep.train.models.gpt import GPT
from sweep.train.step import TrainingStep
from tests.configs import tiny_run


def compiled_step(optimizer: str) -> tuple[float, bool]:
    """Return the loss of the first compiled step on the CPU, and whether it is still compiled."""
    torch.cuda.synchronize = lambda device=None: None
    momentum = None if optimizer == "adamw" else 0.9
    run = tiny_run(optimizer=replace(tiny_run().optimizer, name=optimizer, momentum=momentum))
    model = GPT(run.model)
    model.initialise(torch.Generator().manual_seed(0))
    placement = Placement(
        data_dir=Path(), device="cpu", n_threads=1, micro_batch_size=None, checkpoint_interval_s=1e9
    )
    data = np.random.default_rng(0).integers(0, run.model.vocab_size, (run.batch_size, run.model.seq_len + 1))
    rows = lambda number, start, stop: data[start:stop]  # noqa: E731
    eager = float(TrainingStep(copy.deepcopy(model), run, placement, rows)(0))
    step = TrainingStep(model, run, placement, rows)
    step._cuda = CudaStep(model, run, torch.device("cpu"), step.choices)
    step.choices["graph"] = False
    loss = float(step(0))
    assert abs(loss - eager) < 1e-4, (loss, eager)
    return loss, bool(step.choices["compile"])


if __name__ == "__main__":
    assert compiled_step(sys.argv[1])[1]
