"""Detached local workers: they survive the process that started them, supervised, until a cancel."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sweep.launch import supervisor
from sweep.launch.choose import detach
from sweep.launch.process import StopFlag
from sweep.launch.spec import LaunchSpec
from sweep.store.attempts.attempts import read_attempts
from sweep.store.files import read_json
from sweep.store.run_store import RunStore
from sweep.worker.__main__ import work
from tests.faults.processes import start, wait_until
from tests.launch.contract import leave_nothing_running, toy_command, undisturbed
from tests.toy_trainer import science, toy_sweep, train


@pytest.fixture(autouse=True)
def _leave_nothing(tmp_path: Path) -> Iterator[None]:
    yield
    leave_nothing_running(tmp_path)


def _start_and_leave(sweep_dir: Path, step_s: float) -> None:
    store = RunStore(sweep_dir)
    command = toy_command(sweep_dir, TOY_STEP_S=step_s)
    spec = LaunchSpec(sweep_dir=str(sweep_dir.absolute()), device="cpu", command=tuple(command))
    detach(store.latest_experiment().launch, spec)
    os._exit(0)


def detached(store: RunStore, step_s: float) -> None:
    """Start the workers from a process that has exited when this returns."""
    starter = start(_start_and_leave, store.sweep_dir, step_s)
    starter.join(20)
    assert starter.exitcode == 0


def supervisors(store: RunStore) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if "sweep.launch.supervisor" in (process.info["cmdline"] or [])
        and str(store.sweep_dir) in " ".join(process.info["cmdline"])
    ]


def holder(store: RunStore) -> int:
    (claim,) = store.sweep_dir.glob("runs/*/attempts/[0-9]/claim.json")
    return int((read_json(claim) or {})["holder"]["pid"])


@pytest.mark.ci
def test_detached_workers_are_restarted_after_a_death(tmp_path: Path) -> None:
    store = toy_sweep(tmp_path / "sweep", 1, n_steps=60, n_workers=1)
    detached(store, step_s=0.02)
    wait_until(lambda: bool(list(store.sweep_dir.glob("runs/*/attempts/1/checkpoint/state.json"))))
    os.kill(holder(store), signal.SIGKILL)
    wait_until(lambda: supervisors(store) == [])
    (run_dir,) = (store.sweep_dir / "runs").iterdir()
    # The result appears a moment before the end of the attempt is recorded.
    wait_until(lambda: [attempt.state for attempt in read_attempts(run_dir)] == ["failed:host", "done"])
    assert science(store) == undisturbed(tmp_path, 1, n_steps=60)


@pytest.mark.ci
def test_cancel_ends_supervisor_and_workers_with_their_state_saved(tmp_path: Path) -> None:
    store = toy_sweep(tmp_path / "sweep", 2, n_steps=5000, n_workers=1, lease_s=1)
    detached(store, step_s=0.01)
    wait_until(lambda: store.status().counts.get("running") == 1)
    assert len(supervisors(store)) == 1
    store.cancel()
    wait_until(lambda: supervisors(store) == [])
    assert store.status().counts == {"planned": 1, "preempted": 1}


def test_a_signal_to_the_supervisor_drains_its_workers(tmp_path: Path) -> None:
    store = toy_sweep(tmp_path / "sweep", 1, n_steps=5000, n_workers=1)
    detached(store, step_s=0.01)
    wait_until(lambda: store.status().counts.get("running") == 1)
    (background,) = supervisors(store)
    assert os.getsid(background.pid) != os.getsid(0)  # it gets no SIGHUP from our terminal
    background.terminate()
    wait_until(lambda: supervisors(store) == [])
    assert store.status().counts == {"preempted": 1}


def test_points_the_sql_copy_lacks_at_the_end_are_written_by_the_supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = toy_sweep(tmp_path / "sweep", 2)
    assert work(store.sweep_dir, train=train).n_done == 2  # while there was no database
    monkeypatch.setenv("SWEEP_INDEX_URL", f"sqlite:///{tmp_path / 'copy.db'}")
    command = tuple(toy_command(store.sweep_dir))
    spec = LaunchSpec(sweep_dir=str(store.sweep_dir), device="cpu", command=command)
    assert supervisor.supervise(spec, StopFlag()) == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "copy.db")) as connection:
        assert connection.execute("select count(*) from sweep_points").fetchall() == [(2,)]


def test_the_traceback_of_a_bug_contains_no_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "canary-5b7e21")

    def fail(argument: str) -> None:
        raise RuntimeError(f"no answer for {os.environ['SOME_API_KEY']}")

    monkeypatch.setattr(supervisor, "read_spec", fail)
    assert supervisor.main(["{}"]) == 70
    message = capsys.readouterr().err
    assert "RuntimeError: no answer for" in message
    assert "canary" not in message


@pytest.mark.parametrize("argument", ["", "{", "[]", '{"sweep_dirs": 1}'])
def test_an_invalid_specification_is_bad_input(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert supervisor.main([argument]) == 2
    assert "invalid launch specification" in capsys.readouterr().err
