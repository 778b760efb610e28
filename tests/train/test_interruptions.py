"""Runs killed at any point and resumed end bit-identical to an uninterrupted run."""

from __future__ import annotations

import math
import os

import pytest
import torch

from sweep.data.batches import TrainBatches
from sweep.errors import Interrupted
from sweep.train import checkpoint
from sweep.train.checkpoint import load_latest
from sweep.train.loop import train
from tests.train.sessions import Session, placement, run_on

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch reads it once, at the first product
N_STEPS = 24
DEVICES = [
    "cpu",
    pytest.param("cuda:0", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")),
]


class Killed(BaseException):
    """Stands for the death of the process; nothing catches it."""


class Count:
    """Raises Killed once, at the `n`-th call of a function."""

    def __init__(self, monkeypatch, owner, name, n, after=False):
        self.left, real = n, getattr(owner, name)

        def counted(*args, **kwargs):
            self.left -= 1
            result = real(*args, **kwargs) if after or self.left != 0 else None
            if self.left == 0:
                raise Killed
            return result

        monkeypatch.setattr(owner, name, counted)


# The interrupted operation of each attempt. A step of 8 sequences in parts of 3 reads rows three times.
STOP, ROWS, SCORE, FSYNC, RENAME, HEADER, UNLINK = "stop rows score fsync rename header unlink".split()
POINTS = {
    "stopped after the first step": [(STOP, 1)],
    "stopped in the middle": [(STOP, 12)],
    "stopped before the last step": [(STOP, 23)],
    "stopped twice": [(STOP, 7), (STOP, 8)],
    "stopped three times": [(STOP, 3), (STOP, 13), (STOP, 20)],
    "killed before the first part": [(ROWS, 1)],
    "killed within the first batch": [(ROWS, 2)],
    "killed within the last batch": [(ROWS, 72)],
    "killed after one part": [(ROWS, 32)],
    "killed after two parts": [(ROWS, 33)],
    "killed between batches": [(ROWS, 34)],
    "killed within batches three times": [(ROWS, 20), (ROWS, 20), (ROWS, 11)],
    "killed when scoring begins": [(SCORE, 1)],
    "killed while scoring twice": [(SCORE, 1), (SCORE, 1)],
    "killed before tensors were durable": [(FSYNC, 9)],
    "killed before the header was durable": [(FSYNC, 11)],
    "killed between tensors and header": [(HEADER, 5)],
    "killed at a rename": [(RENAME, 8)],
    "killed while pruning": [(UNLINK, 2)],
    "stopped, killed within a batch, killed while saving": [(STOP, 6), (ROWS, 17), (RENAME, 9)],
    "killed while saving, within a batch, while scoring": [(FSYNC, 14), (ROWS, 5), (SCORE, 1)],
}  # fmt: skip


DEFAULT = {
    "stopped twice",
    "killed after one part",
    "killed while scoring twice",
    "killed before the header was durable",
    "killed between tensors and header",
    "killed while pruning",
    "stopped, killed within a batch, killed while saving",
}


def interrupt(monkeypatch, kind, n):
    places = {
        ROWS: (TrainBatches, "rows"),
        FSYNC: (os, "fsync"),
        RENAME: (type(checkpoint.Path()), "replace"),
        HEADER: (checkpoint, "write_atomic"),
        UNLINK: (type(checkpoint.Path()), "unlink"),
        SCORE: ("sweep.train.trainer", "evaluate"),
    }
    owner, name = places[kind]
    if kind == SCORE:
        import sweep.train.trainer as owner
    Count(monkeypatch, owner, name, n)


@pytest.fixture(autouse=True)
def _save_at_every_step(monkeypatch):
    monkeypatch.setattr(checkpoint, "MAX_SAVING_FRAC", 1e9)


def settings(corpus, device):
    return placement(
        corpus,
        device=device,
        micro_batch_size=3,
        checkpoint_interval_s=1e-9,
        keep_checkpoint=True,
        deterministic=device != "cpu",
    )


@pytest.fixture(scope="module", params=DEVICES)
def whole(request, corpus, tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    session = Session(directory)
    result = train(run_on(corpus, n_tokens=256 * N_STEPS), settings(corpus, request.param), session)
    return request.param, result, load_latest(directory), session.records


CASES = [pytest.param(name, marks=[] if name in DEFAULT else [pytest.mark.ci]) for name in POINTS]


@pytest.mark.parametrize("point", CASES)
def test_the_end_is_the_same_to_the_bit(corpus, tmp_path, monkeypatch, whole, point):
    device, expected, end, records = whole
    run, seen = run_on(corpus, n_tokens=256 * N_STEPS), {}
    for kind, n in POINTS[point]:
        session = Session(tmp_path, stop_after=n if kind == STOP else None)
        with monkeypatch.context() as patched:
            if kind != STOP:
                interrupt(patched, kind, n)
            with pytest.raises(Interrupted if kind == STOP else Killed):
                train(run, settings(corpus, device), session)
        seen |= {record["step"]: record for record in session.records if "event" not in record}
    session = Session(tmp_path)
    result = train(run, settings(corpus, device), session)
    seen |= {record["step"]: record for record in session.records if "event" not in record}
    assert (result.loss, result.train_loss, result.loss_stderr) == (
        expected.loss, expected.train_loss, expected.loss_stderr,
    )  # fmt: skip
    assert result.curve == expected.curve
    assert [seen[step] for step in sorted(seen)] == records
    same_state(load_latest(tmp_path), end)


def same_state(one, other):
    assert one.step == other.step
    assert one.tensors.keys() == other.tensors.keys()
    kinds = {name.split(".")[0] for name in one.tensors}
    assert kinds == {"model", "optimizer", "loss_sums"}
    for name, tensor in one.tensors.items():
        assert tensor.dtype == other.tensors[name].dtype, name
        assert torch.equal(tensor, other.tensors[name]), name
    assert one.values["choices"] == other.values["choices"]


def test_there_are_twenty_points_and_all_kinds():
    assert len(POINTS) >= 20
    assert {len(attempts) for attempts in POINTS.values()} == {1, 2, 3}
    for names in (POINTS, DEFAULT):
        kinds = {kind for name in names for kind, _ in POINTS[name]}
        assert kinds == {STOP, ROWS, SCORE, FSYNC, RENAME, HEADER, UNLINK}


@pytest.mark.parametrize(
    "name", ["sgd", "amsgrad", *(pytest.param(name, marks=pytest.mark.ci) for name in ("adam", "nesterov"))]
)
def test_any_optimizers_state_is_saved_and_taken_up(corpus, tmp_path, monkeypatch, name):
    """Includes one without 0-dimensional steps and one with three moments."""
    made = {
        "adam": lambda p: torch.optim.Adam(p, lr=0.01),
        "sgd": lambda p: torch.optim.SGD(p, lr=0.01),
        "nesterov": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
        "amsgrad": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
    }[name]
    monkeypatch.setattr(
        "sweep.train.step.build_optimizer", lambda model, config: made(list(model.parameters()))
    )
    run = run_on(corpus, n_tokens=256 * 8)
    (tmp_path / "cut").mkdir()
    (tmp_path / "whole").mkdir()
    whole = train(run, settings(corpus, "cpu"), Session(tmp_path / "whole"))
    with pytest.raises(Interrupted):
        train(run, settings(corpus, "cpu"), Session(tmp_path / "cut", stop_after=3))
    cut = train(run, settings(corpus, "cpu"), Session(tmp_path / "cut"))
    assert cut.curve == whole.curve
    assert math.isfinite(cut.curve[-1].train_loss)
    if name != "sgd":
        same_state(load_latest(tmp_path / "cut"), load_latest(tmp_path / "whole"))
