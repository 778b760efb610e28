"""The CPU's written-out parts: values and gradients against torch's plain operations and autograd."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.autograd import gradcheck

from sweep.train.models import gemm
from sweep.train.models.attention import Heads, rotary_table, rotate
from sweep.train.models.cpu import pointwise
from sweep.train.models.cpu.attention import causal_attention
from sweep.train.models.cpu.linear import linear
from sweep.train.models.cross_entropy import summed_cross_entropy
from sweep.train.models.layers import LayerNorm, Linear, RMSNorm, bf16_linear_maps
from tests.configs import TINY

GENERATOR = torch.Generator().manual_seed(0)


def random(*shape, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=GENERATOR)


def agree(part, plain, x, parameters=(), **tolerance):
    """A part's value, and the gradients it gives, are those of `plain` under autograd."""
    with torch.no_grad():
        value, pull = part(x.clone())
    g = random(*value.shape, dtype=value.dtype)
    leaf = x.clone().requires_grad_()
    expected = plain(leaf)
    gradients = torch.autograd.grad(expected, [leaf, *parameters], g.to(expected.dtype))
    with torch.no_grad():
        d_x = pull(g.clone())
    torch.testing.assert_close(value, expected.detach(), check_dtype=False, **tolerance)
    for mine, its in zip([d_x, *(p.grad for p in parameters)], gradients, strict=True):
        torch.testing.assert_close(mine, its, check_dtype=False, **tolerance)


def drawn(module):
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(random(*parameter.shape))
    return module


@pytest.mark.parametrize("kind", [RMSNorm, LayerNorm])
@pytest.mark.parametrize("bias", [True, False])
def test_norms(kind, bias):
    module = drawn(kind(replace(TINY, bias=bias, norm_eps=1e-3)))
    x = random(12, TINY.d_model)
    agree(lambda x: pointwise.norm(x, module), module, x, list(module.parameters()))


PLAIN = {
    "relu2": lambda x: F.relu(x) ** 2,
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_exact": F.gelu,
}


@pytest.mark.parametrize("name", pointwise.ACTIVATIONS)
def test_activations(name):
    agree(pointwise.ACTIVATIONS[name], PLAIN[name], random(5, 7))


@pytest.mark.parametrize("name", pointwise.TAKES_BF16)
def test_activations_that_take_bf16_give_what_casts_around_them_would(name):
    x, g = random(64, 64).bfloat16(), random(64, 64).bfloat16()
    narrow, pull = pointwise.ACTIVATIONS[name](x)
    wide, pull_wide = pointwise.ACTIVATIONS[name](x.float())
    assert torch.equal(narrow, wide.bfloat16())
    assert torch.equal(pull(g), pull_wide(g.float()).bfloat16())


def test_the_gate():
    gate, up, g = (random(5, 7) for _ in range(3))
    value, pull = pointwise.gated_silu(gate, up)
    leaves = gate.clone().requires_grad_(), up.clone().requires_grad_()
    expected = F.silu(leaves[0]) * leaves[1]
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(pull(g.clone()), torch.autograd.grad(expected, leaves, g))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("shape", [(6, 4, 5), (1024, 128, 384), (1024, 512, 128)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_linear_map_whatever_library_multiplies(bias, residual, shape, dtype):
    n, k, m = shape
    layer = drawn(Linear(k, m, bias=bias)).to(dtype)
    added = random(n, m, dtype=dtype) if residual else None
    tolerance = {"rtol": 1e-5, "atol": 2e-4} if dtype == torch.float32 else {}
    agree(
        lambda x: linear(x, layer, bf16=False, residual=added),
        lambda x: F.linear(x, layer.weight, layer.bias) + (0 if added is None else added),
        random(n, k, dtype=dtype),
        list(layer.parameters()),
        **tolerance,
    )


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_a_bf16_linear_map_is_fp32_products_of_rounded_operands(monkeypatch, native, bias):
    monkeypatch.setattr(gemm, "bf16_is_native", lambda: native)
    x, layer = random(64, 32, dtype=torch.float32), drawn(Linear(32, 48, bias=bias)).float()
    weight, added = layer.weight.detach().bfloat16().float(), random(64, 48, dtype=torch.float32)
    with torch.no_grad():
        y, pull = linear(x, layer, bf16=True, residual=added)
    exact = F.linear(x.bfloat16().float(), weight, layer.bias) + added
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, exact, rtol=2**-7, atol=2**-6)
    ones = torch.ones(64, 48)
    with torch.no_grad():
        d_x = pull(ones.clone())
    torch.testing.assert_close(d_x.float(), ones @ weight, rtol=2**-7, atol=1e-5)
    torch.testing.assert_close(layer.weight.grad, ones.T @ x.bfloat16().float(), rtol=2**-7, atol=1e-5)
    with bf16_linear_maps(True):
        torch.testing.assert_close(layer(x) + added, y, rtol=2**-7, atol=2**-6)


def test_a_bf16_copy_is_made_once_and_again_when_told():
    weight = torch.nn.Parameter(torch.ones(4, 4))
    first = gemm.bf16_copy(weight)
    assert gemm.bf16_copy(weight) is first
    gemm.weights_changed()
    assert gemm.bf16_copy(weight) is not first


HEADS = [
    Heads(2, 2, 4, None, 0.5),
    Heads(4, 2, 4, None, 0.25),
    Heads(2, 1, 4, 1.2, 0.5),
    Heads(3, 3, 4, 2.0, 0.5),
]


def plain_attention(rows, seq_len, rotary, heads):
    split = rows.view(-1, seq_len, rows.size(-1) // heads.head_dim, heads.head_dim).transpose(1, 2)
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
    return mixed.transpose(1, 2).reshape(len(rows), -1)


@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("seq_len", [5, 300])  # scores kept, and torch's fused kernel
def test_attention(heads, turned, seq_len):
    rotary = rotary_table(seq_len, heads.head_dim, 100.0).double() if turned else None
    rows = random(2 * seq_len, (heads.n_heads + 2 * heads.n_kv_heads) * heads.head_dim)
    agree(
        lambda x: causal_attention(x, seq_len, rotary, heads, torch.float64),
        lambda x: plain_attention(x, seq_len, rotary, heads),
        rows,
    )


@pytest.mark.parametrize("seq_len", [5, 300])
def test_attention_of_bf16_projections_is_computed_in_fp32(seq_len):
    heads = Heads(4, 2, 8, None, 8**-0.5)
    rows = random(2 * seq_len, 64, dtype=torch.float32).bfloat16()
    mixed, pull = causal_attention(rows, seq_len, None, heads, torch.bfloat16)
    wide, pull_wide = causal_attention(rows.float(), seq_len, None, heads, torch.float32)
    assert torch.equal(mixed, wide.bfloat16())
    g = random(*mixed.shape).bfloat16()
    assert torch.equal(pull(g), pull_wide(g.float()).bfloat16())


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


def test_products_elsewhere_are_never_onednns(monkeypatch):
    monkeypatch.setattr(gemm, "onednn_is_faster", lambda: True)
    assert gemm._suits_onednn(torch.empty(2, 2), gemm.MIN_ONEDNN_MACS)
    assert not gemm._suits_onednn(torch.empty(2, 2, device="meta"), gemm.MIN_ONEDNN_MACS)
