"""Flat update against torch's own, and the optimizer's state after it."""

import copy
import gc
import re
import weakref
from dataclasses import replace

import pytest
import torch

from sweep.train.models.gpt import GPT
from sweep.train.optim.optimizers import OPTIMIZERS, build_optimizer, set_lr
from sweep.train.update import FlatUpdate, PlainUpdate, build_update
from tests.configs import TINY, tiny_run

RUN = tiny_run()


def built(config=RUN.optimizer):
    model = GPT(replace(TINY, bias=True, norm="layer"))
    model.initialise(torch.Generator().manual_seed(0))
    return model, build_optimizer(model, config)


def give_gradients(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        parameter.grad.copy_(torch.randn(parameter.shape, generator=generator))


SETTINGS = {
    "adamw": {},
    "sgd": {"momentum": 0.9, "nesterov": True},
    "sgd without momentum": {},
    "muon": {"momentum": 0.9, "nesterov": True},
    "muon, original": {"momentum": 0.9, "nesterov": False, "muon_scaling": "original"},
}


@pytest.mark.parametrize("grad_clip", [0.5, 1e9])
@pytest.mark.parametrize("kind", SETTINGS)
def test_flat_storage_gives_torchs_update(kind, grad_clip):
    """Matrix by matrix; those of Muon are products in bf16, which may be summed in another order."""
    config = replace(RUN.optimizer, name=re.split("[ ,]", kind)[0], **SETTINGS[kind])
    (ours, flat_optimizer), (theirs, plain_optimizer) = built(config=config), built(config=config)
    flat = build_update(ours, flat_optimizer, grad_clip)
    plain = PlainUpdate(theirs, plain_optimizer, grad_clip)
    assert isinstance(flat, FlatUpdate)
    for step in range(5):
        for model, optimizer, update in ((ours, flat_optimizer, flat), (theirs, plain_optimizer, plain)):
            give_gradients(model, step)
            set_lr(optimizer, 0.01 / (step + 1))
            update()
    tolerance = 2e-3 if "muon" in kind else 1e-6
    for (name, mine), its in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine, its, rtol=1e-5, atol=tolerance), name
        assert not mine.grad.any()
        one, other = flat_optimizer.state[mine], plain_optimizer.state[its]
        assert one.keys() == {slot for slot, value in other.items() if value is not None}
        for slot, value in one.items():
            assert value.shape == other[slot].shape
            assert torch.allclose(value, other[slot], rtol=1e-4, atol=1e-7), (name, slot)


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


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.Adam(p),
        lambda p: torch.optim.AdamW(p, amsgrad=True),
        lambda p: torch.optim.SGD(p, momentum=0.9, dampening=0.1),
    ],
)
def test_another_optimizer_is_left_to_torch(make):
    model, _ = built()
    assert isinstance(build_update(model, make(model.parameters()), 1.0), PlainUpdate)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_gradients_to_sum_over_ranks_are_those_of_all_parameters(name):
    config = replace(RUN.optimizer, name=name, momentum=None if name == "adamw" else 0.9)
    model = GPT(TINY)
    update = build_update(model, build_optimizer(model, config), 1.0)
    for parameter in model.parameters():
        parameter.grad.fill_(1.0)
    for tensor in update.gradients():
        tensor.mul_(2.0)
    assert all(bool((parameter.grad == 2.0).all()) for parameter in model.parameters())
    update.discard()
    assert not any(parameter.grad.any() for parameter in model.parameters())


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
