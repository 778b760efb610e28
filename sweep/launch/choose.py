"""From `launch.name` to a launcher, in this process or detached from it."""

from __future__ import annotations

from dataclasses import replace

from sweep.config import LaunchConfig
from sweep.launch.base import Launcher
from sweep.launch.ray import RayLauncher, check_cluster
from sweep.launch.slurm import SlurmLauncher, check_tools
from sweep.launch.supervisor import Orders, local_launcher, start_detached


def check_launch(launch: LaunchConfig) -> None:
    """Raises InputError or SafetyError where `launch.name` cannot work, as far as this machine tells."""
    match launch.name:
        case "slurm":
            check_tools()
        case "ray":
            check_cluster(launch)


def make_launcher(launch: LaunchConfig, orders: Orders) -> Launcher:
    """The launcher of `launch.name`. Raises InputError or SafetyError when it cannot work here."""
    match launch.name:
        case "local":
            return local_launcher(launch, orders)
        case "slurm":
            return SlurmLauncher(launch, orders)
        case "ray":
            return RayLauncher(launch, orders)


def detach(launch: LaunchConfig, orders: Orders) -> None:
    """Start the workers and return at once; they go on, supervised, without this process.

    Raises InputError or SafetyError when they cannot be started.
    """
    launcher = make_launcher(launch, orders)
    if launcher.outlives_us:
        launcher.start()
    else:
        start_detached(replace(orders, launcher=launch.name))
