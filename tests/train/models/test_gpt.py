"""Decoder properties: causality, loss at initialisation, seeds."""

import math
from dataclasses import replace

import pytest
import torch

from sweep.errors import InputError
from sweep.train.models.attention import rotary_table, rotate
from sweep.train.models.gpt import GPT
from tests.configs import TINY

VARIANTS = [
    TINY,
    replace(TINY, activation="gelu", tied=False, qk_norm=False),
    replace(TINY, n_heads=1, n_kv_heads=1, rope_base=10_000.0, embedding_scale=1.0),
    replace(TINY, n_heads=4, n_kv_heads=1, activation="swiglu", tied=False, qk_norm=False),
    replace(TINY, norm="layer", positions="learned", activation="gelu", bias=True, qk_norm=False),
    replace(TINY, norm="layer", bias=True, n_heads=4, n_kv_heads=2, positions="learned"),
]


def built(config, seed=0):
    model = GPT(config)
    model.initialise(torch.Generator().manual_seed(seed))
    return model


@pytest.mark.parametrize("config", VARIANTS)
@pytest.mark.parametrize("position", [0, 5, 15])
def test_causality_by_gradients(config, position):
    """The logits at a position depend on every embedding up to it and on none after it."""
    model = built(config)
    inputs = []

    def keep(module, args, output):
        output.retain_grad()
        inputs.append(output)

    model.embedding.register_forward_hook(keep)
    tokens = torch.randint(
        0, config.vocab_size, (2, config.seq_len), generator=torch.Generator().manual_seed(1)
    )
    model(tokens)[:, position].square().sum().backward()
    reach = inputs[0].grad.abs().sum(-1)
    assert (reach[:, : position + 1] > 0).all()
    assert (reach[:, position + 1 :] == 0).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"tied": True},
        {"tied": False},
        {"activation": "swiglu", "n_kv_heads": 1, "tied": False},
        {"norm": "layer", "positions": "learned", "bias": True, "activation": "gelu", "tied": False},
    ],
)
def test_loss_at_init_is_what_the_logit_variance_predicts(changes):
    """With independent normal logits of variance s2 the expected loss is ln V + s2/2; here s2 is 1."""
    config = replace(TINY, vocab_size=4096, d_model=128, d_ff=512, **changes)
    model = built(config)
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(0, config.vocab_size, (256, config.seq_len), generator=generator)
    targets = torch.randint(0, config.vocab_size, (256, config.seq_len), generator=generator)
    with torch.no_grad():
        variance = float(model(tokens).var(dim=-1).mean())
        loss = float(model.losses(tokens, targets).mean())
    assert variance == pytest.approx(1.0, abs=0.1)
    assert loss == pytest.approx(math.log(config.vocab_size) + variance / 2, abs=0.05)


def test_residual_stream_starts_at_embedding_scale():
    config = replace(TINY, d_model=128, d_ff=512, embedding_scale=0.7)
    model = built(config)
    x = model.embedding.weight.detach() * model.input_scale
    assert float(x.square().mean().sqrt()) == pytest.approx(0.7, rel=0.03)


