"""The CPU's own functions: their gradients by finite differences, their values against torch's plain ones."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.autograd import gradcheck

from sweep.models import gemm
from sweep.models.attention import Heads, causal_attention
from sweep.models.cross_entropy import summed_cross_entropy
from sweep.models.layers import rotary_table, rotate
from sweep.models.pointwise import rms_norm, squared_relu, tanh_gelu

GENERATOR = torch.Generator().manual_seed(0)


def random(*shape, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=GENERATOR).requires_grad_()


def test_gradients_of_norms_and_activations():
    x, gain = random(3, 4, 6), random(6)
    assert gradcheck(lambda x, g: rms_norm(x, g, 1e-3), (x, gain))
    assert gradcheck(tanh_gelu, (x,))
    assert gradcheck(squared_relu, (x,))


def test_values_of_norms_and_activations():
    x, gain = random(3, 4, 6), random(6)
    assert torch.allclose(rms_norm(x, gain, 1e-3), F.rms_norm(x, (6,), gain, 1e-3))
    assert torch.allclose(tanh_gelu(x), F.gelu(x, approximate="tanh"))
    assert torch.allclose(squared_relu(x), F.relu(x) ** 2)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("residual", [True, False])
def test_gradients_of_a_linear_map(bias, residual):
    inputs = [
        random(2, 3, 4),
        random(5, 4),
        random(5) if bias else None,
        random(2, 3, 5) if residual else None,
    ]
    assert gradcheck(gemm.linear, tuple(inputs))


@pytest.mark.parametrize("shape", [(1024, 128, 384), (1024, 512, 128), (96, 8, 8)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_map_equals_torchs_whatever_library_multiplies(shape, bias):
    n, k, m = shape
    inputs = [random(n, k, dtype=torch.float32), random(m, k, dtype=torch.float32)]
    inputs += [random(m, dtype=torch.float32)] if bias else [None]
    inputs += [random(n, m, dtype=torch.float32)]
    x, weight, b, residual = inputs
    given = [t for t in inputs if t is not None]
    grad = torch.randn(n, m, generator=GENERATOR)
    ours = gemm.linear(x, weight, b, residual)
    theirs = F.linear(x, weight, b) + residual
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-4)
    pairs = zip(torch.autograd.grad(ours, given, grad), torch.autograd.grad(theirs, given, grad), strict=True)
    for mine, its in pairs:
        assert torch.allclose(mine, its, rtol=1e-5, atol=1e-4)


def test_a_bf16_linear_map_is_fp32_products_of_rounded_operands():
    x, weight = random(64, 32, dtype=torch.float32), random(48, 32, dtype=torch.float32)
    with gemm.bf16_linear_maps(True):
        y = gemm.linear(x, weight)
    assert y.dtype == torch.float32
    exact = F.linear(x.bfloat16().float(), weight.bfloat16().float())
    assert torch.allclose(y, exact, rtol=2**-8, atol=1e-6)
    dx, dw = torch.autograd.grad(y.sum(), (x, weight))
    ones = torch.ones(64, 48)
    assert torch.allclose(dx, ones @ weight.bfloat16().float(), rtol=2**-8, atol=1e-5)
    assert torch.allclose(dw, ones.T @ x.bfloat16().float(), rtol=2**-8, atol=1e-5)


def test_a_bf16_copy_is_made_once_and_again_when_told():
    weight = torch.nn.Parameter(torch.ones(4, 4))
    first = gemm.bf16_copy(weight)
    assert gemm.bf16_copy(weight) is first
    gemm.weights_changed()
    assert gemm.bf16_copy(weight) is not first


HEADS = [Heads(2, 2, 4, None, 0.5), Heads(4, 2, 4, None, 0.25), Heads(2, 1, 4, 1.2, 0.5)]


def plain_attention(qkv, rotary, heads):
    batch, seq_len, _ = qkv.shape
    split = qkv.view(batch, seq_len, -1, heads.head_dim).transpose(1, 2)
    qk, value = split.split((heads.n_heads + heads.n_kv_heads, heads.n_kv_heads), dim=1)
    if heads.qk_gain is not None:
        qk = F.rms_norm(qk, (heads.head_dim,)) * heads.qk_gain
    if rotary is not None:
        qk = rotate(qk, rotary)
    query, key = qk.split((heads.n_heads, heads.n_kv_heads), dim=1)
    mixed = F.scaled_dot_product_attention(
        query, key, value, is_causal=True, enable_gqa=True, scale=heads.scale
    )
    return mixed.transpose(1, 2).reshape(batch, seq_len, -1)


@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("heads", HEADS)
def test_attention_against_torchs_and_by_finite_differences(heads, turned):
    qkv = random(2, 5, (heads.n_heads + 2 * heads.n_kv_heads) * heads.head_dim)
    rotary = rotary_table(5, heads.head_dim, 100.0).double() if turned else None
    assert torch.allclose(causal_attention(qkv, rotary, heads), plain_attention(qkv, rotary, heads))
    assert gradcheck(lambda x: causal_attention(x, rotary, heads), (qkv,))


@pytest.mark.parametrize("n_rows", [3, 7, 64])
def test_cross_entropy_in_chunks_against_torchs_and_by_finite_differences(n_rows):
    hidden, weight = random(7, 4), random(9, 4)
    targets = torch.randint(0, 9, (7,), generator=GENERATOR)

    def summed(hidden, weight):
        return summed_cross_entropy(hidden, weight, targets, n_rows=n_rows)

    assert torch.allclose(
        summed(hidden, weight), F.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    )
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
