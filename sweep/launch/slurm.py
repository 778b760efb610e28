"""An array of SLURM jobs with a worker in each: SLURM lends machines, the queue is the sweep's own."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pwd
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sweep.config import SlurmLaunch
from sweep.errors import InputError
from sweep.launch.base import LaunchState, left_over
from sweep.launch.supervisor import Orders, supervisor_command
from sweep.store.files import replace
from sweep.store.run_store import RunStore

LOOK_S = 5.0  # between two questions to SLURM's controller, which many share
TOOL_TIMEOUT_S = 120.0
EXPORTED = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "HOME", "USER", "LANG", "LC_ALL", "XDG_CACHE_HOME")
"""Variables every worker gets besides SLURM's own: what it takes to start an interpreter, no secrets."""

HELD = (
    "JobHeldUser",
    "JobHeldAdmin",
    "BadConstraints",
    "PartitionTimeLimit",
    "requeued held",
    "requeued_held",
)
"""Parts of the reasons for which SLURM never starts a job by itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One job of the array, as squeue tells it."""

    job_id: str
    state: str  # PENDING, RUNNING, COMPLETING ...
    reason: str


class SlurmLauncher:
    """Keeps up to `n_workers` jobs of a sweep in SLURM's queue. They go on when this process leaves.

    Jobs are known by a name that belongs to the sweep's directory, so a second launcher finds those of the
    first and adds only what is missing.
    """

    outlives_us: ClassVar[bool] = True

    def __init__(self, launch: SlurmLaunch, orders: Orders) -> None:
        """Raises InputError where there is no SLURM."""
        check_tools()
        self._store = RunStore(orders.sweep_dir, pardon=orders.pardon)
        self._launch = launch
        self._directory = Path(orders.sweep_dir)
        # A packing is of one machine; here each task has its own device.
        self._orders = dataclasses.replace(
            orders, launcher="local", n_workers=1, n_threads=launch.cpus_per_worker, packing=None
        )
        self._tasks: tuple[Task, ...] | None = None
        self._looked_at = float("-inf")
        self._stopping = False

    @property
    def job_name(self) -> str:
        """The name of this sweep's jobs, the same from every machine that sees it under this path.

        Jobs that work only at pardoned runs have another: they stand in for no others, nor others for them.
        """
        name = re.sub(r"[^A-Za-z0-9._+-]", "_", self._directory.name)[:40]
        told = "\0".join((str(self._directory), *filter(None, [self._orders.pardon])))
        digest = hashlib.sha256(told.encode()).hexdigest()[:10]
        return f"sweep-{name}-{digest}"

    def start(self) -> None:
        """Submit what is missing to `n_workers` jobs. Raises InputError when SLURM refuses them."""
        present = [task for task in self._ask() or () if task.state != "COMPLETING"]
        n_missing = self._launch.n_workers - len(present)
        if n_missing > 0:
            (self._directory / "logs").mkdir(parents=True, exist_ok=True, mode=0o700)
            script = self._directory / "slurm.sh"
            replace(script, self._script().encode())
            script.chmod(0o600)
            self._submit(script, n_missing)
            self._ask()

    def wait(self, timeout_s: float) -> LaunchState:
        """Ask SLURM now and then until no job is left, or for `timeout_s` seconds."""
        deadline = time.monotonic() + timeout_s
        while True:
            if time.monotonic() - self._looked_at >= LOOK_S:
                self._ask()
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not self._n_active():
                break
            time.sleep(min(LOOK_S / 4, left_s))
        n_active = self._n_active()
        return LaunchState(
            n_running=n_active,
            n_restarts=0,
            stopped=self._stopping or self._store.cancelled(),
            gave_up=None if n_active else self._why_given_up(),
        )

    def stop(self) -> None:
        """Take waiting jobs from the queue, and ask the others to save and leave."""
        self._stopping = True
        self._cancel("--state=PENDING")
        self._cancel("--state=RUNNING", "--batch", "--signal=TERM")

    def kill(self) -> None:
        """Have SLURM end every job, which gives it the seconds of its KillWait."""
        self._stopping = True
        self._cancel()

    def _script(self) -> str:
        """The batch script: what it starts, no more. Options and variables are sbatch's arguments.

        SLURM may send its warning up to a minute early: until our handlers stand it ends nothing.
        """
        words = supervisor_command(self._orders, "sweep.launch.slurm_job")
        settings = [f"--signal-s={self._launch.signal_s}", f"--min-claim-s={self._launch.min_claim_s:g}"]
        return f"#!/bin/sh\ntrap '' USR1\nexec {shlex.join([*words, *settings])}\n"

    def _submit(self, script: Path, n_jobs: int) -> None:
        done = run_tool(["sbatch", *self._options(n_jobs), str(script)])
        if done.returncode != 0:
            raise InputError(f"sbatch refused the job: {_last_line(done.stderr)}")

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
        values = [f"--{name}={value}" for name, value in named.items() if value not in (None, True, False)]
        return ["--parsable", "--requeue", *flags, *values]

    def _ask(self) -> tuple[Task, ...] | None:
        """The sweep's jobs; None, and what was known stays known, while the controller does not answer."""
        listing = ["squeue", "--noheader", "--array", f"--user={_user()}", f"--name={self.job_name}"]
        done = run_tool([*listing, "--format=%i|%T|%r"])
        self._looked_at = time.monotonic()
        if done.returncode != 0:
            return None
        rows = (line.strip().split("|", 2) for line in done.stdout.splitlines() if line.count("|") >= 2)
        self._tasks = tuple(Task(job_id=job, state=state, reason=why) for job, state, why in rows)
        return self._tasks

    def _n_active(self) -> int:
        """Jobs that run or will; before the first answer, those that were to be submitted."""
        if self._tasks is None:
            return self._launch.n_workers
        return sum(not _is_held(task) for task in self._tasks)

    def _why_given_up(self) -> str | None:
        if self._stopping:
            return None
        held = [task for task in self._tasks or () if _is_held(task)]
        if held:
            return f"SLURM will not start job {held[0].job_id}: {held[0].reason}; scontrol show job says more"
        return left_over(self._store, "SLURM's jobs ended")

    def _cancel(self, *which: str) -> None:
        run_tool(["scancel", "--quiet", f"--user={_user()}", f"--name={self.job_name}", *which])


def check_tools() -> None:
    """Raises InputError where there is no SLURM."""
    missing = [tool for tool in ("sbatch", "squeue", "scancel", "scontrol") if shutil.which(tool) is None]
    if missing:
        raise InputError(
            f"launch=slurm needs {', '.join(missing)}, not found here: start from a login node of the "
            f"cluster, or choose launch=local"
        )


def _is_held(task: Task) -> bool:
    return task.state == "PENDING" and any(reason in task.reason for reason in HELD)


def run_tool(
    command: Sequence[str], environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A tool of SLURM's; one that hangs or is gone counts as failed."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, check=False, env=environ
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("sbatch: error: ") if lines else "it gave no reason"


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name
