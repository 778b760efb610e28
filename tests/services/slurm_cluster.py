"""A real SLURM with several nodes on this machine: private daemons, keys and files, on the loopback only.

As root on Debian, with slurm-wlm and munge installed; the SLURM of the system is not touched.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import psutil

TOOLS = ("slurmctld", "slurmd", "munged", "sbatch")
BASE_PORT = 36817

CONFIG = """\
ClusterName=sweeptest
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={base}/munge/munge.sock
SlurmctldPort={port}
SlurmctldPidFile={base}/run/slurmctld.pid
SlurmdPidFile={base}/run/slurmd-%n.pid
SlurmctldLogFile={base}/log/slurmctld.log
SlurmdLogFile={base}/log/slurmd-%n.log
SlurmdSpoolDir={base}/spool/%n
StateSaveLocation={base}/state
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,sched_min_interval=0,bf_interval=2
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=5
InactiveLimit=0
MinJobAge=300
KillWait=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
GresTypes=gpu
"""


class SlurmCluster:
    """The daemons, and the operations of tests on them."""

    def __init__(self, base: Path, n_nodes: int = 2) -> None:
        self.base, self.nodes = base, [f"n{index + 1}" for index in range(n_nodes)]

    @property
    def config(self) -> Path:
        return self.base / "slurm.conf"

    def up(self) -> None:
        for name in ("run", "log", "state", "spool", "gpu"):
            (self.base / name).mkdir(parents=True)
        self.base.chmod(0o755)
        self._start_munge()
        self._write_config()
        self._daemon("slurmctld", "-c")
        for node in self.nodes:
            self.start_node(node)
        until(
            lambda: (
                self.ask("sinfo", "-h", "-N", "-p", "main", "-o", "%T").split() == ["idle"] * len(self.nodes)
            )
        )

    def down(self) -> None:
        for process in self._processes():
            process.kill()
        until(lambda: not self._processes())  # zombies do not count as processes
        shutil.rmtree(self.base, ignore_errors=True)

    def ask(self, *command: str) -> str:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=60,
            env=os.environ | {"SLURM_CONF": str(self.config)},
        )
        return done.stdout.strip()

    def start_node(self, node: str) -> None:
        (self.base / "spool" / node).mkdir(exist_ok=True)
        self._daemon("slurmd", "-N", node)

    def kill_node(self, node: str) -> None:
        """Kill its slurmd and all its processes with SIGKILL, as a loss of power does."""
        daemon = int((self.base / "run" / f"slurmd-{node}.pid").read_text())
        os.kill(daemon, signal.SIGKILL)
        for process in self._family(node):
            process.kill()

    def pids(self, node: str) -> set[int]:
        """Return the processes of the jobs on a node."""
        return {process.pid for process in self._family(node)}

    def running(self) -> dict[str, str]:
        """Return the running jobs with their nodes."""
        rows = self.ask("squeue", "-h", "--array", "-t", "R", "-o", "%i %N").splitlines()
        return dict(row.split() for row in rows)

    def hurry(self) -> None:
        """A requeued job waits two minutes before it may start again: here two seconds.

        Not less: a node refuses a job that starts in the second in which it was asked to end it, and SLURM
        then ends the job for good.
        """
        soon = datetime.now() + timedelta(seconds=5)
        pending = self.ask("squeue", "-h", "--array", "-t", "PD", "-O", "JobArrayID:40,EligibleTime:40")
        for job, eligible in map(str.split, pending.splitlines()):
            if eligible != "N/A" and datetime.fromisoformat(eligible) > soon:
                self.ask("scontrol", "update", f"JobId={job}", "StartTime=now+2seconds")

    def _family(self, node: str) -> list[psutil.Process]:
        return [process for step in self._steps(node) for process in (step, *step.children(recursive=True))]

    def _steps(self, node: str) -> list[psutil.Process]:
        jobs = [
            self.ask("squeue", "-h", "-j", job, "-o", "%A")
            for job, at in self.running().items()
            if at == node
        ]
        titles = [f"slurmstepd: [{job}." for job in jobs]
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if any(title in " ".join(process.info["cmdline"] or []) for title in titles)
        ]

    def _start_munge(self) -> None:
        directory = self.base / "munge"
        directory.mkdir(mode=0o755)
        shutil.chown(directory, "munge", "munge")
        key = directory / "munge.key"
        key.write_bytes(os.urandom(128))
        shutil.chown(key, "munge", "munge")
        key.chmod(0o400)
        places = {
            "socket": "munge.sock",
            "pid-file": "munged.pid",
            "log-file": "munged.log",
            "seed-file": "munged.seed",
            "key-file": "munge.key",
        }
        options = [f"--{name}={directory / file}" for name, file in places.items()]
        command = ["runuser", "-u", "munge", "--", "/usr/sbin/munged", *options, "--num-threads=2"]
        subprocess.run(command, check=True, timeout=60, stderr=subprocess.DEVNULL)
        until(lambda: (directory / "munge.sock").exists())

    def _write_config(self) -> None:
        host = os.uname().nodename.partition(".")[0]
        text = CONFIG.format(host=host, base=self.base, port=BASE_PORT)
        for index, node in enumerate(self.nodes):
            place = f"NodeHostname={host} NodeAddr=127.0.0.1 Port={BASE_PORT + 100 + index}"
            text += f"NodeName={node} {place} CPUs=2 RealMemory=4000 Gres=gpu:1 State=UNKNOWN\n"
            device = self.base / "gpu" / node
            os.mknod(device, 0o666 | 0o020000, os.makedev(1, 3))  # a fake device: another /dev/null
            with (self.base / "gres.conf").open("a") as file:
                file.write(f"NodeName={node} Name=gpu File={device}\n")
        text += "PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP PriorityTier=1\n"
        text += "PartitionName=high Nodes=ALL MaxTime=60 State=UP PriorityTier=10\n"
        self.config.write_text(text)

    def _daemon(self, name: str, *arguments: str) -> None:
        environ = os.environ | {"SLURM_CONF": str(self.config)}
        subprocess.run([f"/usr/sbin/{name}", *arguments], check=True, timeout=60, env=environ)

    def _processes(self) -> list[psutil.Process]:
        """Return the daemons of this cluster, found by its paths in their commands or environments."""
        found = []
        for process in psutil.process_iter():
            try:
                own = str(self.base) in " ".join(process.cmdline())
                if own or process.environ().get("SLURM_CONF") == str(self.config):
                    found.append(process)
            except psutil.Error:
                continue
        return [process for process in found if process.pid != os.getpid()]


def until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.1)
