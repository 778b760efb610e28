"""From `launch.name` to a launcher, in this process or detached from it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sweep.config import LaunchConfig
from sweep.launch.base import Launcher
from sweep.launch.local import LocalLauncher
from sweep.launch.ray import RayLauncher
from sweep.launch.slurm import SlurmLauncher
from sweep.launch.supervisor import Orders, start_detached


def make_launcher(
    sweep_dir: Path,
    launch: LaunchConfig,
    *,
    device: str,
    command: Sequence[str] | None = None,
    needs: Sequence[str] = (),
) -> Launcher:
    """The launcher of `launch.name`; a worker's machine must see the paths in `needs`.

    Raises InputError or SafetyError when it cannot work here.
    """
    match launch.name:
        case "local":
            return LocalLauncher(sweep_dir, launch, device=device, command=command)
        case "slurm":
            return SlurmLauncher(sweep_dir, launch, device=device, command=command, needs=needs)
        case "ray":
            return RayLauncher(sweep_dir, launch, device=device, command=command, needs=needs)


def detach(
    sweep_dir: Path,
    launch: LaunchConfig,
    *,
    device: str,
    command: Sequence[str] | None = None,
    needs: Sequence[str] = (),
) -> None:
    """Start the workers and return at once; they go on, supervised, without this process.

    Raises InputError or SafetyError when they cannot be started.
    """
    launcher = make_launcher(sweep_dir, launch, device=device, command=command, needs=needs)
    if launcher.outlives_us:
        launcher.start()
        return
    orders = Orders(
        launcher=launch.name,
        sweep_dir=str(sweep_dir.absolute()),
        device=device,
        command=None if command is None else tuple(command),
        needs=tuple(needs),
    )
    start_detached(orders)
