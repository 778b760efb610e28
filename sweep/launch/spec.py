"""The launch specification that a supervisor process gets on its command line."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sweep.errors import InputError
from sweep.machine.packing import Packing


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchSpec:
    """The workers to start. Passed as one command-line argument, so it holds no secrets."""

    sweep_dir: str  # absolute path
    device: str = "auto"  # auto, cpu or cuda
    n_workers: int | None = None  # None: launch.n_workers of the sweep
    n_threads: int | None = None  # threads of each worker on a CPU
    needs: tuple[str, ...] = ()  # paths that must exist on the worker's machine
    command: tuple[str, ...] | None = None  # worker command; None: `worker_command`
    n_devices: int = 1  # devices that each run is spread over
    packing: Packing | None = None  # measured number of workers per device
    retry_group: str | None = None  # train only the runs retried under this name
    launcher: str = "local"  # name of the launcher that the supervisor runs

    def argument(self) -> str:
        """Return the specification as JSON."""
        return json.dumps(asdict(self))


def read_spec(argument: str) -> LaunchSpec:
    """Parse a specification from JSON. Raises InputError if it is invalid."""
    try:
        values = json.loads(argument)
        lists = {key: tuple(values[key]) for key in ("needs", "command") if values.get(key) is not None}
        packing = values.get("packing")
        return LaunchSpec(**(values | lists | {"packing": None if packing is None else Packing(**packing)}))
    except (ValueError, TypeError, AttributeError):
        raise InputError(
            f"invalid launch specification {argument[:80]!r}: start supervisors with sweep run"
        ) from None


def supervisor_command(spec: LaunchSpec, module: str = "sweep.launch.supervisor") -> list[str]:
    """Return the command that runs `module` with `spec`, using this interpreter."""
    return [sys.executable, "-P", "-m", module, spec.argument()]


def start_detached(spec: LaunchSpec) -> Path:
    """Start a supervisor in a session of its own, so that it survives this process and its terminal.

    Returns the path of its log.
    """
    logs = Path(spec.sweep_dir) / "logs"
    logs.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = logs / f"supervisor-{socket.gethostname()}-{os.getpid()}.log"
    with path.open("ab") as log:
        subprocess.Popen(
            supervisor_command(spec),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return path


def check_visible(paths: Sequence[str]) -> None:
    """Raise InputError with the first of `paths` that does not exist on this machine."""
    for path in paths:
        if not Path(path).exists():
            raise InputError(
                f"{path} not found on {socket.gethostname()}: results_dir and data_dir must be on a file "
                f"system that all machines with workers share, mounted at the same path"
            )
