"""The launcher contract for local processes, a fake SLURM, and Ray if it is installed."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from sweep.config import LaunchConfig, LocalLaunch, RayLaunch, SlurmLaunch
from sweep.launch import slurm
from sweep.launch.choose import LAUNCHERS, supervised_launcher
from sweep.launch.local import LocalLauncher
from sweep.launch.spec import LaunchSpec
from tests.launch import fake_slurm
from tests.launch.contract import LauncherContract, leave_nothing_running
from tests.toy_trainer import toy_sweep

LEASE = {"lease_s": 120, "stall_s": 900, "max_failures": 3}


def test_every_launch_config_has_a_registered_launcher() -> None:
    classes = get_args(get_args(LaunchConfig)[0])
    assert {get_args(get_type_hints(each)["name"])[0] for each in classes} == set(LAUNCHERS)


def test_a_supervisor_starts_local_workers_if_the_sweep_has_another_launcher_by_now(tmp_path: Path) -> None:
    """The latest plan decides: its launch section has the keys of its own launcher only."""
    store = toy_sweep(tmp_path, 1)
    spec = LaunchSpec(sweep_dir=str(store.sweep_dir), device="cpu", launcher="slurm")
    assert isinstance(supervised_launcher(TestLocal.launch, spec), LocalLauncher)


class TestLocal(LauncherContract):
    launch = LocalLaunch(name="local", n_workers=2, **LEASE)
    death_states = ("failed:host",)
    n_restarts = 1


@pytest.mark.ci
class TestSlurm(LauncherContract):
    launch = SlurmLaunch(name="slurm", n_workers=2, **LEASE)

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
    launch = RayLaunch(name="ray", n_workers=2, **LEASE)

    @pytest.fixture(scope="class", autouse=True)
    def cluster(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        """One cluster for all tests: it takes seconds to start."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_AUTH_MODE", "token")  # Ray reads them when it is imported
            patch.setenv("RAY_AUTH_TOKEN", "of-the-test-alone-0123456789abcdef")
            patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
            import ray

            ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
            yield
            ray.shutdown()
