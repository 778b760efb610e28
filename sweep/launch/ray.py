"""Ray launcher: a worker in each task of a Ray cluster; tasks of a dead node are retried on another."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sweep.config import RayLaunch
from sweep.errors import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    EXIT_REFUSED,
    EXIT_STOPPED,
    InputError,
    SafetyError,
    SweepError,
)
from sweep.identity import code_version
from sweep.launch.base import LaunchState, unfinished_reason
from sweep.launch.spec import LaunchSpec, check_visible, read_spec, supervisor_command
from sweep.store.run_store import RunStore

TOKENS_SINCE = (2, 52)  # docs.ray.io, Ray token authentication: "available in Ray 2.52.0 or later"
POLL_S = 0.5  # between two polls of the supervisor, inside a task


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskEnd:
    """The end of one task."""

    code: int  # exit code of its supervisor
    reason: str  # path of its log, or an error message if the supervisor did not start


class RayLauncher:
    """Keeps `n_workers` tasks in the Ray cluster at `launch.address`, or in one started on this machine.

    Tasks end when this process exits; their workers then save and exit.
    """

    survives_exit: ClassVar[bool] = False

    def __init__(self, launch: RayLaunch, spec: LaunchSpec) -> None:
        """Check the cluster.

        Raises InputError without Ray, SafetyError for a running cluster without token authentication.
        """
        check_cluster(launch)
        self._store = RunStore(spec.sweep_dir, retry_group=spec.retry_group)
        self._launch = launch
        # The supervisor in a task starts a local worker; with launcher="ray" it would submit tasks again.
        # No packing: it was measured on one machine, and each task has a device of its own.
        self._spec = dataclasses.replace(
            spec, launcher="local", n_workers=1, n_threads=launch.cpus_per_worker, packing=None
        )
        self._pending: list[Any] = []
        self._ends: list[TaskEnd] = []
        self._stopping = self._owns_cluster = False

    def start(self) -> None:
        """Connect, and submit the tasks. Raises InputError if the cluster cannot be reached."""
        if self._launch.address is None and "ray" not in sys.modules:  # Ray reads it on import
            os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray then generates a token
        import ray

        (Path(self._spec.sweep_dir) / "logs").mkdir(parents=True, exist_ok=True, mode=0o700)
        if not ray.is_initialized():
            self._connect()
        # Retried without limit if a node dies or is preempted: the sweep limits the failures of each run.
        task = ray.remote(run_task).options(
            num_cpus=self._launch.cpus_per_worker,
            num_gpus=self._launch.gpus_per_worker,
            resources=dict(self._launch.resources or {}),
            max_retries=-1,
            scheduling_strategy="SPREAD",
            name=f"sweep {Path(self._spec.sweep_dir).name}",
        )
        arguments = self._spec.argument(), code_version()
        self._pending = [task.remote(*arguments) for _ in range(self._launch.n_workers)]

    def wait(self, timeout_s: float) -> LaunchState:
        """Wait until all tasks have ended, for at most `timeout_s` seconds."""
        import ray

        if self._pending:
            n_pending = len(self._pending)
            done, self._pending = ray.wait(self._pending, num_returns=n_pending, timeout=timeout_s)
            self._ends += [_end_of(task) for task in done]
            if not self._pending and self._owns_cluster:
                ray.shutdown()
        return LaunchState(
            n_running=len(self._pending),
            n_restarts=0,
            stopped=self._stopping or any(end.code == EXIT_STOPPED for end in self._ends),
            gave_up=None if self._pending or self._stopping else self._give_up_reason(),
        )

    def stop(self) -> None:
        """Cancel every task, which asks its worker to save and exit."""
        self._cancel(force=False)

    def kill(self) -> None:
        """Kill every task; its worker notices, and exits too."""
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
                self._owns_cluster = True
            else:
                context = ray.init(address=self._launch.address, **quiet)
                if not self._launch.allow_insecure:
                    check_enforced(str(getattr(context, "dashboard_url", "") or ""))
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise InputError(
                f"cannot connect to launch.address={self._launch.address}: {_first_line(error)}"
            ) from None

    def _give_up_reason(self) -> str | None:
        refused = [end.reason for end in self._ends if end.code in (EXIT_BAD_INPUT, EXIT_REFUSED)]
        if refused:
            return f"a worker refused to start: {refused[0]}"
        ended = f"all Ray tasks ended ({self._ends[-1].reason})" if self._ends else "no Ray task was started,"
        return unfinished_reason(self._store, ended)


def run_task(spec_json: str, code: str) -> dict[str, Any]:
    """Run a supervisor process inside a Ray task; it is stopped when the task is cancelled or dies.

    `code` is the code version that submitted the task. Returns the fields of a TaskEnd.
    """
    host = socket.gethostname()
    try:
        spec = read_spec(spec_json)
        check_visible((spec.sweep_dir, *spec.needs))
    except SweepError as error:
        return {"code": error.exit_code, "reason": str(error)}
    if code_version() != code:
        reason = (
            f"{host} has sweep {code_version()}, but the sweep was started with {code}: install the same "
            f"version on all nodes"
        )
        return {"code": EXIT_BAD_INPUT, "reason": reason}
    # Ray cancels by an interrupt, which processes started by a script in the background ignore.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = Path(spec.sweep_dir) / "logs" / f"ray-{host}-{os.getpid()}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            supervisor_command(spec),
            stdin=subprocess.PIPE,  # closed when this process dies, however it dies
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"SWEEP_SUPERVISED": "1"},
        )
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return {"code": process.wait(timeout=POLL_S), "reason": f"see {log}"}
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate()


def check_cluster(launch: RayLaunch) -> None:
    """Raise InputError without Ray, SafetyError for a running cluster without token authentication."""
    if importlib.util.find_spec("ray") is None:
        raise InputError("launch=ray needs Ray: pip install 'sweep[ray]'")
    check_token(launch, os.environ)


def check_token(launch: RayLaunch, environ: Mapping[str, str]) -> None:
    """Raise SafetyError if a running cluster would be used without token authentication.

    Anyone who can reach an unauthenticated cluster can execute code on it, with access to the sweep's files.
    Source: docs.ray.io, Ray token authentication (RAY_AUTH_MODE=token, since 2.52).
    """
    if launch.address is None or launch.allow_insecure:
        return
    release = re.match(r"(\d+)\.(\d+)", _ray_version())
    if release is None or (int(release[1]), int(release[2])) < TOKENS_SINCE:
        raise SafetyError(
            f"Ray {_ray_version()} has no token authentication, so anyone who can reach "
            f"launch.address={launch.address} can execute code on it: install ray>=2.52, or accept the risk "
            f"with launch.allow_insecure=true"
        )
    if environ.get("RAY_AUTH_MODE", "").lower() != "token":
        raise SafetyError(
            f"launch.address={launch.address} needs token authentication: start the cluster and sweep with "
            f"RAY_AUTH_MODE=token, or accept with launch.allow_insecure=true that anyone who can reach the "
            f"cluster can execute code on it"
        )


def check_enforced(dashboard_url: str) -> None:
    """Raise SafetyError if the cluster's dashboard reports that authentication is disabled.

    A client with a token cannot find that out otherwise. Without a dashboard nothing is checked.
    """
    try:
        with urllib.request.urlopen(f"http://{dashboard_url}/api/authentication_mode", timeout=5) as reply:
            mode = json.load(reply).get("authentication_mode")
    except (OSError, ValueError, AttributeError):
        return
    if mode == "disabled":
        raise SafetyError(
            f"the Ray cluster with dashboard {dashboard_url} has authentication disabled: start it with "
            f"RAY_AUTH_MODE=token, or accept the risk with launch.allow_insecure=true"
        )


def _end_of(task: Any) -> TaskEnd:
    import ray

    try:
        return TaskEnd(**ray.get(task))
    except ray.exceptions.TaskCancelledError:
        return TaskEnd(code=EXIT_STOPPED, reason="cancelled")
    except ray.exceptions.RayError as error:
        return TaskEnd(code=EXIT_FAILED, reason=_first_line(error))


def _ray_version() -> str:
    from importlib.metadata import version

    return version("ray")


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
