"""Contract tests of the launcher interface; each launcher has a test class that inherits them."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from sweep.config import LaunchConfig
from sweep.launch.base import Launcher, LaunchState
from sweep.launch.choose import make_launcher
from sweep.launch.spec import LaunchSpec
from sweep.store.attempts.attempts import read_attempts
from sweep.store.files import read_json, read_records
from sweep.store.run_store import RunStore
from sweep.worker.__main__ import work
from tests.faults.processes import wait_until
from tests.shell import ROOT
from tests.toy_trainer import science, toy_plan, train

CANARY = "canary-4f1c9a"
PATIENCE_S = 90.0


def toy_command(sweep_dir: Path, **toy: object) -> list[str]:
    """A worker command with the toy trainer.

    Its settings are on the command line, since not every launcher passes on our environment.
    """
    settings = [f"{name}={value}" for name, value in toy.items()]
    words = [sys.executable, "-m", "tests.toy_trainer", str(sweep_dir)]
    return ["/usr/bin/env", f"PYTHONPATH={ROOT}", *settings, *words]


def toy_sweep_for(launch: LaunchConfig, directory: Path, n_runs: int, n_steps: int = 12) -> RunStore:
    """A sweep of toy runs with these launch settings."""
    plan = toy_plan(n_runs, n_steps)
    store = RunStore(directory)
    store.add_plan(replace(plan, experiment=replace(plan.experiment, launch=launch)))
    return store


def toy_launcher(store: RunStore, command: list[str] | None = None, **toy: object) -> Launcher:
    """The launcher configured in a sweep, with toy workers or another command."""
    words = tuple(command or toy_command(store.sweep_dir, **toy))
    spec = LaunchSpec(sweep_dir=str(store.sweep_dir.absolute()), device="cpu", command=words)
    return make_launcher(store.latest_experiment().launch, spec)


class LauncherContract:
    """Tests of one launcher; subclasses set `launch`, and `prepare` where needed."""

    launch: Any
    """The launch section of the config; tests set n_workers."""

    death_states: tuple[str, ...] = ("failed:host", "lost")
    """States in which the attempt of a killed worker may end."""

    n_restarts = 0
    """Restarts that the launcher itself reports for one killed worker."""

    @pytest.fixture(autouse=True)
    def prepare(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        yield
        leave_nothing_running(tmp_path)

    def sweep(self, directory: Path, n_runs: int, n_steps: int = 12, **launch: Any) -> RunStore:
        """A sweep of toy runs for two workers."""
        return toy_sweep_for(replace(self.launch, **({"n_workers": 2} | launch)), directory, n_runs, n_steps)

    def launcher(self, store: RunStore, command: list[str] | None = None, **toy: object) -> Launcher:
        return toy_launcher(store, command, **toy)

    def test_two_workers_share_a_sweep_and_train_each_run_once(self, tmp_path: Path) -> None:
        store = self.sweep(tmp_path / "sweep", 8)
        state = run_to_end(self.launcher(store, TOY_JOURNAL=tmp_path / "journal", TOY_STEP_S=0.01))
        assert (state.stopped, state.gave_up) == (False, None)
        assert store.status().counts == {"done": 8}
        assert sorted((tmp_path / "journal").read_text().split()) == sorted(f"run-{i}" for i in range(8))
        assert science(store) == undisturbed(tmp_path, 8)

    def test_a_killed_worker_is_replaced_and_its_run_resumed(self, tmp_path: Path) -> None:
        store = self.sweep(tmp_path / "sweep", 1, n_steps=60, n_workers=1)
        launcher = self.launcher(store, TOY_STEP_S=0.02)
        launcher.start()
        run_dir = next((store.sweep_dir / "runs").iterdir())
        first = run_dir / "attempts" / "1"
        patiently(launcher, lambda: (first / "checkpoint" / "state.json").exists())
        os.kill(read_json(first / "claim.json")["holder"]["pid"], signal.SIGKILL)  # type: ignore[index]
        state = finish(launcher)
        assert (state.n_restarts, state.stopped, state.gave_up) == (self.n_restarts, False, None)
        killed, last = read_attempts(run_dir)
        assert (killed.state in self.death_states, last.state) == (True, "done")
        assert next(read_records(last.path / "metrics.jsonl"))["step"] > 1
        assert science(store) == undisturbed(tmp_path, 1, n_steps=60)

    def test_stop_has_workers_save_and_the_next_start_goes_on(self, tmp_path: Path) -> None:
        store = self.sweep(tmp_path / "sweep", 2, n_steps=600)
        launcher = self.launcher(store, TOY_STEP_S=0.02)
        launcher.start()
        patiently(launcher, lambda: store.status().counts.get("running", 0) == 2)
        launcher.stop()
        launcher.stop()
        state = finish(launcher)
        assert (state.stopped, state.gave_up) == (True, None)
        # A cancelled Ray task counts as ended a moment before its worker has exited.
        wait_until(lambda: store.status().counts == {"preempted": 2})
        run_to_end(self.launcher(store))
        assert science(store) == undisturbed(tmp_path, 2, n_steps=600)
        assert {len(list(run.glob("attempts/*"))) for run in (store.sweep_dir / "runs").iterdir()} == {2}

    def test_cancel_drains(self, tmp_path: Path) -> None:
        store = self.sweep(tmp_path / "sweep", 3, n_steps=2000, lease_s=1)
        launcher = self.launcher(store, TOY_STEP_S=0.02)
        launcher.start()
        patiently(launcher, lambda: store.status().counts.get("running", 0) == 2)
        store.cancel()
        state = finish(launcher)
        assert (state.stopped, state.gave_up) == (True, None)
        assert store.status().counts == {"planned": 1, "preempted": 2}

    def test_a_poisonous_run_fails_within_its_retries_and_the_rest_finishes(self, tmp_path: Path) -> None:
        store = self.sweep(tmp_path / "sweep", 4, max_failures=2)
        assert run_to_end(self.launcher(store, TOY_FAULT="segfault:run-1")).gave_up is None
        assert store.status().counts == {"done": 3, "failed:host": 1}

    def test_a_worker_that_refuses_ends_it_and_says_so(self, tmp_path: Path) -> None:
        store = self.sweep(tmp_path / "sweep", 1, n_workers=1)
        state = run_to_end(self.launcher(store, ["sh", "-c", "exit 2"]))
        assert state.gave_up is not None
        assert str(store.sweep_dir / "logs") in state.gave_up

    def test_what_it_writes_is_private_and_holds_no_secret(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
        before = os.umask(0o022)
        try:
            store = self.sweep(tmp_path / "sweep", 1, n_workers=1)
            run_to_end(self.launcher(store))
        finally:
            os.umask(before)
        assert stat.S_IMODE(store.sweep_dir.stat().st_mode) == 0o700
        assert stat.S_IMODE((store.sweep_dir / "logs").stat().st_mode) == 0o700
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert len(files) > 5
        assert [path for path in files if CANARY.encode() in path.read_bytes()] == []


def run_to_end(launcher: Launcher) -> LaunchState:
    launcher.start()
    return finish(launcher)


def finish(launcher: Launcher) -> LaunchState:
    try:
        state = launcher.wait(PATIENCE_S)
        assert state.n_running == 0
        return state
    except BaseException:
        launcher.kill()
        launcher.wait(10)
        raise


def patiently(launcher: Launcher, condition: Any) -> None:
    """Wait until `condition` is true, while the launcher supervises its workers."""

    def supervised() -> bool:
        launcher.wait(0)
        return bool(condition())

    wait_until(supervised, PATIENCE_S)


def undisturbed(tmp_path: Path, n_runs: int, n_steps: int = 12) -> dict[str, dict[str, Any]]:
    """The science columns of an undisturbed sweep of one worker without a launcher."""
    calm = RunStore(tmp_path / "calm")
    calm.add_plan(toy_plan(n_runs, n_steps))
    work(calm.sweep_dir, train=train)
    return science(calm)


def leave_nothing_running(directory: Path) -> None:
    """Kill the processes that a test started in `directory`."""
    rest = [process for process in psutil.process_iter(["cmdline"]) if _mentions(process, directory)]
    for process in rest:
        process.kill()
    psutil.wait_procs(rest, timeout=10)


def _mentions(process: psutil.Process, directory: Path) -> bool:
    return process.pid != os.getpid() and str(directory) in json.dumps(process.info["cmdline"] or [])
