"""Flat update against torch's own, and the optimizer's state after it."""

import copy
import gc
import weakref
from dataclasses import replace

import pytest
import torch

from sweep.train.models.gpt import GPT
from sweep.train.optim.optimizers import build_optimizer, set_lr
from sweep.train.update import FlatUpdate, PlainUpdate, build_update
from tests.configs import TINY, tiny_run

RUN = tiny_run()


def built(bias=True):
    model = GPT(replace(TINY, bias=bias, norm="layer"))
    model.initialise(torch.Generator().manual_seed(0))
    return model, build_optimizer(model, RUN.optimizer)


def give_gradients(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        parameter.grad.copy_(torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("grad_clip", [0.5, 1e9])
def test_flat_storage_gives_torchs_update(grad_clip):
    (ours, flat_optimizer), (theirs, plain_optimizer) = built(), built()
    flat = build_update(ours, flat_optimizer, grad_clip)
    plain = PlainUpdate(theirs, plain_optimizer, grad_clip)
    assert isinstance(flat, FlatUpdate)
    for step in range(5):
        for model, optimizer, update in ((ours, flat_optimizer, flat), (theirs, plain_optimizer, plain)):
            give_gradients(model, step)
            set_lr(optimizer, 0.01 / (step + 1))
            update()
    for (name, mine), its in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine, its, rtol=1e-5, atol=1e-6), name
        assert not mine.grad.any()
    for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True):
        one, other = flat_optimizer.state[mine], plain_optimizer.state[its]
        assert one.keys() == other.keys()
        assert float(one["step"]) == float(other["step"]) == 5
        assert one["exp_avg"].shape == mine.shape
        assert torch.allclose(one["exp_avg_sq"], other["exp_avg_sq"], rtol=1e-4, atol=1e-9)


def test_a_loaded_state_is_gone_on_with():
    (model, optimizer), (fresh, other) = built(), built()
    update, again = build_update(model, optimizer, 1.0), build_update(fresh, other, 1.0)
    for step in range(3):
        give_gradients(model, step)
        update()
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    fresh.load_state_dict(model.state_dict())
    for one, go_on, which in ((model, update, optimizer), (fresh, again, other)):
        give_gradients(one, 9)
        set_lr(which, 0.003)
        go_on()
    for mine, its in zip(model.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(mine, its)


def test_another_optimizer_is_left_to_torch():
    model, _ = built()
    assert isinstance(build_update(model, torch.optim.SGD(model.parameters()), 1.0), PlainUpdate)


def test_gradients_that_a_graph_writes_stay_where_they_are():
    model = torch.nn.Linear(3, 2)
    update = PlainUpdate(model, torch.optim.SGD(model.parameters(), lr=0.1), 1.0)
    update.keeps_gradients = True
    model(torch.ones(1, 3)).sum().backward()
    gradient = model.weight.grad
    update()
    assert model.weight.grad is gradient
    assert not gradient.any()


def test_nothing_outlives_its_last_user():
    """A worker trains many runs: weights in reference cycles would accumulate."""
    model = GPT(TINY)
    optimizer = build_optimizer(model, tiny_run().optimizer)
    update = build_update(model, optimizer, 1.0)
    kept = weakref.ref(next(model.parameters())), weakref.ref(optimizer)
    gc.disable()
    try:
        del model, optimizer, update
        assert [reference() for reference in kept] == [None, None]
    finally:
        gc.enable()
