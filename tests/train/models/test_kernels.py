"""Attention and the head's cross-entropy against plain torch operations under autograd."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.autograd import gradcheck

from sweep.train.models.attention import Heads, fused_attention, rotary_table, rotate
from sweep.train.models.cross_entropy import summed_cross_entropy

GENERATOR = torch.Generator().manual_seed(0)


def random(*shape, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=GENERATOR)


HEADS = [
    Heads(2, 2, 4, None, 0.5),
    Heads(4, 2, 4, None, 0.25),
    Heads(2, 1, 4, 1.2, 0.5),
    Heads(3, 3, 4, 2.0, 0.5),
]


def plain_attention(qkv, rotary, heads):
    batch, seq_len, width = qkv.shape
    split = qkv.view(batch, seq_len, width // heads.head_dim, heads.head_dim).transpose(1, 2)
    qk, value = split.split((heads.n_heads + heads.n_kv_heads, heads.n_kv_heads), dim=1)
    if heads.qk_gain is not None:
        qk = F.rms_norm(qk, (heads.head_dim,)) * heads.qk_gain
    if rotary is not None:
        qk = rotate(qk, rotary)
    query, key = qk.split((heads.n_heads, heads.n_kv_heads), dim=1)
    group = heads.n_heads // heads.n_kv_heads
    scores = query @ key.repeat_interleave(group, 1).transpose(2, 3) * heads.scale
    seen = torch.ones(seq_len, seq_len, dtype=torch.bool).tril()
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    mixed = weights @ value.repeat_interleave(group, 1)
    return mixed.transpose(1, 2).reshape(batch, seq_len, -1)


@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("heads", HEADS)
def test_attention(heads, turned):
    seq_len = 5
    rotary = rotary_table(seq_len, heads.head_dim, 100.0).double() if turned else None
    qkv = random(2, seq_len, (heads.n_heads + 2 * heads.n_kv_heads) * heads.head_dim).requires_grad_()
    fused, plain = fused_attention(qkv, rotary, heads), plain_attention(qkv, rotary, heads)
    torch.testing.assert_close(fused, plain)
    g = random(*plain.shape)
    torch.testing.assert_close(torch.autograd.grad(fused, qkv, g), torch.autograd.grad(plain, qkv, g))


@pytest.mark.parametrize("n_rows", [3, 7, 64])
def test_cross_entropy_in_chunks_against_torchs_and_by_finite_differences(n_rows):
    hidden, weight = random(7, 4).requires_grad_(), random(9, 4).requires_grad_()
    targets = torch.randint(0, 9, (7,), generator=GENERATOR)

    def summed(hidden, weight):
        return summed_cross_entropy(hidden, weight, targets, n_rows=n_rows)

    expected = F.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    assert torch.allclose(summed(hidden, weight), expected)
    with torch.no_grad():
        assert torch.allclose(summed(hidden, weight), expected)
    assert gradcheck(summed, (hidden, weight))


def test_cross_entropy_of_a_hopeless_guess_is_finite():
    hidden, weight = torch.full((1, 1), 1000.0), torch.tensor([[1.0], [0.0]])
    hidden.requires_grad_()
    loss = summed_cross_entropy(hidden, weight, torch.tensor([1]), n_rows=1)
    assert loss.item() == pytest.approx(1000.0)


@pytest.mark.parametrize("bf16", [False, True])
def test_the_head_in_bf16_is_the_fp32_one_to_rounding(bf16):
    hidden, weight = (random(*shape, dtype=torch.float32).requires_grad_() for shape in ((64, 32), (48, 32)))
    targets = torch.randint(0, 48, (64,), generator=GENERATOR)
    loss = summed_cross_entropy(hidden, weight, targets, n_rows=40, bf16=bf16)
    expected = F.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    tolerance = {"rtol": 2**-6, "atol": 2**-5} if bf16 else {}
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, **tolerance)
    gradients, plain = (torch.autograd.grad(value, (hidden, weight)) for value in (loss, expected))
    torch.testing.assert_close(gradients, plain, **tolerance)
