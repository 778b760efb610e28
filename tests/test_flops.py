"""FLOPs and parameters in closed form, against a count of what the real model does."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sweep import flops
from sweep.train.models.gpt import GPT
from tests.architectures import architectures, label
from tests.configs import TINY

SHAPES = [
    replace(TINY, d_ff=50, n_heads=1, n_kv_heads=1, n_layers=1),
    replace(TINY, d_ff=50, n_heads=12, n_kv_heads=3, n_layers=3, activation="swiglu", bias=True),
    replace(TINY, d_model=15, n_heads=3, n_kv_heads=1, positions="learned", norm="layer", bias=True),
    replace(TINY, seq_len=1, vocab_size=1, d_model=2, n_heads=1, n_kv_heads=1, d_ff=1, n_layers=1),
]
VARIANTS = [  # every fifth by default, which has every value of every choice
    pytest.param(config, id=label(config), marks=[pytest.mark.ci] if number % 5 else [])
    for number, config in enumerate(architectures())
]
VARIANTS += [pytest.param(config, id=f"shape {index}") for index, config in enumerate(SHAPES)]


def instrumented_flops(model, n_sequences):
    """Return torch's count on the meta device, where attention is plain matrix multiplications."""
    with torch.device("meta"):
        tokens = torch.zeros(n_sequences, model.config.seq_len, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model.losses(tokens, tokens).sum().backward()
    return counter.get_total_flops()


def parameter_groups(model):
    groups = {"embedding": 0, "head": 0, "non_embedding": 0}
    names = {"embedding": "embedding", "positions": "embedding", "head": "head"}
    for name, parameter in model.named_parameters():
        groups[names.get(name.split(".")[0], "non_embedding")] += parameter.numel()
    return groups


@pytest.mark.parametrize("config", VARIANTS)
def test_closed_forms_equal_the_counted_model(config):
    with torch.device("meta"):
        model = GPT(config)
    n_sequences = 3
    counted = flops.count(config, n_sequences * config.seq_len).flops
    assert counted == instrumented_flops(model, n_sequences)
    assert counted == flops.flops_per_token(config) * n_sequences * config.seq_len
    params = flops.n_params(config)
    assert parameter_groups(model) == {
        "embedding": params.embedding,
        "head": params.head,
        "non_embedding": params.non_embedding,
    }
    assert params.total == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("n_kv_heads", [4, 2, 1])
def test_causal_count_is_a_sum_over_positions(n_kv_heads):
    """Position t attends to t + 1 pairs, in every head of queries: add them up one by one."""
    config = replace(TINY, n_heads=4, n_kv_heads=n_kv_heads)
    full = flops.count(config, config.seq_len)
    pairs_missing = config.seq_len**2 - sum(t + 1 for t in range(config.seq_len))
    assert full.flops - full.flops_causal == 3 * config.n_layers * pairs_missing * 4 * config.d_model


def test_conventions_by_hand():
    """Every number of one small model, calculated by hand."""
    model = replace(TINY, d_model=4, d_ff=16, n_heads=2, n_layers=1, vocab_size=10, seq_len=2, tied=False)
    count = flops.count(model, 2)
    # forward: qkv 2*2*4*12=192, scores+values 4*4*4=64, out 2*2*4*4=64, mlp 2*2*2*4*16=512, head 2*2*4*10=160
    assert count.flops == 3 * (192 + 64 + 64 + 512 + 160)
    assert count.flops_causal == 3 * (192 + 48 + 64 + 512 + 160)
    # parameters: block 4*16 + 2*64 + 8 = 200, last norm 4, table 40, head 40
    assert flops.n_params(model) == flops.ParamCount(non_embedding=204, embedding=40, head=40)
    assert count.flops_6nd == 6 * 284 * 2
    assert count.flops_kaplan == 6 * 204 * 2
    # appendix F: embeddings 160, qkv 192, K@Q 32, softmax 3*2*4, reduction 32, linear 64, dense 512, head 160
    assert count.flops_chinchilla == 3 * (160 + 192 + 32 + 24 + 32 + 64 + 512 + 160)


def test_conventions_by_hand_with_shared_keys_a_gate_and_biases():
    """Likewise with d_kv = 2, three MLP matrices, biases and learned positions."""
    model = replace(TINY, d_model=4, d_ff=16, n_heads=2, n_kv_heads=1, n_layers=1, vocab_size=10, seq_len=2)
    model = replace(model, activation="swiglu", bias=True, norm="layer", positions="learned")
    count = flops.count(model, 2)
    # forward: qkv 2*2*4*(4+2+2)=128, scores+values 64, out 64, mlp 2*2*3*4*16=768, head 160
    assert count.flops == 3 * (128 + 64 + 64 + 768 + 160)
    # matrices 4*8 + 16 + 3*64 = 240; biases 8 + 4 + 16 + 16 + 4 = 48; norms 3*8; tables 40 + 2*4
    assert flops.n_params(model) == flops.ParamCount(non_embedding=240 + 48 + 24, embedding=48, head=0)
    assert count.flops_kaplan == 6 * 312 * 2
    assert count.flops_chinchilla == 3 * (160 + 128 + 32 + 24 + 32 + 64 + 768 + 160)


GPT2_SMALL = replace(
    TINY, vocab_size=50257, seq_len=1024, d_model=768, n_layers=12, n_heads=12, n_kv_heads=12, d_ff=3072,
    norm="layer", positions="learned", activation="gelu", bias=True, tied=True, qk_norm=False,
)  # fmt: skip
LLAMA2_7B = replace(
    TINY, vocab_size=32000, seq_len=4096, d_model=4096, n_layers=32, n_heads=32, n_kv_heads=32, d_ff=11008,
    norm="rms", positions="rope", activation="swiglu", bias=False, tied=False, qk_norm=False,
)  # fmt: skip
LLAMA3_8B = replace(LLAMA2_7B, vocab_size=128256, d_ff=14336, n_kv_heads=8, seq_len=8192)


@pytest.mark.parametrize(
    ("config", "published"),
    [(GPT2_SMALL, 124_439_808), (LLAMA2_7B, 6_738_415_616), (LLAMA3_8B, 8_030_261_248)],
)
def test_parameters_of_released_models(config, published):
    """The numbers of parameters in the released weights of GPT-2, Llama 2 7B and Llama 3 8B."""
    assert flops.n_params(config).total == published


def test_part_of_a_sequence_is_refused():
    with pytest.raises(ValueError, match="17 is not a multiple of seq_len=16"):
        flops.count(TINY, 17)
