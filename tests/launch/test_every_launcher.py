"""The contract of all launchers: local processes, a stand-in for SLURM, and Ray where it is installed."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweep.config import LocalLaunch, RayLaunch, SlurmLaunch
from sweep.launch import slurm
from tests.launch import fake_slurm
from tests.launch.contract import LauncherContract, leave_nothing_running

BELIEF = {"lease_s": 120, "stall_s": 900, "max_failures": 3}


class TestLocal(LauncherContract):
    launch = LocalLaunch(name="local", n_workers=2, **BELIEF)


@pytest.mark.ci
class TestSlurm(LauncherContract):
    launch = SlurmLaunch(name="slurm", n_workers=2, **BELIEF)

    @pytest.fixture(autouse=True)
    def prepare(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        tools = fake_slurm.install(tmp_path / "slurm")
        monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
        monkeypatch.setattr(slurm, "POLL_S", 0.2)
        yield
        leave_nothing_running(tmp_path)


@pytest.mark.ci
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
@pytest.mark.filterwarnings("ignore")  # Ray's own, of its daemons' open files above all
class TestRay(LauncherContract):
    launch = RayLaunch(name="ray", n_workers=2, **BELIEF)

    @pytest.fixture(scope="class", autouse=True)
    def cluster(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        """One for all tests: it takes seconds to start."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_AUTH_MODE", "token")  # Ray reads them when it is imported
            patch.setenv("RAY_AUTH_TOKEN", "of-the-test-alone-0123456789abcdef")
            patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
            import ray

            ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
            yield
            ray.shutdown()
