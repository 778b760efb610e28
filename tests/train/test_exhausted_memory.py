"""Out of memory: smaller micro-batches with equal D, C, schedule and data order."""

from __future__ import annotations

import pytest
import torch

from sweep.data.batches import TrainBatches
from sweep.errors import Interrupted
from sweep.store.attempts.failures import classify
from sweep.train.checkpoint import load_latest
from sweep.train.loop import train
from sweep.train.models.gpt import GPT
from sweep.train.step import TrainingStep
from tests.train.sessions import Session, placement, run_on

N_STEPS = 10
CPU_WORDS = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"
ERRORS = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory"),
    "driver": RuntimeError("CUDA error: out of memory"),
    "cpu": RuntimeError(CPU_WORDS),
    "python": MemoryError(),
}


@pytest.fixture
def run(corpus):
    return run_on(corpus, n_tokens=256 * N_STEPS)


class Allocator:
    """Fails passes of more than `limit` sequences, and passes numbered, from 0, in `at`."""

    def __init__(self, monkeypatch, error, limit=10**9, at=(), scoring_limit=10**9):
        self.sizes = []
        self._watch(monkeypatch, TrainingStep, "_backward", error, limit, at)  # of training
        self._watch(monkeypatch, GPT, "losses", error, scoring_limit, at)

    def _watch(self, monkeypatch, owner, name, error, limit, at):
        real = getattr(owner, name)

        def watched(owner, tokens, *args, **kwargs):
            number, size = len(self.sizes), len(tokens)
            self.sizes.append(size)
            if size > limit or number in at:
                raise error
            return real(owner, tokens, *args, **kwargs)

        monkeypatch.setattr(owner, name, watched)


def read_rows(monkeypatch):
    """Record the requested (step, start, stop) in order."""
    asked = []
    real = TrainBatches.rows

    def rows(self, step, start, stop):
        asked.append((step, start, stop))
        return real(self, step, start, stop)

    monkeypatch.setattr(TrainBatches, "rows", rows)
    return asked


def schedule(result):
    return [(p.step, p.n_tokens, p.flops, p.lr) for p in result.curve]


@pytest.mark.parametrize(("kind", "limit"), [("cuda", 1), ("driver", 3), ("cpu", 5), ("python", 3)])
def test_the_result_is_the_undisturbed_one(corpus, tmp_path, monkeypatch, run, kind, limit):
    calm = train(run, placement(corpus), Session(tmp_path))
    Allocator(monkeypatch, ERRORS[kind], limit=limit)
    asked = read_rows(monkeypatch)
    result = train(run, placement(corpus), Session(tmp_path))
    assert result.loss == pytest.approx(calm.loss, rel=1e-4)
    assert schedule(result) == schedule(calm)
    micro = {1: 1, 3: 2, 5: 4}[limit]  # 8 halved until it fits
    assert result.choices["micro_batch_size"] == micro
    parts = [(0, start, min(start + micro, 8)) for start in range(0, 8, micro)]
    assert asked[-len(parts) :] == [(N_STEPS - 1, start, stop) for _, start, stop in parts]
    assert [step for step, start, _ in asked if start == 0] == sorted(
        step for step, start, _ in asked if not start
    )


@pytest.mark.parametrize("at", [{0}, {5}, {1, 3}])
def test_a_failure_within_accumulation_begins_the_batch_again(corpus, tmp_path, monkeypatch, run, at):
    calm = train(run, placement(corpus), Session(tmp_path))
    Allocator(monkeypatch, ERRORS["cpu"], at=at)
    asked = read_rows(monkeypatch)
    result = train(run, placement(corpus, micro_batch_size=4), Session(tmp_path))
    assert result.loss == pytest.approx(calm.loss, rel=1e-4)
    assert schedule(result) == schedule(calm)
    whole = [(start, stop) for step, start, stop in asked if step == N_STEPS - 1]
    assert [i for start, stop in whole for i in range(start, stop)] == list(range(8))


def test_scoring_is_cut_down_too(corpus, tmp_path, monkeypatch, run):
    calm = train(run, placement(corpus), Session(tmp_path))
    allocator = Allocator(monkeypatch, ERRORS["cpu"], scoring_limit=20)
    result = train(run, placement(corpus), Session(tmp_path))
    assert result.loss == pytest.approx(calm.loss, rel=1e-6)
    assert result.loss_stderr == pytest.approx(calm.loss_stderr, rel=1e-4)
    assert allocator.sizes[-8:] == [16] * 8  # 128 windows


def test_what_was_found_is_kept_by_the_checkpoint(corpus, tmp_path, monkeypatch, run):
    with monkeypatch.context() as tight:
        Allocator(tight, ERRORS["cpu"], limit=3)
        with pytest.raises(Interrupted):
            train(run, placement(corpus), Session(tmp_path, stop_after=4))
    assert load_latest(tmp_path).values["choices"] == {"micro_batch_size": 2}
    roomy = Allocator(monkeypatch, ERRORS["cpu"])
    result = train(run, placement(corpus), Session(tmp_path))
    assert set(roomy.sizes[:-1]) == {2}
    assert result.choices["micro_batch_size"] == 2


@pytest.mark.parametrize("kind", ERRORS)
def test_one_sequence_too_much_is_out_of_memory(corpus, tmp_path, monkeypatch, run, kind):
    Allocator(monkeypatch, ERRORS[kind], limit=0)
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        train(run, placement(corpus), Session(tmp_path))
    assert classify(caught.value)[0] == "failed:oom"


def test_the_allocators_own_message_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 55, dtype=torch.uint8)
    assert classify(caught.value)[0] == "failed:oom"


def test_other_errors_are_not_mistaken(corpus, tmp_path, monkeypatch, run):
    allocator = Allocator(monkeypatch, RuntimeError("a bug"), limit=0)
    with pytest.raises(RuntimeError, match="a bug"):
        train(run, placement(corpus), Session(tmp_path))
    assert allocator.sizes == [8]
