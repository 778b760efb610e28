"""The memory estimate, against what the real model keeps for its backward pass."""

from dataclasses import replace

import pytest
import torch

from sweep.plan.estimate import (
    FRAGMENTATION,
    LOGITS_AT_ONCE,
    MAX_DENSE_SEQ_LEN,
    MIN_CHUNK_ROWS,
    NOISE_PARTS,
    _training_pass,
    memory,
    memory_bytes,
)
from sweep.train import noise_scale
from sweep.train.cuda import CHUNK_ELEMENTS
from sweep.train.models import cross_entropy
from sweep.train.models.cpu import attention, decoder
from sweep.train.models.gpt import GPT
from sweep.train.models.layers import ACTIVATIONS
from sweep.train.optim.optimizers import build_optimizer
from tests.configs import TINY, tiny_run
from tests.live_tensors import live_bytes

BASE = replace(TINY, d_model=64, n_heads=4, n_kv_heads=4, d_ff=256, n_layers=4, seq_len=64, vocab_size=256)
MODELS = {
    "tiny": BASE,
    "gpt2": replace(BASE, norm="layer", positions="learned", activation="gelu", bias=True, qk_norm=False),
    "llama": replace(BASE, activation="swiglu", n_kv_heads=2, qk_norm=False, tied=False),
    "one key for all": replace(BASE, activation="swiglu", n_kv_heads=1),
    "exact": replace(BASE, activation="gelu_exact"),
    "long": replace(BASE, seq_len=512),
}


def kept_bytes(monkeypatch, model, batch_size, precision):
    """What the blocks leave for the backward pass: seen from the head."""
    seen = []
    real = decoder._head

    def watched(*args):
        seen.append(live_bytes())
        return real(*args)

    monkeypatch.setattr(decoder, "_head", watched)
    tokens = torch.zeros(batch_size, model.config.seq_len + 1, dtype=torch.long)
    for _ in range(2):  # what the first pass leaves for good, masks and bf16 copies, is not counted
        before = live_bytes()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: t, lambda t: t
        ):  # else Python sees none of it
            decoder.add_gradients(model, tokens, n_batch_tokens=1, bf16=precision == "bf16")
    return seen[-1] - before


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.ci)])
@pytest.mark.parametrize("name", MODELS)
def test_memory_of_a_step_is_what_is_kept_and_what_a_block_adds(monkeypatch, name, precision):
    """A block's part is exact, but for what has one number a row."""
    tokens = 8 * MODELS[name].seq_len
    kept, estimated = [], []
    for n_layers in (4, 16):
        config = replace(MODELS[name], n_layers=n_layers)
        run = tiny_run(model=config, batch_tokens=tokens, n_tokens=tokens * 40, precision=precision)
        kept.append(kept_bytes(monkeypatch, GPT(config), 8, precision))
        estimated.append(_training_pass(run, None, "cpu").activations / FRAGMENTATION["cpu", precision])
    per_block, expected = (kept[1] - kept[0]) / 12, (estimated[1] - estimated[0]) / 12
    assert per_block == pytest.approx(expected, rel=0.03)
    assert estimated[0] - 4 * expected > 0  # and what the backward pass has for a while


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_has_an_estimate(name):
    assert memory(tiny_run(model=replace(BASE, activation=name)), None).activations > 0


def test_limits_are_those_of_the_kernels():
    assert MAX_DENSE_SEQ_LEN == attention.MAX_DENSE_SEQ_LEN
    assert {"cpu": cross_entropy.CPU_CHUNK_ELEMENTS, "cuda": max(CHUNK_ELEMENTS)} == LOGITS_AT_ONCE
    assert cross_entropy.MIN_CHUNK_ROWS == MIN_CHUNK_ROWS
    assert noise_scale.N_PARTS == NOISE_PARTS


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
        4 * (n_params + MODELS[name].vocab_size * MODELS[name].d_model),  # the embedding's twice
        8 * n_params,
    )
    assert needed.total == needed.process + needed.rise == memory_bytes(run, None)
    parts = (needed.activations, needed.logits, needed.runtime)
    assert needed.rise == needed.gradients + 12 * n_params + sum(parts)
    fewer = memory(run, 8)
    assert fewer.rise < needed.rise
    assert memory(run, 10**6) == needed
