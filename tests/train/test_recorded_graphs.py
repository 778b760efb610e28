"""Capture and replay of CUDA graphs, with recorded CPU operations as a stand-in."""

import contextlib
import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sweep.records import Placement
from sweep.train.cuda import CudaStep, run_block
from sweep.train.graphs import capture_stream
from sweep.train.models.gpt import GPT
from sweep.train.step import TrainingStep
from tests.configs import TINY, tiny_run

RUN = tiny_run(model=replace(TINY, seq_len=16, vocab_size=64), batch_tokens=8 * 16, n_tokens=8 * 16 * 12)
DATA = np.random.default_rng(0).integers(0, 64, (12, 8, 17))
CHOSEN = {"compile": False}


class Graph(TorchDispatchMode):
    """Undoes recorded operations, as if only captured; a replay applies them to the same memory."""

    def __init__(self):
        super().__init__()
        self.tape, self.before, self.replays = [], {}, 0

    def pool(self):
        return (0, 0)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        names = [argument.name for argument in func._schema.arguments]
        for name, value in [*zip(names, args, strict=False), *kwargs.items()]:
            if name in written(func):
                for tensor in tree_leaves(value):
                    self.before.setdefault(id(tensor), (tensor, tensor.clone()))
        out = func(*args, **kwargs)
        self.tape.append((func, args, kwargs, out))
        return out

    def undo(self):
        for tensor, value in reversed(list(self.before.values())):
            tensor.copy_(value)

    @torch.no_grad()
    def replay(self):
        self.replays += 1
        for func, args, kwargs, out in self.tape:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def written(func):
    return {a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write}


@contextlib.contextmanager
def recording(graph, **_):
    with graph:
        yield
    with torch.no_grad():
        graph.undo()


class Stream:
    def wait_stream(self, other):
        pass


@pytest.fixture
def recorded(monkeypatch):
    fakes = {"synchronize": lambda *_: None, "Stream": Stream, "current_stream": Stream,
             "set_stream": lambda _: None, "CUDAGraph": Graph,
             "stream": lambda _: contextlib.nullcontext(), "graph": recording}  # fmt: skip
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    capture_stream.cache_clear()
    yield
    capture_stream.cache_clear()


def stepper(tmp_path, run, *, graph, micro_batch_size=None):
    model = GPT(run.model)
    model.initialise(torch.Generator().manual_seed(0))
    placement = Placement(
        data_dir=tmp_path, device="cpu", n_threads=1, micro_batch_size=micro_batch_size,
        checkpoint_interval_s=1e9,
    )  # fmt: skip
    step = TrainingStep(model, run, placement, lambda number, a, b: DATA[number, a:b])
    step._cuda = CudaStep(model, run, torch.device("cpu"), step.choices)
    for group in getattr(step.update, "groups", ()):
        group.lr = torch.zeros(())  # as on a GPU
    step.choose({**CHOSEN, "graph": graph})
    return step


@pytest.mark.parametrize(
    ("name", "micro_batch_size", "momentum"),
    [("adamw", None, None), ("adamw", 3, None), ("sgd", 3, 0.9), ("sgd", None, 0.0), ("muon", 4, 0.9)],
)
def test_replayed_steps_equal_those_carried_out(tmp_path, recorded, name, micro_batch_size, momentum):
    optimizer = replace(RUN.optimizer, name=name, momentum=momentum)
    run = replace(RUN, optimizer=optimizer)
    plain = stepper(tmp_path, run, graph=False, micro_batch_size=micro_batch_size)
    step = stepper(tmp_path, run, graph=True, micro_batch_size=micro_batch_size)
    for number in range(12):  # through a warm-up and a decay of the learning rate
        assert torch.equal(step(number), plain(number))
    assert all(map(torch.equal, step.model.parameters(), plain.model.parameters()))
    n_shapes = 2 if micro_batch_size == 3 else 1
    assert len(step._cuda._graphs) == n_shapes
    assert step._cuda._update_graph.replays == 11


