"""Steps on a CUDA device: graphs and compiled code against eager ones, memory that runs out, resuming."""

import copy
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sweep.records import Placement
from sweep.train.models.gpt import GPT
from sweep.train.step import TrainingStep
from tests.configs import TINY, tiny_run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch reads it once, at the first product
RUN = tiny_run(model=replace(TINY, d_model=64, d_ff=256, seq_len=64, vocab_size=256), batch_tokens=512,
               n_tokens=512 * 40, precision="bf16")  # fmt: skip
DATA = np.random.default_rng(0).integers(0, 256, (8, 8, 65))
EAGER = {"compile": False, "graph": False}


def stepper(tmp_path, micro_batch_size=None, chosen=EAGER, run=RUN, deterministic=False, **choices):
    model = GPT(run.model)
    model.initialise(torch.Generator().manual_seed(0))
    placement = Placement(
        data_dir=Path(tmp_path), device="cuda:0", n_threads=1, micro_batch_size=micro_batch_size,
        checkpoint_interval_s=1e9, deterministic=deterministic,
    )  # fmt: skip
    step = TrainingStep(model.to("cuda"), run, placement, lambda number, a, b: DATA[number % 8, a:b])
    step.choose(chosen | choices)
    return step


def losses(step, numbers=range(8)):
    return [float(step(number)) for number in numbers]


@pytest.mark.parametrize("choices", [{"graph": True}, {"compile": True}, {"graph": True, "compile": True}])
@pytest.mark.parametrize("micro_batch_size", [None, 4, 3])
def test_graphs_and_compiled_code_equal_eager_steps(tmp_path, choices, micro_batch_size):
    plain = losses(stepper(tmp_path))
    assert losses(stepper(tmp_path, micro_batch_size, **choices)) == pytest.approx(plain, rel=5e-3)


@pytest.mark.parametrize("name", ["muon", "sgd"])
def test_graphs_add_to_the_gradients_of_every_optimizer(tmp_path, name):
    run = replace(RUN, optimizer=replace(RUN.optimizer, name=name, momentum=0.9))
    plain = losses(stepper(tmp_path, run=run))
    assert losses(stepper(tmp_path, run=run, graph=True)) == pytest.approx(plain, rel=5e-3)
    assert plain[-1] != pytest.approx(plain[0], rel=1e-4)


def test_a_graph_of_the_update_takes_up_a_state_that_is_loaded(tmp_path):
    step = stepper(tmp_path, graph=True)
    losses(step, range(4))
    weights = {name: value.clone() for name, value in step.model.state_dict().items()}
    moments = copy.deepcopy(step.optimizer.state_dict())
    expected = losses(step, range(4, 8))
    step.model.load_state_dict(weights)
    step.optimizer.load_state_dict(moments)
    assert losses(step, range(4, 8)) == pytest.approx(expected, rel=1e-4)
    assert step._cuda._update_graph is not None


@pytest.mark.parametrize("graph", [True, False])
def test_memory_that_runs_out_halves_the_micro_batch(tmp_path, monkeypatch, graph):
    plain = losses(stepper(tmp_path))
    step = stepper(tmp_path, graph=graph)
    backward = step._cuda.backward
    failed = []

    def failing(tokens):
        if len(tokens) > 4:
            failed.append(len(tokens))
            raise torch.OutOfMemoryError("planted")
        return backward(tokens)

    monkeypatch.setattr(step._cuda, "backward", failing)
    assert losses(step) == pytest.approx(plain, rel=5e-3)
    assert failed == [8]
    assert step.micro_batch_size == 4


def test_one_sequence_too_much_is_an_error(tmp_path, monkeypatch):
    step = stepper(tmp_path)

    def failing(tokens):
        raise torch.OutOfMemoryError("planted")

    monkeypatch.setattr(step._cuda, "backward", failing)
    with pytest.raises(torch.OutOfMemoryError):
        step(0)


def test_choices_are_made_once_and_can_be_taken_over(tmp_path):
    first = stepper(tmp_path, chosen={})
    first(0)
    assert first.choices.keys() == {"micro_batch_size", *EAGER}
    second = stepper(tmp_path, chosen=first.choices)
    second(0)
    assert second.choices == first.choices


@pytest.mark.parametrize("graph", [True, False])
def test_deterministic_steps_repeat_to_the_bit(tmp_path, graph):
    torch.use_deterministic_algorithms(True)
    try:
        steps = [stepper(tmp_path, deterministic=True, graph=graph) for _ in range(2)]
        assert losses(steps[0]) == losses(steps[1])
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(step.choices["graph"] is graph for step in steps)


def test_default_choices_are_carried_out(tmp_path):
    """A compilation or capture that fails is given up, and would go unnoticed."""
    step = stepper(tmp_path, chosen={})
    losses(step)
    assert (step.choices["compile"], step.choices["graph"]) == (True, True)
