"""First CUDA calls of a worker and of a compiled model, checked without a GPU."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch._inductor.exc

from sweep.records import Placement
from sweep.train.cuda import CudaStep, run_block
from sweep.train.loop import train
from sweep.train.models.cross_entropy import fusible_chunk_loss
from sweep.train.models.gpt import GPT
from sweep.train.optim.optimizers import OPTIMIZERS
from sweep.train.step import TrainingStep
from tests.configs import tiny_run
from tests.train.sessions import Session, placement, run_on

DATA = np.random.default_rng(0).integers(0, tiny_run().model.vocab_size, (8, tiny_run().model.seq_len + 1))


class Stop(Exception):
    pass


def test_cuda_is_initialised_before_memory_statistics_are_reset(corpus, tmp_path, monkeypatch):
    calls = []

    def reset(device):
        calls.append("reset_peak_memory_stats")
        raise Stop

    monkeypatch.setattr(torch.cuda, "init", lambda: calls.append("init"))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: calls.append("set_device"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("empty_cache"))
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda wanted: None)
    with pytest.raises(Stop):
        train(run_on(corpus), placement(corpus, device="cuda:0"), Session(tmp_path))
    assert calls == ["init", "set_device", "empty_cache", "reset_peak_memory_stats"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.ci if name == "adamw" else pytest.mark.long)
        for name in OPTIMIZERS
    ],
)
def test_compiling_works_in_a_fresh_process(name):
    """AdamW does not import torch._dynamo, so the configuration of the compiler must.

    Each optimizer is built and used before the first compiled step, as in a worker.
    """
    subprocess.run([sys.executable, "-m", "tests.train.compiled_step", name], check=True)


@pytest.mark.parametrize(("d_model", "compiles"), [(16, True), (18, False)])
def test_weights_at_unaligned_addresses_are_not_compiled(d_model, compiles):
    """The compiler checks the addresses of one layer's weights, and all layers share its code."""
    model = replace(tiny_run().model, d_model=d_model, n_heads=1, n_kv_heads=1, bias=True)
    run = tiny_run(model=model)
    place = Placement(
        data_dir=Path(), device="cpu", n_threads=1, micro_batch_size=None, checkpoint_interval_s=1e9
    )
    step = TrainingStep(GPT(run.model), run, place, lambda number, start, stop: DATA[start:stop])
    CudaStep(step.model, run, torch.device("cpu"), step.choices)
    assert step.choices["compile"] is compiles


@pytest.mark.parametrize("fails_in", ["forward", "backward"])
def test_a_failed_compilation_is_reported_and_training_continues(tmp_path, monkeypatch, fails_in):
    run = tiny_run(batch_tokens=DATA.shape[0] * tiny_run().model.seq_len)

    def step(**choices):
        model = GPT(run.model)
        model.initialise(torch.Generator().manual_seed(0))
        place = Placement(
            data_dir=tmp_path, device="cpu", n_threads=1, micro_batch_size=None, checkpoint_interval_s=1e9
        )
        made = TrainingStep(model, run, place, lambda number, start, stop: DATA[start:stop])
        made._cuda = CudaStep(model, run, torch.device("cpu"), made.choices)
        made.choose({"graph": False, "compile": False} | choices)
        return made

    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            raise torch._inductor.exc.InductorError(RuntimeError("Failed to find C compiler"), None)

    def failing(block, x, rotary):
        if fails_in == "forward":
            raise torch._inductor.exc.InductorError(RuntimeError("Failed to find C compiler"), None)
        return Broken.apply(block(x, rotary))

    stand_ins = {run_block: failing, fusible_chunk_loss: fusible_chunk_loss}
    monkeypatch.setattr("sweep.train.cuda.compiled", stand_ins.__getitem__)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    plain, broken = step(), step(compile=True)
    with pytest.warns(RuntimeWarning, match="torch.compile failed, continuing without it: .*C compiler"):
        first = broken(0)
    assert broken.choices["compile"] is False
    assert [first, broken(1)] == [plain(0), plain(1)]
