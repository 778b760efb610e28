"""The memory estimate, against what autograd keeps for the backward pass of the real model."""

from dataclasses import replace

import pytest
import torch

from sweep.models import attention, cross_entropy
from sweep.models.gpt import GPT
from sweep.models.layers import ACTIVATIONS
from sweep.optim.optimizers import build_optimizer
from sweep.plan.estimate import (
    FRAGMENTATION,
    LOGITS_AT_ONCE,
    MAX_DENSE_SEQ_LEN,
    MIN_CHUNK_ROWS,
    _training_pass,
    memory,
    memory_bytes,
)
from sweep.train.cuda import CHUNK_ELEMENTS
from tests.configs import TINY, tiny_run

BASE = replace(TINY, d_model=64, n_heads=4, n_kv_heads=4, d_ff=256, n_layers=4, seq_len=64, vocab_size=256)
MODELS = {
    "tiny": BASE,
    "gpt2": replace(BASE, norm="layer", positions="learned", activation="gelu", bias=True, qk_norm=False),
    "llama": replace(BASE, activation="swiglu", n_kv_heads=2, qk_norm=False, tied=False),
    "one key for all": replace(BASE, activation="swiglu", n_kv_heads=1),
    "exact": replace(BASE, activation="gelu_exact"),
    "long": replace(BASE, seq_len=512),
}


def kept_bytes(model, batch_size):
    """Distinct storage that the forward pass leaves for the backward pass, weights aside."""
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = tensor  # held, so that no address is used twice
        return tensor

    tokens = torch.zeros(batch_size, model.config.seq_len, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model.total_loss(tokens, tokens)
    assert loss.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("name", MODELS)
def test_memory_of_a_step_is_not_underestimated_nor_far_off(name):
    """Above what is kept lies what the backward pass of a block adds to it: more, the fewer the blocks."""
    model = GPT(MODELS[name])
    tokens = 8 * model.config.seq_len
    run = tiny_run(model=model.config, batch_tokens=tokens, n_tokens=tokens * 40)
    training = _training_pass(run, None, "cpu")
    assert 1 <= training.activations / FRAGMENTATION["cpu"] / kept_bytes(model, batch_size=8) <= 1.6


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_has_an_estimate(name):
    assert memory(tiny_run(model=replace(BASE, activation=name)), None).activations > 0


def test_limits_are_those_of_the_kernels():
    assert MAX_DENSE_SEQ_LEN == attention.MAX_DENSE_SEQ_LEN
    assert {"cpu": cross_entropy.CPU_CHUNK_ELEMENTS, "cuda": max(CHUNK_ELEMENTS)} == LOGITS_AT_ONCE
    assert cross_entropy.MIN_CHUNK_ROWS == MIN_CHUNK_ROWS


STATES = {"adamw": {}, "muon": {"momentum": 0.9}, "sgd": {"momentum": 0.9}, "plain sgd": {}}


@pytest.mark.parametrize("name", STATES)
def test_state_is_what_the_optimizer_keeps(name):
    model = GPT(BASE)
    config = replace(tiny_run().optimizer, name=name.removeprefix("plain "), **STATES[name])
    optimizer = build_optimizer(model, config)
    model.total_loss(torch.zeros(1, 8, dtype=torch.long), torch.zeros(1, 8, dtype=torch.long)).backward()
    optimizer.step()
    state = [v for slots in optimizer.state.values() for v in slots.values() if isinstance(v, torch.Tensor)]
    kept = sum(value.nbytes for value in state if value.dim())
    assert memory(tiny_run(model=BASE, optimizer=config), None).optimizer == kept


@pytest.mark.parametrize("name", MODELS)
def test_components_add_up_and_state_is_counted_by_parameter(name):
    n_params = sum(parameter.numel() for parameter in GPT(MODELS[name]).parameters())
    tokens = 64 * MODELS[name].seq_len
    run = tiny_run(model=MODELS[name], batch_tokens=tokens, n_tokens=tokens * 40)
    needed = memory(run, None)
    assert (needed.parameters, needed.gradients, needed.optimizer) == (
        4 * n_params,
        8 * n_params,  # of each parameter, and gathered
        8 * n_params,
    )
    assert needed.total == needed.process + needed.rise == memory_bytes(run, None)
    parts = (needed.activations, needed.logits, needed.runtime)
    assert needed.rise == 20 * n_params + sum(parts)
    fewer = memory(run, 8)
    assert fewer.rise < needed.rise
    assert memory(run, 10**6) == needed
