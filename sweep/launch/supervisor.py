"""The supervisor, `python -m sweep.launch.supervisor ORDERS`: keeps workers alive in a process of its own.

A detached sweep has one in the background, every SLURM job and every Ray task one around its worker.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sweep.config import LaunchConfig
from sweep.credentials import redact
from sweep.errors import EXIT_FAILED, EXIT_STOPPED, InputError
from sweep.launch.base import Launcher
from sweep.launch.exits import exit_code
from sweep.launch.local import LocalLauncher
from sweep.launch.process import StopFlag, hold_stop_signals, stop_with_supervisor, stopped_by_signals
from sweep.launch.watch import see_through
from sweep.machine.packing import Packing
from sweep.store.run_store import RunStore
from sweep.store.sql.copy import catch_up

LOOK_S = 0.5  # between two looks at the stop flag


@dataclass(frozen=True, kw_only=True, slots=True)
class Orders:
    """What a supervisor is told, as one argument of its command line: nothing in it is secret."""

    sweep_dir: str  # absolute
    device: str = "auto"
    n_workers: int | None = None  # None: what the sweep's own launch.n_workers says
    n_threads: int | None = None  # of one worker on a CPU
    needs: tuple[str, ...] = ()  # paths that must be seen from here before a worker starts
    command: tuple[str, ...] | None = None  # of a worker; None: this interpreter's own
    n_devices: int = 1  # of one worker, whose runs are spread over them
    packing: Packing | None = None  # workers that share a device, where it was measured
    pardon: str | None = None  # work only at the runs pardoned under this name
    launcher: str = "local"

    def argument(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))


def read_orders(argument: str) -> Orders:
    """Orders from their JSON. Raises InputError when they are none."""
    try:
        values = json.loads(argument)
        lists = {key: tuple(values[key]) for key in ("needs", "command") if values.get(key) is not None}
        packing = values.get("packing")
        return Orders(**(values | lists | {"packing": None if packing is None else Packing(**packing)}))
    except (ValueError, TypeError, AttributeError):
        raise InputError(f"{argument[:80]!r} are no orders: supervisors are started by sweep run") from None


def supervisor_command(orders: Orders, module: str = "sweep.launch.supervisor") -> list[str]:
    """The command that carries out `orders`, with this interpreter."""
    return [sys.executable, "-P", "-m", module, orders.argument()]


def start_detached(orders: Orders) -> Path:
    """Start a supervisor that outlives this process and its terminal; returns the file it prints to."""
    logs = Path(orders.sweep_dir) / "logs"
    logs.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = logs / f"supervisor-{socket.gethostname()}-{os.getpid()}.log"
    with path.open("ab") as log:
        subprocess.Popen(
            supervisor_command(orders),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return path


def supervise(orders: Orders, stop: StopFlag) -> int:
    """See the workers of `orders` through until the sweep has no work, or until `stop`; the exit code.

    Raises InputError where the sweep or what it needs is not seen from this machine.
    """
    check_visible((orders.sweep_dir, *orders.needs))
    state = see_through(_launcher(orders), should_stop=lambda: stop.reason is not None, look=lambda: LOOK_S)
    _complete_copy(RunStore(orders.sweep_dir))
    if state.gave_up:
        sys.stderr.write(f"{state.gave_up}\n")
        return EXIT_FAILED
    if state.stopped:
        return EXIT_STOPPED
    return EXIT_FAILED if RunStore(orders.sweep_dir).status().n_failed else 0


def _complete_copy(store: RunStore) -> None:
    """What workers could not write into the SQL copy, once all is done: nobody else may come to do it."""
    if store.status().finished:
        experiment = store.latest_experiment()
        problem = catch_up(store, experiment.store, experiment.name)
        if problem is not None:
            sys.stderr.write(f"{redact(problem)}\n")


def check_visible(paths: Sequence[str]) -> None:
    """Raises InputError naming the first path that this machine does not see."""
    for path in paths:
        if not Path(path).exists():
            raise InputError(
                f"{path} is not seen from {socket.gethostname()}: results_dir and data_dir must be on a file "
                f"system that all machines with workers share, under the same path"
            )


def _launcher(orders: Orders) -> Launcher:
    launch = RunStore(orders.sweep_dir).latest_experiment().launch
    if orders.launcher == "ray":
        from sweep.launch.ray import RayLauncher

        if launch.name == "ray":
            return RayLauncher(launch, orders)
    return local_launcher(launch, orders)


def local_launcher(launch: LaunchConfig, orders: Orders) -> LocalLauncher:
    """Workers on this machine, as `orders` say."""
    return LocalLauncher(
        Path(orders.sweep_dir),
        launch,
        device=orders.device,
        n_devices=orders.n_devices,
        packing=orders.packing,
        command=orders.command,
        n_workers=orders.n_workers,
        n_threads=orders.n_threads,
        pardon=orders.pardon,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out the orders in `argv`; returns the exit code (design.md, Verbs)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    stop = StopFlag()
    if os.environ.pop("SWEEP_SUPERVISED", None):
        stop_with_supervisor(stop)
    with stopped_by_signals(stop):
        return exit_code(lambda: supervise(read_orders(arguments[0] if arguments else ""), stop))


if __name__ == "__main__":
    hold_stop_signals()
    sys.exit(main())
