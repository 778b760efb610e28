"""Memory estimate against the tensors that the model saves for its backward pass."""

from dataclasses import replace

import pytest
import torch

from sweep.plan.estimate import (
    _kept_by_block,
    memory,
    memory_bytes,
)
from sweep.train.models.gpt import GPT
from sweep.train.models.layers import ACTIVATIONS
from sweep.train.optim.optimizers import build_optimizer
from tests.configs import TINY, tiny_run

BASE = replace(TINY, d_model=64, n_heads=4, n_kv_heads=4, d_ff=256, n_layers=4, seq_len=64, vocab_size=256)
MODELS = {
    "tiny": BASE,
    "gpt2": replace(BASE, norm="layer", positions="learned", activation="gelu", bias=True, qk_norm=False),
    "llama": replace(BASE, activation="swiglu", n_kv_heads=2, qk_norm=False, tied=False),
    "one key for all": replace(BASE, activation="swiglu", n_kv_heads=1),
    "one key for all, plain": replace(BASE, positions="learned", qk_norm=False, n_kv_heads=1),
    "normalised alone": replace(BASE, positions="learned", activation="gelu_exact"),
    "rotated alone": replace(BASE, qk_norm=False, norm="layer"),
    "long": replace(BASE, seq_len=512),
}


def kept_bytes(block, seq_len, rotary, precision):
    """Return the bytes per position that `block` saves for its backward pass, weights left out."""
    saved = []

    def keep(tensor):
        saved.append(tensor)
        return tensor

    x = torch.randn(8, seq_len, block.attention.qkv.in_features, requires_grad=True)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
    ):
        block(x, rotary)
    weights = {tuple(p.shape) for p in block.parameters()} | {tuple(p.t().shape) for p in block.parameters()}
    fixed = set() if rotary is None else {rotary.untyped_storage().data_ptr()}
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
        for t in saved
        if tuple(t.shape) not in weights
    }
    return sum(n for address, n in storages.items() if address not in fixed) / (8 * seq_len)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", MODELS)
def test_a_block_keeps_what_is_estimated(name, precision):
    """Only statistics of one number per row are not counted."""
    config = MODELS[name]
    model = GPT(config)
    kept = kept_bytes(model.blocks[0], config.seq_len, model.rotary, precision)
    estimated = _kept_by_block(
        tiny_run(model=config, precision=precision, batch_tokens=512, n_tokens=5120), "cpu"
    )
    assert estimated <= kept <= 1.02 * estimated, (kept, estimated)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_has_an_estimate(name):
    assert memory(tiny_run(model=replace(BASE, activation=name)), None).activations > 0


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
        4 * n_params,
        8 * n_params,
    )
    assert needed.total == needed.process + needed.rise == memory_bytes(run, None)
    parts = (needed.activations, needed.head, needed.runtime)
    assert needed.rise == needed.gradients + 12 * n_params + sum(parts)
    fewer = memory(run, 8)
    assert fewer.rise < needed.rise
    assert memory(run, 10**6) == needed
