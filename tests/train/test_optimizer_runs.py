"""Runs under every optimizer and parametrisation learn, resume bit-identically and give a point."""

from dataclasses import replace

import pytest
import torch

from sweep import flops
from sweep.config import RunOptimizer
from sweep.errors import Interrupted
from sweep.store.points import Execution, assemble
from sweep.train.checkpoint import load_latest
from sweep.train.loop import train
from sweep.train.trainer import Trainer
from tests.train.sessions import Session, placement, run_on
from tests.train.test_loop import science

COMMON = {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1, "grad_clip": 1.0}
OPTIMIZERS = {
    "muon": RunOptimizer(name="muon", lr_peak=0.02, momentum=0.95, nesterov=True, **COMMON),
    "sgd": RunOptimizer(name="sgd", lr_peak=0.5, momentum=0.9, **COMMON | {"weight_decay": 0.0}),
    "sgd without momentum": RunOptimizer(name="sgd", lr_peak=1.0, **COMMON | {"weight_decay": 0.0}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_learns_and_resumes_to_the_bit(corpus, tmp_path, name):
    run = replace(run_on(corpus, n_tokens=256 * 30), optimizer=OPTIMIZERS[name])
    whole = train(run, placement(corpus), Session(tmp_path / "whole"))
    assert whole.loss < 4.5 < whole.curve[0].train_loss
    (tmp_path / "cut").mkdir()
    for stop in (1, 16):
        with pytest.raises(Interrupted):
            train(run, placement(corpus), Session(tmp_path / "cut", stop_after=stop))
    restored = Trainer(run, placement(corpus), corpus)
    checkpoint = load_latest(tmp_path / "cut")
    restored.restore(checkpoint)
    again = restored.state().tensors
    assert again.keys() == checkpoint.tensors.keys()
    assert all(torch.equal(again[key], checkpoint.tensors[key]) for key in again)
    assert science(train(run, placement(corpus), Session(tmp_path / "cut"))) == science(whole)


def test_the_point_says_what_was_run(corpus, tmp_path):
    muon = replace(OPTIMIZERS["muon"], width_ratio=2.0)
    run = replace(run_on(corpus, n_tokens=256 * 12), optimizer=muon, parametrization="mup")
    run = replace(run, model=replace(run.model, output_scale=0.5**0.5, attention_scale=0.5**0.5))
    result = train(run, placement(corpus, measure_noise_scale=True), Session(tmp_path))
    execution = Execution(attempt=1, started_at="x", finished_at="y")
    point = assemble(run, result, execution)
    assert (point.optimizer, point.parametrization, point.beta2) == ("muon", "mup", 0.95)
    assert point.flops_optimizer == 12 * flops.optimizer_flops_per_step(run.model, muon)
    assert point.b_simple_tokens == result.b_simple_tokens
    sgd = replace(run_on(corpus), optimizer=OPTIMIZERS["sgd"])
    plain = assemble(sgd, result, execution)
    assert (plain.flops_optimizer, plain.beta2) == (0, None)
