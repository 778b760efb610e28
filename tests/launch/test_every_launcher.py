"""The launcher contract for local processes and a fake SLURM.

tests/services has it for a real SLURM and Ray, in CI.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from sweep.config import LaunchConfig, LocalLaunch, SlurmLaunch
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


@pytest.mark.long
class TestSlurm(LauncherContract):
    launch = SlurmLaunch(name="slurm", n_workers=2, **LEASE)

    @pytest.fixture(autouse=True)
    def prepare(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        tools = fake_slurm.install(tmp_path / "slurm")
        monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
        monkeypatch.setattr(slurm, "POLL_S", 0.2)
        yield
        leave_nothing_running(tmp_path)
