"""SLURM launcher: an array of jobs with a worker in each. Runs are claimed from the sweep's own queue."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pwd
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sweep.config import SlurmLaunch
from sweep.errors import InputError
from sweep.launch.base import LaunchState, unfinished_reason
from sweep.launch.spec import LaunchSpec, supervisor_command
from sweep.store.files import write_atomic
from sweep.store.run_store import RunStore

POLL_S = 5.0  # between two queries of SLURM's controller, which is shared by all users
TOOL_TIMEOUT_S = 10.0  # of squeue, scontrol and scancel; a query is repeated at the next poll
SUBMIT_TIMEOUT_S = 30.0  # of sbatch
EXPORTED = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "HOME", "USER", "LANG", "LC_ALL", "XDG_CACHE_HOME")
"""Environment variables passed to every job besides SLURM's own: enough to start Python, no secrets."""

HELD = (
    "JobHeldUser",
    "JobHeldAdmin",
    "BadConstraints",
    "PartitionTimeLimit",
    "requeued held",
    "requeued_held",
)
"""Parts of the pending reasons with which SLURM does not start a job without intervention."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One job of the array, as reported by squeue."""

    job_id: str
    state: str  # PENDING, RUNNING, COMPLETING ...
    reason: str


class SlurmLauncher:
    """Keeps up to `n_workers` jobs of a sweep in SLURM's queue. They keep running after this process exits.

    The job name is derived from the sweep's directory, so a second launcher finds the jobs of the first and
    submits only those that are missing.
    """

    survives_exit: ClassVar[bool] = True

    def __init__(self, launch: SlurmLaunch, spec: LaunchSpec) -> None:
        """Check SLURM's tools. Raises InputError if they are not installed."""
        check_tools()
        self._store = RunStore(spec.sweep_dir, retry_group=spec.retry_group)
        self._launch = launch
        self._directory = Path(spec.sweep_dir)
        # No packing: it was measured on one machine, and each job has a device of its own.
        self._spec = dataclasses.replace(
            spec, launcher="local", n_workers=1, n_threads=launch.cpus_per_worker, packing=None
        )
        self._tasks: tuple[Task, ...] | None = None
        self._polled_at = float("-inf")
        self._stopping = False
        self._silence = ""  # why the last query was not answered

    @property
    def job_name(self) -> str:
        """Job name of this sweep, the same on every machine that mounts it at this path.

        Jobs limited to a retry group have a name of their own, so that the two kinds are counted separately.
        """
        name = re.sub(r"[^A-Za-z0-9._+-]", "_", self._directory.name)[:40]
        identity = "\0".join((str(self._directory), *filter(None, [self._spec.retry_group])))
        digest = hashlib.sha256(identity.encode()).hexdigest()[:10]
        return f"sweep-{name}-{digest}"

    def start(self) -> None:
        """Submit the jobs missing from `n_workers`. Raises InputError if SLURM rejects them."""
        found = self._query()
        if found is None:  # jobs of an earlier launcher may be there
            raise InputError(f"the jobs of this sweep cannot be counted: {self._silence}")
        present = [task for task in found if task.state != "COMPLETING"]
        n_missing = self._launch.n_workers - len(present)
        if n_missing > 0:
            (self._directory / "logs").mkdir(parents=True, exist_ok=True, mode=0o700)
            script = self._directory / "slurm.sh"
            write_atomic(script, self._script().encode())
            script.chmod(0o600)
            self._submit(script, n_missing)
            self._query()

    def wait(self, timeout_s: float) -> LaunchState:
        """Query SLURM regularly until no job is left, for at most `timeout_s` seconds."""
        deadline = time.monotonic() + timeout_s
        while True:
            if time.monotonic() - self._polled_at >= POLL_S:
                self._query()
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not self._n_active():
                break
            time.sleep(min(POLL_S / 4, left_s))
        n_active = self._n_active()
        return LaunchState(
            n_running=n_active,
            n_restarts=0,
            stopped=self._stopping or self._store.cancelled(),
            gave_up=None if n_active else self._give_up_reason(),
        )

    def stop(self) -> None:
        """Remove pending jobs from the queue, and ask running ones to save and exit."""
        self._stopping = True
        self._cancel("--state=PENDING")
        self._cancel("--state=RUNNING", "--batch", "--signal=TERM")

    def kill(self) -> None:
        """Cancel every job; SLURM kills it after its KillWait."""
        self._stopping = True
        self._cancel()

    def _script(self) -> str:
        """Return the batch script. Options and variables are arguments of sbatch instead.

        SLURM may send SIGUSR1 up to a minute early, so it is ignored until the Python handlers are installed.
        """
        words = supervisor_command(self._spec, "sweep.launch.slurm_job")
        settings = [f"--signal-s={self._launch.signal_s}", f"--min-claim-s={self._launch.min_claim_s:g}"]
        return f"#!/bin/sh\ntrap '' USR1\nexec {shlex.join([*words, *settings])}\n"

    def _submit(self, script: Path, n_jobs: int) -> None:
        done = run_tool(["sbatch", *self._options(n_jobs), str(script)], timeout_s=SUBMIT_TIMEOUT_S)
        if done.returncode != 0:
            raise InputError(f"sbatch rejected the job: {_last_line(done.stderr)}")

    def _options(self, n_jobs: int) -> list[str]:
        launch = self._launch
        names = [name for name in (*EXPORTED, *launch.export) if name in os.environ]
        named = {
            "job-name": self.job_name,
            "array": f"0-{n_jobs - 1}",
            "chdir": str(self._directory),
            "output": "logs/slurm-%A_%a.log",
            "open-mode": "append",
            "export": ",".join(names) or "NONE",
            "signal": f"B:USR1@{launch.signal_s}",
            "ntasks": 1,
            "cpus-per-task": launch.cpus_per_worker,
            "partition": launch.partition,
            "account": launch.account,
            "gres": launch.gres,
            "time": launch.time,
            "constraint": launch.constraint,
            "mem": launch.mem,
            **(launch.options or {}),
        }
        flags = [f"--{name}" for name, value in named.items() if value is True]
        values = [
            f"--{name}={value}"
            for name, value in named.items()
            if value is not None and not isinstance(value, bool)  # 1 equals True, and is a value
        ]
        return ["--parsable", "--requeue", *flags, *values]

    def _query(self) -> tuple[Task, ...] | None:
        """Update and return the sweep's jobs; None, without an update, if the controller does not answer."""
        listing = ["squeue", "--noheader", "--array", f"--user={_user()}", f"--name={self.job_name}"]
        done = run_tool([*listing, "--format=%i|%T|%r"])
        self._polled_at = time.monotonic()
        if done.returncode != 0:
            self._silence = _last_line(done.stderr)
            return None
        rows = (line.strip().split("|", 2) for line in done.stdout.splitlines() if line.count("|") >= 2)
        self._tasks = tuple(Task(job_id=job, state=state, reason=reason) for job, state, reason in rows)
        return self._tasks

    def _n_active(self) -> int:
        """Return the number of running and pending jobs; before the first answer, the number to submit."""
        if self._tasks is None:
            return self._launch.n_workers
        return sum(not _is_held(task) for task in self._tasks)

    def _give_up_reason(self) -> str | None:
        if self._stopping:
            return None
        held = [task for task in self._tasks or () if _is_held(task)]
        if held:
            job = held[0].job_id
            return f"SLURM does not start job {job} ({held[0].reason}): see scontrol show job {job}"
        return unfinished_reason(self._store, "all SLURM jobs ended")

    def _cancel(self, *which: str) -> None:
        run_tool(["scancel", "--quiet", f"--user={_user()}", f"--name={self.job_name}", *which])


