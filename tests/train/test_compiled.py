"""Compilation for a CUDA device, tested without one."""

from dataclasses import replace

import pytest
import torch
import torch._dynamo

from sweep.train.cuda import run_block, run_block_repeatably
from sweep.train.models.cross_entropy import chunk_loss, fusible_chunk_loss
from sweep.train.models.gpt import GPT
from tests.configs import TINY

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute")  # the compiler reads it of any input


def initialised(config):
    model = GPT(config)
    model.initialise(torch.Generator().manual_seed(0))
    return model


@pytest.fixture
def counted():
    """Blocks compiled by a backend that counts its graphs and runs them as they are."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    yield torch.compile(run_block, backend=backend, dynamic=False, fullgraph=True), graphs
    torch._dynamo.reset()


def test_one_compilation_serves_all_layers_depths_and_models_of_a_width(counted):
    block, graphs = counted
    tokens = torch.zeros(2, 4, dtype=torch.long)
    for n_layers in (1, 2, 5):
        model = initialised(replace(TINY, n_layers=n_layers))
        assert torch.allclose(model.hidden(tokens, block), model.hidden(tokens), atol=1e-6)
    assert len(graphs) == 1
    model.hidden(tokens[:1], block)
    assert len(graphs) == 2  # another number of sequences


def test_the_attention_kernels_are_part_of_the_compiled_code(counted):
    block, graphs = counted
    initialised(TINY).hidden(torch.zeros(1, 4, dtype=torch.long), block)
    assert any("sdpa_kernel" in str(node.target) for node in graphs[0].graph.nodes)


@pytest.mark.parametrize("block", [run_block, run_block_repeatably])
def test_blocks_with_chosen_kernels_equal_plain_ones(block):
    model = initialised(TINY)
    tokens = torch.zeros(2, 4, dtype=torch.long)
    assert torch.allclose(model.hidden(tokens, block), model.hidden(tokens), atol=1e-6)


def test_gradients_through_the_compiler_equal_eager_ones():
    model, tokens = initialised(TINY), torch.zeros(2, 4, dtype=torch.long)
    block = torch.compile(run_block, backend="aot_eager", dynamic=False, fullgraph=True)
    model.hidden(tokens, block).square().sum().backward()
    compiled = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model.hidden(tokens).square().sum().backward()
    for parameter, gradient in zip(model.parameters(), compiled, strict=True):
        if gradient is not None:
            assert torch.allclose(parameter.grad, gradient, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_fused_head_gives_the_loss_and_gradient_of_the_plain_one(dtype):
    generator = torch.Generator().manual_seed(0)
    rows, weight = torch.randn(40, 16, generator=generator), torch.randn(96, 16, generator=generator)
    targets = torch.randint(0, 96, (40,), generator=generator)
    arguments = rows.to(dtype), weight.to(dtype), targets
    loss, gradient = chunk_loss(*arguments)
    fused_loss, fused_gradient = fusible_chunk_loss(*arguments)
    assert float(fused_loss) == pytest.approx(float(loss), rel=2e-6)
    assert fused_gradient.dtype == dtype
    assert torch.allclose(fused_gradient, gradient.to(dtype), atol=1e-6)
