"""Optimizers: groups, steps against explicit updates, FLOPs."""

import copy
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sweep import flops
from sweep.config import RunOptimizer
from sweep.train.models.gpt import GPT
from sweep.train.optim.groups import kind
from sweep.train.optim.optimizers import OPTIMIZERS, build_optimizer, set_lr
from tests.architectures import architectures
from tests.configs import TINY, tiny_run

ADAMW = tiny_run().optimizer
MUON = replace(ADAMW, name="muon", momentum=0.95, nesterov=True)
SGD = RunOptimizer(
    name="sgd",
    lr_peak=0.1,
    beta1=0.0,
    beta2=0.0,
    eps=1.0,
    weight_decay=0.1,
    grad_clip=1.0,
    momentum=0.9,
    nesterov=True,
)


def with_gradients(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return model


def by_parameter(optimizer):
    return {id(p): group for group in optimizer.param_groups for p in group["params"]}


def test_only_matrices_decay():
    model = GPT(TINY)
    optimizer = build_optimizer(model, tiny_run().optimizer)
    decayed = {id(p) for g in optimizer.param_groups if g["weight_decay"] > 0 for p in g["params"]}
    for parameter in model.parameters():
        assert (id(parameter) in decayed) == (parameter.dim() >= 2)


WITHOUT_COMPILER = """
import sys, torch
from sweep.train.optim.adamw import adamw, adamw_settings
from tests.configs import tiny_run
config = tiny_run().optimizer
optimizer = adamw(torch.nn.Linear(3, 2), config, adamw_settings(config))
optimizer.load_state_dict(optimizer.state_dict())
optimizer.zero_grad()
sys.exit("torch._dynamo" in sys.modules)
"""


def test_adamw_is_built_saved_and_restored_without_torchs_compiler():
    """Its import takes as long as torch's own, once in every worker."""
    subprocess.run([sys.executable, "-c", WITHOUT_COMPILER], check=True)


def test_two_steps_equal_the_update_written_out():
    """Loshchilov & Hutter 2019, algorithm 2."""
    config = tiny_run().optimizer
    model = torch.nn.Linear(3, 2, bias=False)
    weight = model.weight.detach().clone().double()
    optimizer = build_optimizer(model, config)
    first, second = torch.zeros_like(weight), torch.zeros_like(weight)
    for step, lr in enumerate((0.01, 0.003), start=1):
        gradient = torch.arange(6.0).reshape(2, 3) - step
        model.weight.grad = gradient.clone()
        set_lr(optimizer, lr)
        optimizer.step()
        first = config.beta1 * first + (1 - config.beta1) * gradient
        second = config.beta2 * second + (1 - config.beta2) * gradient**2
        corrected = first / (1 - config.beta1**step), second / (1 - config.beta2**step)
        weight = weight * (1 - lr * config.weight_decay) - lr * corrected[0] / (
            corrected[1].sqrt() + config.eps
        )
    assert torch.allclose(model.weight.double(), weight, atol=1e-6)


@pytest.mark.parametrize("nesterov", [True, False])
def test_sgd_equals_the_update_written_out(nesterov):
    """Sutskever et al. 2013 in torch's form: v = momentum v + g, with the L2 penalty in g."""
    model = torch.nn.Linear(3, 2)
    weights = [model.weight.detach().clone(), model.bias.detach().clone()]
    velocity = [torch.zeros_like(weight) for weight in weights]
    optimizer = build_optimizer(model, replace(SGD, nesterov=nesterov))
    for lr in (0.1, 0.05, 0.02):
        with_gradients(model)
        gradients = [model.weight.grad + 0.1 * weights[0], model.bias.grad.clone()]
        set_lr(optimizer, lr)
        optimizer.step()
        for index, gradient in enumerate(gradients):
            velocity[index] = 0.9 * velocity[index] + gradient
            update = gradient + 0.9 * velocity[index] if nesterov else velocity[index]
            weights[index] = weights[index] - lr * update
    assert torch.allclose(model.weight, weights[0], atol=1e-6)
    assert torch.allclose(model.bias, weights[1], atol=1e-6)


@pytest.mark.parametrize(
    ("scaling", "size"),
    [
        ("match_rms_adamw", lambda a, b: 0.2 * max(a, b) ** 0.5),
        ("original", lambda a, b: max(1, a / b) ** 0.5),
    ],
)
def test_muon_orthogonalises_blocks_and_leaves_the_rest_to_adamw(scaling, size):
    """The first update of a matrix is s·UV' of its gradient, singular values from about 0.5 to 1.5."""
    config = replace(MUON, weight_decay=0.0, muon_scaling=scaling)
    model = GPT(TINY)
    model.initialise(torch.Generator().manual_seed(0))
    with_gradients(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    twin = GPT(TINY)
    twin.load_state_dict(model.state_dict())
    with_gradients(twin)
    build_optimizer(model, config).step()
    build_optimizer(twin, replace(ADAMW, weight_decay=0.0)).step()
    theirs = dict(twin.named_parameters())
    for name, parameter in model.named_parameters():
        if kind(name, parameter) != "hidden":
            assert torch.equal(parameter, theirs[name]), name
            continue
        update = (before[name] - parameter) / (config.lr_peak * size(*parameter.shape))
        left, singular, right = torch.linalg.svd(update.detach(), full_matrices=False)
        assert 0.4 < singular.min() <= singular.max() < 1.6
        wanted, _, wanted_right = torch.linalg.svd(parameter.grad, full_matrices=False)
        assert ((left @ right) * (wanted @ wanted_right)).sum() / singular.numel() > 0.98


@pytest.mark.parametrize("model", architectures(n_layers=1)[::11])
def test_muons_flops_are_those_of_its_step(model):
    built = with_gradients(GPT(model))
    optimizer = build_optimizer(built, replace(MUON, ns_steps=3))
    with FlopCounterMode(display=False) as counter:
        optimizer.step()
    counted = counter.get_total_flops()
    assert counted == flops.optimizer_flops_per_step(model, replace(MUON, ns_steps=3)) > 0
    assert flops.optimizer_flops_per_step(model, ADAMW) == 0


@pytest.mark.parametrize("config", [ADAMW, MUON, SGD], ids=lambda config: config.name)
def test_a_saved_state_goes_on_to_the_bit(config):
    """Through state_dict and load_state_dict, as a checkpoint does; two inner optimizers are one."""
    models = [GPT(TINY), GPT(TINY)]
    models[0].initialise(torch.Generator().manual_seed(0))
    first = build_optimizer(models[0], config)
    for seed in range(3):
        with_gradients(models[0], seed)
        first.step()
    models[1].load_state_dict(models[0].state_dict())
    second = build_optimizer(models[1], config)
    saved = copy.deepcopy(first.state_dict()["state"])
    second.load_state_dict({**second.state_dict(), "state": saved})
    for model, optimizer in zip(models, (first, second), strict=True):
        with_gradients(model, 7)
        set_lr(optimizer, 0.003)
        optimizer.step()
        with_gradients(model, 8)
        optimizer.step()
        optimizer.zero_grad()
        assert all(parameter.grad is None for parameter in model.parameters())
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)
    assert len(second.state_dict()["state"]) == len(list(models[1].parameters()))


def scales(config):
    """Learning-rate scale and lr-scale times decay, by kind."""
    model = GPT(replace(TINY, bias=True, tied=False))
    groups = by_parameter(build_optimizer(model, config))
    found = {}
    for name, parameter in model.named_parameters():
        group = groups[id(parameter)]
        found[kind(name, parameter)] = (group["lr_scale"], group["lr_scale"] * group["weight_decay"])
    return found


def test_mup_scales_learning_rates_by_the_table():
    """Yang et al. 2022, table 8, at four times the base width, tables stored 1/sqrt(width) as large."""
    adamw = scales(replace(ADAMW, width_ratio=4.0))
    assert adamw == {"hidden": (1 / 4, 0.1), "table": (1 / 2, 0.1), "vector": (1.0, 0.0)}
    sgd = scales(replace(SGD, width_ratio=4.0))
    assert sgd == {"hidden": (1.0, 0.1), "table": (1.0, 0.1), "vector": (4.0, 0.0)}
    muon = scales(replace(MUON, width_ratio=4.0))
    assert muon == {"hidden": (1 / 2, 0.1), "table": (1 / 2, 0.1), "vector": (1.0, 0.0)}
    original = scales(replace(MUON, width_ratio=4.0, muon_scaling="original"))
    assert original["hidden"] == (1.0, 0.1)


@pytest.mark.parametrize("config", [ADAMW, MUON, SGD], ids=lambda config: config.name)
def test_set_lr_keeps_the_scales(config):
    optimizer = build_optimizer(GPT(TINY), replace(config, width_ratio=4.0))
    set_lr(optimizer, 0.5)
    assert {group["lr"] for group in optimizer.param_groups} == {
        0.5 * group["lr_scale"] for group in optimizer.param_groups
    }
    inner = getattr(optimizer, "inner", ())
    assert [group["lr"] for one in inner for group in one.param_groups] == (
        [group["lr"] for group in optimizer.param_groups] if inner else []
    )


def test_every_optimizer_is_tested():
    assert set(OPTIMIZERS) == {"adamw", "muon", "sgd"}