def check_tools() -> None:
    """Raise InputError if SLURM's command-line tools are not installed."""
    missing = [tool for tool in ("sbatch", "squeue", "scancel", "scontrol") if shutil.which(tool) is None]
    if missing:
        raise InputError(
            f"launch=slurm needs {', '.join(missing)}, not found in PATH: run this on a login node of the "
            f"cluster, or set launch=local"
        )


def _is_held(task: Task) -> bool:
    return task.state == "PENDING" and any(reason in task.reason for reason in HELD)


def run_tool(
    command: Sequence[str], environ: Mapping[str, str] | None = None, timeout_s: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one of SLURM's tools; a timeout or a missing tool is returned as a failure with code 1.

    The default of `timeout_s` is TOOL_TIMEOUT_S.
    """
    timeout_s = TOOL_TIMEOUT_S if timeout_s is None else timeout_s
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environ,
            start_new_session=True,  # so that a wrapper script is stopped with the tool it waits for
        )
    except OSError as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))
    with process:
        try:
            stdout, stderr = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            silent = f"{command[0]} did not answer within {timeout_s:g} s: ask scontrol ping for the reason"
            return subprocess.CompletedProcess(command, 1, "", silent)
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return re.sub(r"^(sbatch|squeue): error: ", "", lines[-1]) if lines else "no error message"


def _user() -> str:
    """Return the user's name, or the number of a user without an entry in the password database."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
