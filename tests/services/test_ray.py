"""Real Ray clusters with a token: the launcher contract, and a node that dies during a sweep."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from sweep.config import RayLaunch
from sweep.store.run_store import RunStore
from tests.launch.contract import LauncherContract, leave_nothing_running
from tests.services.slurm_cluster import until
from tests.services.smoke import SMOKE, attempts, check_resumed, saved_by, science
from tests.shell import ROOT, command, environment, sweep

pytestmark = [
    pytest.mark.service,
    pytest.mark.timeout(800),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
]

NODES = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
node = cluster.add_node(num_cpus=1)
print(cluster.address, node.raylet_socket_name, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
"""Runs in a separate process, so that no state of Ray stays in the tests."""


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    """A head and a second node, each with resources for one worker."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of-the-test-alone-0123456789abcdef")
    process = subprocess.Popen(
        [sys.executable, "-c", NODES],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    yield process
    family = psutil.Process(process.pid).children(recursive=True)
    process.communicate(timeout=60)
    for member in family:
        if member.is_running():
            member.kill()
    psutil.wait_procs(family, timeout=20)
    leave_nothing_running(tmp_path)


def test_a_node_that_dies_loses_and_doubles_nothing(
    nodes: subprocess.Popen[str], tmp_path: Path, data_dir: Path, undisturbed: dict[str, Any]
) -> None:
    assert nodes.stdout is not None
    address, socket_name = nodes.stdout.readline().split()
    settings = [
        *SMOKE,
        "launch=ray",
        f"launch.address={address}",
        "launch.n_workers=2",
        f"data_dir={data_dir}",
    ]
    running = subprocess.Popen(
        command("run", *settings), cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True
    )
    store = RunStore(tmp_path / "results/smoke")
    until(
        lambda: (store.sweep_dir / "plans").is_dir() and bool(list(store.sweep_dir.glob("plans/*.json"))), 240
    )
    until(lambda: saved_by(store.sweep_dir, {process.pid for process in family_of_raylet(socket_name)}), 240)
    for process in family_of_raylet(socket_name):  # as a loss of power does
        process.kill()
    errors = running.communicate(timeout=600)[1]
    assert running.returncode == 0, errors
    assert science(store.sweep_dir) == undisturbed
    assert check_resumed(store.sweep_dir) >= 1
    assert all(attempt.state != "failed:host" for tried in attempts(store.sweep_dir) for attempt in tried)


def family_of_raylet(socket_name: str) -> list[psutil.Process]:
    """Return the raylet with this socket and its descendants."""
    for process in psutil.process_iter(["cmdline", "name"]):
        if process.info["name"] == "raylet" and any(socket_name in word for word in process.info["cmdline"]):
            return [process, *process.children(recursive=True)]
    return []


def test_a_cluster_without_a_token_is_refused(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    refused = sweep(
        "run", *SMOKE, "launch=ray", "launch.address=127.0.0.1:6379", f"data_dir={data_dir}", cwd=tmp_path
    )
    assert refused.returncode == 3, refused.stderr
    assert "launch.allow_insecure=true" in refused.stderr


def test_detached_a_supervisor_holds_the_tasks(
    nodes: subprocess.Popen[str], tmp_path: Path, data_dir: Path
) -> None:
    assert nodes.stdout is not None
    address = nodes.stdout.readline().split()[0]
    few = ("budgets=[5e8]", "grid.d_model=[8,12,16]", "grid.min_steps=5", "batch_tokens=64")
    settings = [*SMOKE, *few, "launch=ray", f"launch.address={address}", f"data_dir={data_dir}"]
    done = sweep("run", "--detach", *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    store = RunStore(tmp_path / "results/smoke")
    until(lambda: store.status().finished, 360)
    assert store.status().counts == {"done": 3}


@pytest.mark.filterwarnings("ignore")  # Ray's own, of its daemons' open files above all
class TestRayContract(LauncherContract):
    launch = RayLaunch(name="ray", n_workers=2, lease_s=120, stall_s=900, max_failures=3)

    @pytest.fixture(scope="class", autouse=True)
    def cluster(self) -> Iterator[None]:
        """One cluster for all tests: it takes seconds to start."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_AUTH_MODE", "token")  # Ray reads them when it is imported
            patch.setenv("RAY_AUTH_TOKEN", "of-the-test-alone-0123456789abcdef")
            patch.setenv("PYTHONPATH", str(ROOT))
            import ray

            ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
            yield
            ray.shutdown()
