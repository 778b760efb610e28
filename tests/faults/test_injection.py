"""Errors and deaths at each single file operation: readers see old or new, and the sweep finishes."""

import errno
import os
import threading

import pytest

from sweep.store.points import ResultError, read_result
from sweep.worker.__main__ import main, work
from tests.faults.processes import start
from tests.toy_trainer import science, toy_sweep, train

OPERATIONS = "open write fsync link rename replace mkdir unlink".split()


class Sabotage:
    """Counts the file operations of this thread and calls `act` at the chosen one."""

    def __init__(self, at, act):
        self.at, self.act, self.count = at, act, 0
        self.names = []
        self._thread = threading.get_ident()
        self._whole = {name: getattr(os, name) for name in OPERATIONS}

    def install(self, patch):
        for name in OPERATIONS:
            patch(os, name, self._wrapped(name, self._whole[name]))

    def _wrapped(self, name, call):
        def sabotaged(*args, **kwargs):
            if threading.get_ident() != self._thread:
                return call(*args, **kwargs)
            self.count += 1
            self.names.append(name)
            if self.count == self.at:
                return self.act(call, *args, **kwargs)
            return call(*args, **kwargs)

        return sabotaged


def _fail(call, *args, **kwargs):
    raise OSError(errno.EIO, "injected")


def _lose_reply(call, *args, **kwargs):
    call(*args, **kwargs)
    raise OSError(errno.EIO, "lost reply")


def _die(call, *args, **kwargs):
    os._exit(9)


def _die_after(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    finally:
        os._exit(9)


def count_operations(sweep_dir, monkeypatch):
    with monkeypatch.context() as patch:
        counter = Sabotage(0, _fail)
        counter.install(patch.setattr)
        work(sweep_dir, train=train)
    assert {"link", "rename", "replace", "fsync", "write", "open", "mkdir"} <= set(counter.names)
    return counter.count


def check_readers(store):
    """Every visible result is complete."""
    for key in (entry.run_key for entry in store.entries()):
        path = store.sweep_dir / "runs" / key / "result.json"
        if path.exists():
            try:
                read_result(path, key)
            except ResultError as error:
                pytest.fail(str(error))


@pytest.fixture
def calm(tmp_path):
    store = toy_sweep(tmp_path / "calm", 1, n_steps=6)
    work(store.sweep_dir, train=train)
    return store


@pytest.mark.parametrize("act", [_fail, _lose_reply])
def test_an_error_at_any_operation_costs_no_point(tmp_path, monkeypatch, calm, measured, act):
    total = count_operations(toy_sweep(tmp_path / "count", 1, n_steps=6).sweep_dir, monkeypatch)
    assert total >= 30
    for at in range(1, total + 1):
        store = toy_sweep(tmp_path / f"{act.__name__}-{at}", 1, n_steps=6, lease_s=1)
        with monkeypatch.context() as patch:
            Sabotage(at, act).install(patch.setattr)
            main([str(store.sweep_dir)], train=train)
        check_readers(store)
        entry = store.entries()[0]
        if not store.has_result(entry.run_key):
            store.retry(entry.run_key)
            main([str(store.sweep_dir)], train=train)
        assert science(store) == science(calm), f"operation {at}"
    kind = "an error" if act is _fail else "a lost reply"
    measured(
        f"{kind} at each step of claim, checkpoint and commit", f"{total} of {total}: readers see old or new"
    )


def _work_and_die(sweep_dir, at, after):
    Sabotage(at, _die_after if after else _die).install(setattr)
    main([str(sweep_dir)], train=train)
    os._exit(0)


# A death after one operation is one before the next: only the long form tries both.
@pytest.mark.parametrize(
    "after", [pytest.param(False, marks=pytest.mark.ci), pytest.param(True, marks=pytest.mark.long)]
)
def test_a_death_at_any_operation_costs_no_point(tmp_path, monkeypatch, calm, measured, after):
    total = count_operations(toy_sweep(tmp_path / "count", 1, n_steps=6).sweep_dir, monkeypatch)
    for at in range(1, total + 1):
        store = toy_sweep(tmp_path / f"death-{at}", 1, n_steps=6)
        process = start(_work_and_die, store.sweep_dir, at, after)
        process.join(20)
        assert process.exitcode == 9
        check_readers(store)
        work(store.sweep_dir, train=train)
        assert science(store) == science(calm), f"operation {at}"
        assert store.status().counts == {"done": 1}
    kind = "after" if after else "before"
    measured(
        f"a death {kind} each step of claim, checkpoint and commit",
        f"{total} of {total}: readers see old or new",
    )