def test_same_seed_same_weights_other_seed_other_weights():
    one, same, other = built(TINY, 0), built(TINY, 0), built(TINY, 1)
    for a, b in zip(one.parameters(), same.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(one.embedding.weight, other.embedding.weight)


def test_rotary_scores_depend_on_distance_only():
    """q at i and k at j meet as at i + s and j + s (Su et al. 2021, equation 16)."""
    rotary = rotary_table(32, 8, 100.0)
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(8, generator=generator), torch.randn(8, generator=generator)
    queries = rotate(query.expand(1, 1, 32, 8), rotary)[0, 0]
    keys = rotate(key.expand(1, 1, 32, 8), rotary)[0, 0]
    scores = queries @ keys.T
    for distance in (0, 3, 11):
        diagonal = scores.diagonal(-distance)
        assert torch.allclose(diagonal, diagonal[0].expand_as(diagonal), atol=1e-5)


@pytest.mark.parametrize("config", VARIANTS)
def test_a_shorter_sequence_gives_the_same_prefix(config):
    model = built(config)
    tokens = torch.randint(0, TINY.vocab_size, (1, 16), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert torch.allclose(model(tokens)[:, :7], model(tokens[:, :7]), atol=1e-5)


def test_a_longer_sequence_is_refused():
    with pytest.raises(ValueError, match="17 positions are more than the model's seq_len=16"):
        built(TINY)(torch.zeros(1, 17, dtype=torch.long))


def test_gains_start_at_one_biases_at_zero_and_positions_at_half_the_tokens():
    config = replace(
        TINY, norm="layer", positions="learned", bias=True, d_model=128, vocab_size=512, seq_len=256
    )
    model = built(config)
    named = dict(model.named_parameters())
    vectors = {name: parameter for name, parameter in named.items() if parameter.dim() == 1}
    assert len(vectors) == 2 * (2 * 2 + 1) + 2 * 4  # norms and linear maps of two blocks, the last norm
    for name, vector in vectors.items():
        assert (vector == (1 if name.endswith("gain") else 0)).all(), name
    tokens, positions = (named[f"{table}.weight"].std().item() for table in ("embedding", "positions"))
    assert positions / tokens == pytest.approx(0.5, rel=0.03)


def test_a_given_standard_deviation_starts_every_matrix_and_table_at_any_width():
    """nanoGPT's initialisation: 0.02, divided by sqrt(2 L) for matrices that write to the residual stream."""
    for d_model in (64, 128):
        changes = {"d_model": d_model, "d_ff": 4 * d_model, "vocab_size": 512, "seq_len": 256}
        model = built(replace(TINY, positions="learned", init_std=0.02, **changes))
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                writes = name.endswith(("attention.out.weight", "mlp.down.weight"))
                expected = 0.02 / math.sqrt(2 * TINY.n_layers) if writes else 0.02
                assert parameter.std().item() == pytest.approx(expected, rel=0.05), name


def test_shared_keys_and_values_equal_ones_copied_to_every_head():
    """Two key heads for four query heads equal four key heads with pairwise equal keys and values."""
    few = built(replace(TINY, n_heads=4, n_kv_heads=2, bias=True))
    full = GPT(replace(few.config, n_kv_heads=4))
    wanted = dict(few.state_dict())
    for name, tensor in wanted.items():
        if ".qkv." in name:
            query, key, value = tensor.split((24, 12, 12))
            copied = [t.unflatten(0, (2, 6)).repeat_interleave(2, dim=0).flatten(0, 1) for t in (key, value)]
            wanted[name] = torch.cat((query, *copied))
    full.load_state_dict(wanted)
    tokens = torch.randint(0, TINY.vocab_size, (2, 16), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert torch.allclose(few(tokens), full(tokens), atol=1e-5)


IMPOSSIBLE = [
    ({"n_kv_heads": 3, "n_heads": 4}, "n_kv_heads=3 does not divide n_heads=4: choose n_kv_heads from the"),
    ({"n_heads": 5}, "d_model=24 does not divide into n_heads=5: choose n_heads from the divisors"),
    ({"n_heads": 8, "n_kv_heads": 8}, r"head_dim=3 \(d_model=24 / n_heads=8\) is odd: rotary positions need"),
]


@pytest.mark.parametrize(("changes", "sentence"), IMPOSSIBLE)
def test_impossible_shapes_are_refused(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        replace(TINY, **changes)


def test_an_odd_head_size_is_possible_without_rotary_positions():
    config = replace(TINY, n_heads=8, n_kv_heads=8, positions="learned")
    assert built(config)(torch.zeros(1, 16, dtype=torch.long)).shape == (1, 16, TINY.vocab_size)
