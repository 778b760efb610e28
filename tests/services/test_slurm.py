"""A real SLURM of two nodes: the launcher contract, preemption, a dead node, a time limit."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sweep.config import SlurmLaunch
from sweep.launch import slurm
from sweep.store.attempts.attempts import Attempt, read_attempts
from sweep.store.files import read_json, read_records
from sweep.store.run_store import RunStore
from tests.launch.contract import LauncherContract, toy_launcher, toy_sweep_for
from tests.launch.contract import undisturbed as calm_toys
from tests.services.conftest import need
from tests.services.slurm_cluster import TOOLS, SlurmCluster, until
from tests.services.smoke import SMOKE, attempts, check_resumed, saved_by, science
from tests.shell import sweep
from tests.toy_trainer import science as toy_science

pytestmark = [pytest.mark.service, pytest.mark.timeout(420)]

SLURM = ("launch=slurm", "launch.n_workers=2", "launch.options={exclusive:true}")


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    need(*TOOLS)
    base = Path(tempfile.mkdtemp(prefix="sweep-slurm-"))  # accessible to the user of munge
    services = SlurmCluster(base)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(services.config))
        try:
            services.up()
            yield services
        finally:
            services.down()
            shutil.rmtree(base, ignore_errors=True)


@pytest.mark.usefixtures("cluster")
class TestSlurmContract(LauncherContract):
    launch = SlurmLaunch(
        name="slurm",
        n_workers=2,
        mem=500,
        gres="gpu:1",
        time="00:10:00",
        lease_s=120,
        stall_s=900,
        max_failures=3,
    )

    @pytest.fixture(autouse=True)
    def look_often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(slurm, "POLL_S", 0.3)


@pytest.fixture
def emptied(cluster: SlurmCluster) -> Iterator[SlurmCluster]:
    """Cancel all jobs that a test leaves in the queue."""
    yield cluster
    cluster.ask("scancel", "--user=root")
    until(lambda: cluster.ask("squeue", "-h") == "")


@pytest.fixture
def smoke(emptied: SlurmCluster, tmp_path: Path, data_dir: Path) -> Callable[..., RunStore]:
    """Submit a smoke sweep, detached."""

    def submit(*overrides: str) -> RunStore:
        done = sweep("run", "--detach", *SMOKE, *SLURM, *overrides, f"data_dir={data_dir}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "sweep status results/smoke --watch" in done.stdout
        return RunStore(tmp_path / "results/smoke")

    return submit


def finish(cluster: SlurmCluster, store: RunStore, timeout_s: float = 300) -> None:
    """Wait until every run has finished and every job has ended: a point appears before its attempt ends.

    A node that returns may leave a job in SLURM's records without its processes: such a job is cancelled.
    """
    deadline = time.monotonic() + timeout_s
    while not store.status().finished:
        assert time.monotonic() < deadline, (store.status().counts, cluster.ask("squeue"))
        cluster.hurry()
        time.sleep(1)
    patience = time.monotonic() + 30
    while cluster.ask("squeue", "-h"):
        if time.monotonic() > patience:
            cluster.ask("scancel", "--user=root")
        time.sleep(1)


def test_preemption_and_a_dead_node_lose_and_double_nothing(
    cluster: SlurmCluster, smoke: Callable[..., RunStore], undisturbed: dict[str, Any]
) -> None:
    store = smoke()
    until(lambda: sorted(cluster.running().values()) == ["n1", "n2"])
    until(lambda: saved_by(store.sweep_dir, cluster.pids("n1")))
    cluster.ask(
        "sbatch", "--partition=high", "--nodelist=n1", "--exclusive", "--output=/dev/null", "--wrap=sleep 2"
    )
    until(lambda: any("preempted" in tried for tried in states(store)))
    until(lambda: saved_by(store.sweep_dir, cluster.pids("n2")))
    cluster.kill_node("n2")
    until(lambda: "n2" not in cluster.running().values(), timeout_s=90)
    cluster.start_node("n2")
    finish(cluster, store)
    assert science(store.sweep_dir) == undisturbed
    assert check_resumed(store.sweep_dir) >= 2
    lost = [a.reason for tried in attempts(store.sweep_dir) for a in tried if a.state == "lost"]
    assert lost  # of the dead node; SLURM may end its job once more when the node returns
    assert all("is gone" in str(reason) for reason in lost), lost


def test_a_time_limit_shorter_than_any_run(
    emptied: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each job has at most fifteen of the thirty-two seconds that a run takes.

    SLURM may send its warning up to a minute early, so at any moment of these jobs.
    """
    monkeypatch.setattr(slurm, "POLL_S", 0.5)
    limit = replace(TestSlurmContract.launch, time="00:01:00", signal_s=45, min_claim_s=2, max_failures=1)
    store = toy_sweep_for(limit, tmp_path / "sweep", 2, n_steps=64)
    deadlines = tmp_path / "deadlines"
    toy = {"TOY_STEP_S": 0.5, "TOY_CHECKPOINT_STEPS": 1000, "TOY_DEADLINES": deadlines}  # saved on exit only
    launcher = toy_launcher(store, **toy)
    launcher.start()
    patience = time.monotonic() + 300
    while (state := launcher.wait(1)).n_running:
        assert time.monotonic() < patience, (store.status().counts, emptied.ask("squeue"))
        emptied.hurry()
    assert (state.stopped, state.gave_up) == (False, None), logs_of_jobs(store)
    assert store.status().counts == {"done": 2}
    assert toy_science(store) == calm_toys(tmp_path, 2, n_steps=64)
    for run in (store.sweep_dir / "runs").iterdir():
        tried = read_attempts(run)
        assert [attempt.state for attempt in tried] == ["preempted"] * (len(tried) - 1) + ["done"]
        assert len(tried) >= 3  # interrupted twice at least
        for earlier, later in pairwise(tried):
            assert earlier.step >= 1
            assert first_step(later) == earlier.step + 1
        lines = [line.split() for line in deadlines.read_text().splitlines()]
        deadlines_s = [float(until_s) for name, until_s in lines if name == name_of(run)]
        left_s = [until_s - claimed_at(attempt) for until_s, attempt in zip(deadlines_s, tried, strict=True)]
        assert min(left_s) > limit.min_claim_s - 1, left_s  # time passes between the check and the claim


def logs_of_jobs(store: RunStore) -> str:
    """Return the logs of a sweep's jobs."""
    logs = sorted((store.sweep_dir / "logs").iterdir())
    return "\n".join(f"{log.name}:\n{log.read_text(errors='replace')}" for log in logs)


def first_step(attempt: Attempt) -> int:
    return int(next(read_records(attempt.path / "metrics.jsonl"))["step"])


def name_of(run_dir: Path) -> str:
    return str((read_json(run_dir / "config.json") or {})["name"])


def claimed_at(attempt: Attempt) -> float:
    """Return the time of the claim in seconds since 1970."""
    claim = read_json(attempt.path / "claim.json") or {}
    return datetime.fromisoformat(claim["claimed_at"]).timestamp()


def states(store: RunStore) -> list[list[str | None]]:
    return [[attempt.state for attempt in tried] for tried in attempts(store.sweep_dir)]


def test_a_job_that_slurm_refuses_is_bad_input(cluster: SlurmCluster, tmp_path: Path, data_dir: Path) -> None:
    refused = sweep("run", *SMOKE, *SLURM, "launch.partition=nowhere", f"data_dir={data_dir}", cwd=tmp_path)
    assert refused.returncode == 2
    assert "sbatch rejected the job" in refused.stderr
    assert "Traceback" not in refused.stderr
