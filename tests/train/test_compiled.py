"""Compilation for a CUDA device, tested without one."""

import torch

from sweep.train.cuda import hidden_under
from sweep.train.models.gpt import GPT
from tests.configs import TINY


def test_code_compiled_under_each_attention_is_a_function_of_its_own():
    model = GPT(TINY)
    model.initialise(torch.Generator().manual_seed(0))
    tokens = torch.zeros(1, 4, dtype=torch.long)
    flash, math = hidden_under("flash"), hidden_under("math")
    assert flash.__code__ is not math.__code__ is not GPT.hidden.__code__
    assert torch.equal(flash(model, tokens), model.hidden(tokens))


def test_compiled_code_of_each_attention_is_kept_apart_and_serves_other_models():
    """On no device at all the model takes the way of a GPU, whole into one graph."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    tokens = torch.zeros(1, 4, dtype=torch.long, device="meta")
    compiled = [
        torch.compile(hidden_under(name), backend=backend, dynamic=False, fullgraph=True)
        for name in ("flash", "math")
    ]
    for _ in range(2):
        model = GPT(TINY).to("meta")
        for hidden in compiled:
            hidden(model, tokens)
    assert len(graphs) == 2
