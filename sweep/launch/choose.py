"""Registry of launchers: the entry for `launch.name`, and its start in this process or detached from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sweep.config import LaunchConfig
from sweep.launch.base import Launcher
from sweep.launch.local import LocalLauncher, check_mps
from sweep.launch.ray import RayLauncher, check_cluster
from sweep.launch.slurm import SlurmLauncher, check_tools
from sweep.launch.spec import LaunchSpec, start_detached


@dataclass(frozen=True, kw_only=True, slots=True)
class LauncherEntry:
    """A launcher as registered. Both callables get the launch section of its own config class."""

    make: Callable[[Any, LaunchSpec], Launcher]
    check: Callable[[Any], None] = lambda launch: None
    """Raises InputError or SafetyError if the launcher cannot be used on this machine."""


def local_launcher(launch: LaunchConfig, spec: LaunchSpec) -> LocalLauncher:
    """Return a launcher of workers on this machine, whichever launcher `launch` names."""
    return LocalLauncher(
        Path(spec.sweep_dir),
        launch,
        device=spec.device,
        n_devices=spec.n_devices,
        packing=spec.packing,
        command=spec.command,
        n_workers=spec.n_workers,
        n_threads=spec.n_threads,
        retry_group=spec.retry_group,
    )


LAUNCHERS: dict[str, LauncherEntry] = {
    "local": LauncherEntry(make=local_launcher, check=check_mps),
    "slurm": LauncherEntry(make=SlurmLauncher, check=lambda launch: check_tools()),
    "ray": LauncherEntry(make=RayLauncher, check=check_cluster),
}
"""Launchers by `launch.name`. The config class of each is in sweep/config/launch.py."""


def check_launch(launch: LaunchConfig) -> None:
    """Raise InputError or SafetyError if this machine cannot use the launcher `launch.name`."""
    LAUNCHERS[launch.name].check(launch)


def make_launcher(launch: LaunchConfig, spec: LaunchSpec) -> Launcher:
    """Return the launcher `launch.name`. Raises InputError or SafetyError if it cannot be used here."""
    return LAUNCHERS[launch.name].make(launch, spec)


def supervised_launcher(launch: LaunchConfig, spec: LaunchSpec) -> Launcher:
    """Return the launcher that a supervisor runs: `spec.launcher` if the sweep still uses it, else local."""
    name = spec.launcher if spec.launcher == launch.name else "local"
    return LAUNCHERS[name].make(launch, spec)


def detach(launch: LaunchConfig, spec: LaunchSpec) -> None:
    """Start the workers and return; they keep running, supervised, without this process.

    Raises InputError or SafetyError if they cannot be started.
    """
    launcher = make_launcher(launch, spec)
    if launcher.survives_exit:
        launcher.start()
    else:
        start_detached(replace(spec, launcher=launch.name))