def test_a_failed_capture_is_reported_and_training_continues(tmp_path, recorded, monkeypatch):
    plain, step = (stepper(tmp_path, RUN, graph=graph, micro_batch_size=4) for graph in (False, True))

    @contextlib.contextmanager
    def failing(graph, **_):
        yield
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", failing)
    with pytest.warns(RuntimeWarning, match="capturing a CUDA graph failed, continuing without it: .*stream"):
        assert torch.equal(step(0), plain(0))
    assert step.choices["graph"] is False
    assert all(torch.equal(step(number), plain(number)) for number in range(1, 6))


def test_a_failed_capture_of_the_update_leaves_the_passes_as_graphs(tmp_path, recorded, monkeypatch):
    plain, step = (stepper(tmp_path, RUN, graph=graph, micro_batch_size=4) for graph in (False, True))
    assert torch.equal(step(0), plain(0))

    @contextlib.contextmanager
    def failing(graph, **_):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        yield

    monkeypatch.setattr(torch.cuda, "graph", failing)
    with pytest.warns(RuntimeWarning, match="capturing the update in a CUDA graph failed"):
        assert torch.equal(step(1), plain(1))
    assert all(torch.equal(step(number), plain(number)) for number in range(2, 6))
    assert step._cuda._update_graph is None
    assert step.choices["graph"] is True


def test_an_attention_kernel_that_does_not_work_is_replaced(tmp_path, recorded, monkeypatch):
    plain, step = stepper(tmp_path, RUN, graph=False), stepper(tmp_path, RUN, graph=True)
    hidden = step.model.hidden

    def failing(tokens, block):
        if block is run_block:
            raise RuntimeError("cuDNN Frontend error: No execution plans support the graph.")
        return hidden(tokens, block)

    monkeypatch.setattr(step.model, "hidden", failing)
    with pytest.warns(RuntimeWarning, match="cuDNN's attention failed, continuing without it"):
        assert torch.equal(step(0), plain(0))
    assert step.choices["graph"] is True
    assert all(torch.equal(step(number), plain(number)) for number in range(1, 4))


def test_an_error_of_the_training_itself_is_raised(tmp_path, recorded, monkeypatch):
    step = stepper(tmp_path, RUN, graph=True)

    def failing(*arguments):
        raise RuntimeError("a bug")

    monkeypatch.setattr(step.model, "hidden", failing)
    with pytest.raises(RuntimeError, match="a bug"):
        step(0)
    assert step.choices["graph"] is True


def test_a_replayed_update_uses_the_state_that_was_loaded(tmp_path, recorded):
    step = stepper(tmp_path, RUN, graph=True)
    for number in range(6):
        step(number)
    weights, moments = copy.deepcopy(step.model.state_dict()), copy.deepcopy(step.optimizer.state_dict())
    expected = [step(number) for number in range(6, 12)]
    step.model.load_state_dict(weights)
    step.optimizer.load_state_dict(moments)
    assert all(map(torch.equal, [step(number) for number in range(6, 12)], expected))
    assert step._cuda._update_graph.replays == 17


def test_memory_that_runs_out_drops_the_passes_graphs_alone(tmp_path, recorded, monkeypatch):
    plain = stepper(tmp_path, RUN, graph=False, micro_batch_size=4)
    step = stepper(tmp_path, RUN, graph=True)
    for number in range(4):
        assert float(step(number)) == pytest.approx(float(plain(number)), rel=1e-5)
    backward = step._cuda.backward

    def failing(tokens):
        if len(tokens) > 4:
            raise torch.OutOfMemoryError("planted")
        return backward(tokens)

    monkeypatch.setattr(step._cuda, "backward", failing)
    for number in range(4, 12):
        assert float(step(number)) == pytest.approx(float(plain(number)), rel=1e-5)
    assert step.micro_batch_size == 4
    assert list(step._cuda._graphs) == [4]
    assert step._cuda._update_graph.replays == 11
