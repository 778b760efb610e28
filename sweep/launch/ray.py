"""Tasks of a Ray cluster with a worker in each; a task whose node dies is retried on another."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import logging
import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sweep.config import RayLaunch
from sweep.errors import InputError, SafetyError, SweepError
from sweep.identity import code_version
from sweep.launch.base import LaunchState, left_over
from sweep.launch.supervisor import Orders, check_visible, read_orders, supervisor_command
from sweep.store.run_store import RunStore

TOKENS_SINCE = (2, 52)  # docs.ray.io, Ray token authentication: "available in Ray 2.52.0 or later"
LOOK_S = 0.5  # between two looks at the supervisor, inside a task
_BAD_INPUT, _REFUSED, _STOPPED = 2, 3, 75


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskEnd:
    """How one task ended."""

    code: int  # its supervisor's exit code
    why: str  # where it says more, or why it did not begin


class RayLauncher:
    """Keeps `n_workers` tasks in the Ray cluster at `launch.address`, or in one of our own on this machine.

    Tasks end with this process, and their workers save and leave.
    """

    outlives_us: ClassVar[bool] = False

    def __init__(self, launch: RayLaunch, orders: Orders) -> None:
        """Raises InputError without Ray, SafetyError for a running cluster without token authentication."""
        check_cluster(launch)
        self._store = RunStore(orders.sweep_dir, pardon=orders.pardon)
        self._launch = launch
        # A packing is of one machine; here each task has its own device.
        # A task's supervisor starts a worker beside itself: were it told of Ray, it would submit tasks too.
        self._orders = dataclasses.replace(
            orders, launcher="local", n_workers=1, n_threads=launch.cpus_per_worker, packing=None
        )
        self._pending: list[Any] = []
        self._ends: list[TaskEnd] = []
        self._stopping = self._ours = False

    def start(self) -> None:
        """Connect, and submit the tasks. Raises InputError when the cluster cannot be reached."""
        if self._launch.address is None and "ray" not in sys.modules:  # which reads it when imported
            os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray then makes a token of its own
        import ray

        (Path(self._orders.sweep_dir) / "logs").mkdir(parents=True, exist_ok=True, mode=0o700)
        if not ray.is_initialized():
            self._connect()
        # Retried for ever where a node died or was taken away: the sweep itself bounds a run's failures.
        carry = ray.remote(carry_out).options(
            num_cpus=self._launch.cpus_per_worker,
            num_gpus=self._launch.gpus_per_worker,
            resources=dict(self._launch.resources or {}),
            max_retries=-1,
            scheduling_strategy="SPREAD",
            name=f"sweep {Path(self._orders.sweep_dir).name}",
        )
        told = self._orders.argument(), code_version()
        self._pending = [carry.remote(*told) for _ in range(self._launch.n_workers)]

    def wait(self, timeout_s: float) -> LaunchState:
        """Wait until no task is left, or for `timeout_s` seconds."""
        import ray

        if self._pending:
            n_pending = len(self._pending)
            done, self._pending = ray.wait(self._pending, num_returns=n_pending, timeout=timeout_s)
            self._ends += [_end_of(task) for task in done]
            if not self._pending and self._ours:
                ray.shutdown()
        return LaunchState(
            n_running=len(self._pending),
            n_restarts=0,
            stopped=self._stopping or any(end.code == _STOPPED for end in self._ends),
            gave_up=None if self._pending or self._stopping else self._why_given_up(),
        )

    def stop(self) -> None:
        """Have every task ask its worker to save and leave."""
        self._cancel(force=False)

    def kill(self) -> None:
        """End every task at once; its worker notices, and leaves too."""
        self._cancel(force=True)

    def _cancel(self, *, force: bool) -> None:
        import ray

        self._stopping = True
        for task in self._pending:
            ray.cancel(task, force=force)

    def _connect(self) -> None:
        import ray

        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if self._launch.address is None:
                ray.init(address="local", include_dashboard=False, **quiet)
                self._ours = True
            else:
                context = ray.init(address=self._launch.address, **quiet)
                if not self._launch.allow_insecure:
                    check_enforced(str(getattr(context, "dashboard_url", "") or ""))
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise InputError(f"launch.address={self._launch.address}: {_first_line(error)}") from None

    def _why_given_up(self) -> str | None:
        refused = [end.why for end in self._ends if end.code in (_BAD_INPUT, _REFUSED)]
        if refused:
            return f"a worker refused to work: {refused[0]}"
        return left_over(
            self._store, f"Ray's tasks ended ({self._ends[-1].why})" if self._ends else "no task"
        )


def carry_out(orders_json: str, code: str) -> dict[str, Any]:
    """The task: a supervisor as a process of its own, asked to stop when the task is cancelled or dies."""
    host = socket.gethostname()
    try:
        orders = read_orders(orders_json)
        check_visible((orders.sweep_dir, *orders.needs))
    except SweepError as error:
        return {"code": error.exit_code, "why": str(error)}
    if code_version() != code:
        why = f"{host} has sweep {code_version()}, the sweep was started by {code}: install one version"
        return {"code": _BAD_INPUT, "why": why}
    log = Path(orders.sweep_dir) / "logs" / f"ray-{host}-{os.getpid()}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            supervisor_command(orders),
            stdin=subprocess.PIPE,  # closed with us, however we die
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"SWEEP_SUPERVISED": "1"},
        )
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return {"code": process.wait(timeout=LOOK_S), "why": f"see {log}"}
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def check_cluster(launch: RayLaunch) -> None:
    """Raises InputError without Ray, SafetyError for a running cluster without token authentication."""
    if importlib.util.find_spec("ray") is None:
        raise InputError("launch=ray needs Ray: pip install 'sweep[ray]'")
    check_token(launch, os.environ)


def check_token(launch: RayLaunch, environ: Mapping[str, str]) -> None:
    """Raises SafetyError for a running cluster to which we would talk without a token.

    Whoever reaches such a cluster runs programs on it, and sees the sweep's files.
    Source: docs.ray.io, Ray token authentication (RAY_AUTH_MODE=token, since 2.52).
    """
    if launch.address is None or launch.allow_insecure:
        return
    release = re.match(r"(\d+)\.(\d+)", _ray_version())
    if release is None or (int(release[1]), int(release[2])) < TOKENS_SINCE:
        raise SafetyError(
            f"Ray {_ray_version()} has no token authentication: install ray>=2.52, or accept that everyone "
            f"on its network commands launch.address={launch.address} with launch.allow_insecure=true"
        )
    if environ.get("RAY_AUTH_MODE", "").lower() != "token":
        raise SafetyError(
            f"launch.address={launch.address} would be used without a token: start the cluster and sweep "
            f"with RAY_AUTH_MODE=token, or accept that everyone on its network commands it with "
            f"launch.allow_insecure=true"
        )


def check_enforced(dashboard_url: str) -> None:
    """Raises SafetyError when the cluster's own dashboard says that it asks nobody for a token.

    A client that sends one cannot tell otherwise; where no dashboard runs there is nothing to ask.
    """
    try:
        with urllib.request.urlopen(f"http://{dashboard_url}/api/authentication_mode", timeout=5) as reply:
            mode = json.load(reply).get("authentication_mode")
    except (OSError, ValueError, AttributeError):
        return
    if mode == "disabled":
        raise SafetyError(
            f"the Ray cluster with its dashboard at {dashboard_url} asks nobody for a token: start it with "
            f"RAY_AUTH_MODE=token, or accept it with launch.allow_insecure=true"
        )


def _end_of(task: Any) -> TaskEnd:
    import ray

    try:
        return TaskEnd(**ray.get(task))
    except ray.exceptions.TaskCancelledError:
        return TaskEnd(code=_STOPPED, why="cancelled")
    except ray.exceptions.RayError as error:
        return TaskEnd(code=1, why=_first_line(error))


def _ray_version() -> str:
    from importlib.metadata import version

    return version("ray")


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
