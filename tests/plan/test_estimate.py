"""The memory estimate, against what autograd keeps for the backward pass of the real model."""

from dataclasses import replace

import pytest
import torch

from sweep.models.gpt import GPT
from sweep.plan.estimate import memory, memory_bytes
from tests.configs import TINY, tiny_run

BASE = replace(TINY, d_model=64, n_heads=4, n_kv_heads=4, d_ff=256, n_layers=4, seq_len=64, vocab_size=256)
MODELS = {
    "tiny": BASE,
    "gpt2": replace(BASE, norm="layer", positions="learned", activation="gelu", bias=True, qk_norm=False),
    "llama": replace(BASE, activation="swiglu", n_kv_heads=2, qk_norm=False, tied=False),
    "one key for all": replace(BASE, activation="swiglu", n_kv_heads=1),
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
        losses = model.losses(tokens, tokens)
    assert losses.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("name", MODELS)
def test_memory_of_a_step_is_not_underestimated_nor_far_off(name):
    model = GPT(MODELS[name])
    run = tiny_run(model=MODELS[name], batch_tokens=8 * 64, n_tokens=8 * 64 * 40)
    estimated = memory(run, None, device="cuda")  # without the C library's share
    assert 0.9 <= (estimated.activations + estimated.logits) / kept_bytes(model, batch_size=8) <= 1.5


@pytest.mark.parametrize("name", MODELS)
def test_components_add_up_and_state_is_counted_by_parameter(name):
    n_params = sum(parameter.numel() for parameter in GPT(MODELS[name]).parameters())
    run = tiny_run(model=MODELS[name], batch_tokens=64 * 64, n_tokens=64 * 64 * 40)
    needed = memory(run, None)
    assert (needed.parameters, needed.gradients, needed.optimizer) == (
        4 * n_params,
        4 * n_params,
        8 * n_params,
    )
    assert needed.total == needed.process + needed.rise == memory_bytes(run, None)
    parts = (needed.activations, needed.logits, needed.runtime)
    assert needed.rise == 16 * n_params + sum(parts)
    fewer = memory(run, 8)
    assert fewer.rise < needed.rise
    assert memory(run, 10**6) == needed
