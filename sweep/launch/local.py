"""Local launcher: worker processes on this machine, one or several per GPU, or one per CPU core."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar

from sweep.config import LaunchConfig, LocalLaunch
from sweep.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_REFUSED, EXIT_STOPPED, InputError
from sweep.launch.base import RETRY_GROUP_VARIABLE, LaunchState, worker_command
from sweep.machine.admission import DIRECTORY, MEMORY, admission_directory
from sweep.machine.devices import core_shares, cores, devices, gpus
from sweep.machine.environment import N_THREADS, THREAD_VARIABLES
from sweep.machine.mps import CONTROL, mps_daemon
from sweep.machine.packing import Packing
from sweep.machine.workers import count_workers
from sweep.store.run_store import RunStore

MAX_DEATHS = 5
"""Consecutive deaths of one worker, with no run of the sweep finishing in between, before it is given up."""

MAX_BACKOFF_S = 30.0
USABLE_FRAC = 0.92  # of a device's memory that runs sharing it may use; the rest is for contexts and slack
POLL_S = 0.1  # between two polls of the processes
MPS_MISSING = (
    f"launch.mps=true, but {CONTROL} was not found or cannot serve a GPU here: install NVIDIA's "
    f"Multi-Process Service, or set launch.mps=null"
)

MEMORY_VARIABLES = {
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TOP_PAD_": str(2**26),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""glibc settings that keep freed memory, in huge pages: otherwise each step returns its activations to the
kernel, which clears the pages again (docs/performance.md). Other C libraries ignore them."""


@dataclass(slots=True)
class _Slot:
    """A place for one worker, with its current process."""

    index: int
    environment: dict[str, str]
    cores: frozenset[int] | None  # CPU affinity
    log: Path
    worker_id: str = ""
    process: subprocess.Popen[bytes] | None = None
    deaths: int = 0
    start_at: float | None = field(default_factory=time.monotonic)  # None: do not start a process


def check_mps(launch: LaunchConfig) -> None:
    """Raise InputError if the Multi-Process Service is required and not installed."""
    if isinstance(launch, LocalLaunch) and launch.mps and shutil.which(CONTROL) is None:
        raise InputError(MPS_MISSING)


class LocalLauncher:
    """Keeps a number of worker processes running while runs are left. Several launchers may share a sweep.

    Workers hold the read end of a pipe: if this process dies for any reason, they save and exit.
    """

    survives_exit: ClassVar[bool] = False

    def __init__(
        self,
        sweep_dir: Path,
        launch: LaunchConfig,
        *,
        device: str,
        n_devices: int = 1,
        packing: Packing | None = None,
        command: Sequence[str] | None = None,
        n_workers: int | None = None,
        n_threads: int | None = None,
        retry_group: str | None = None,
    ) -> None:
        """Prepare the workers without starting them.

        `device` is auto, cpu or cuda; each worker gets `n_devices` of them. `packing` is the measured number
        of workers per device, if there is one. `n_workers` defaults to `launch.n_workers`, `n_threads` of one
        worker to what the cores allow. `retry_group` limits the workers to the runs of that group.
        Raises InputError for cuda on a machine with fewer GPUs than needed.
        """
        self._store = RunStore(sweep_dir, retry_group=retry_group)
        self._limits = {} if retry_group is None else {RETRY_GROUP_VARIABLE: retry_group}
        self._n_threads = n_threads
        self._command = list(command or worker_command(sweep_dir))
        self._logs = sweep_dir / "logs"
        self._n_finished = 0
        self._n_restarts = 0
        self._stopping = False
        self._stopped = False
        self._gave_up: str | None = None
        self._services = contextlib.ExitStack()
        asked = launch.mps if isinstance(launch, LocalLaunch) else None
        self._requires_mps = bool(asked)
        self._mps = self._requires_mps or (asked is None and packing is not None and packing.mps)
        self._slots = self._make_slots(n_workers or launch.n_workers, device, packing, n_devices)
        self._without_mps = partial(self._make_slots, launch.n_workers, device, None, n_devices)

    def start(self) -> None:
        """Start the workers. Raises InputError if launch.mps=true and the service cannot be started."""
        self._logs.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._mps and not self._start_mps():
            if self._requires_mps:
                raise InputError(MPS_MISSING)
            self._slots = self._without_mps()  # the number of workers was measured with the service
        self._poll()

    def _start_mps(self) -> bool:
        """Start an MPS daemon for each GPU; return whether there is a GPU and all could be started."""
        for visible in {slot.environment["CUDA_VISIBLE_DEVICES"] for slot in self._slots}:
            service = self._services.enter_context(mps_daemon(visible)) if visible else None
            if service is None:
                self._services.close()
                return False
            for slot in self._slots:
                if slot.environment["CUDA_VISIBLE_DEVICES"] == visible:
                    slot.environment |= service
        return True

    def wait(self, timeout_s: float) -> LaunchState:
        """Supervise the workers until all have exited, for at most `timeout_s` seconds."""
        deadline = time.monotonic() + timeout_s
        while True:
            self._poll()
            left_s = deadline - time.monotonic()
            if not self._n_active():
                self._services.close()
                break
            if left_s <= 0:
                break
            time.sleep(min(POLL_S, left_s))
        return LaunchState(
            n_running=self._n_active(),
            n_restarts=self._n_restarts,
            stopped=self._stopped,
            gave_up=self._gave_up,
        )

    def stop(self) -> None:
        """Ask every worker to save its state and exit; returns at once."""
        self._stopping = True
        for slot in self._slots:
            slot.start_at = None
            if slot.process is not None:
                slot.process.terminate()

    def kill(self) -> None:
        """Kill every worker."""
        self._stopping = True
        for slot in self._slots:
            slot.start_at = None
            if slot.process is not None:
                slot.process.kill()
        self._services.close()

    def _make_slots(
        self, n_workers: int | None, device: str, packing: Packing | None, n_devices: int
    ) -> list[_Slot]:
        """Return one slot per worker: devices in turn, cores pinned if each worker can have its own."""
        if device == "cuda" and not gpus():
            raise InputError("trainer.device=cuda, but no GPU was found: set trainer.device=cpu")
        shared = devices(device)
        on_gpu = bool(shared[0].visible)
        if on_gpu and n_devices > len(shared):
            raise InputError(
                f"trainer.n_devices={n_devices}, but this machine has {len(shared)} GPUs: set "
                f"trainer.n_devices to at most {len(shared)}"
            )
        n_slots = count_workers(n_workers, device, packing, n_devices).n_workers
        own_cores = core_shares(cores(), n_slots, on_gpu=on_gpu)
        if self._n_threads not in (None, 1) or n_devices > 1:  # the system places several threads better
            own_cores = None
        slots = []
        for index in range(n_slots):
            first = index * n_devices % (len(shared) - len(shared) % n_devices) if on_gpu else 0
            where = shared[first]
            n_threads = self._n_threads or (max(1, len(cores()) // (n_slots * n_devices)) if on_gpu else 1)
            own = {
                "SWEEP_DEVICE": "cuda:0" if on_gpu else "cpu",
                "CUDA_VISIBLE_DEVICES": ",".join(each.visible for each in shared[first : first + n_devices]),
            }
            own |= dict.fromkeys((*THREAD_VARIABLES, N_THREADS), str(n_threads))
            if n_slots * n_devices > len(shared) and n_devices == 1 and where.memory_bytes:
                own |= {DIRECTORY: str(admission_directory(where.key))}
                own |= {MEMORY: str(int(USABLE_FRAC * where.memory_bytes))}
            log = self._logs / f"{socket.gethostname()}-{os.getpid()}-{index}.log"
            slots.append(_Slot(index, own, own_cores[index] if own_cores else None, log))
        return slots

    def _n_active(self) -> int:
        return sum(slot.process is not None or slot.start_at is not None for slot in self._slots)

    def _poll(self) -> None:
        """Reap workers that have exited, and start those that are due."""
        for slot in self._slots:
            if slot.process is not None:
                code = slot.process.poll()
                if code is not None:
                    self._reap(slot, code)
            if slot.process is None and slot.start_at is not None and time.monotonic() >= slot.start_at:
                self._spawn(slot)

    def _spawn(self, slot: _Slot) -> None:
        slot.worker_id = f"{socket.gethostname()}-{os.getpid()}-{slot.index}-{secrets.token_hex(4)}"
        identity = {"SWEEP_WORKER_ID": slot.worker_id, "SWEEP_SUPERVISED": "1"}
        with slot.log.open("ab") as log:
            slot.process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=MEMORY_VARIABLES | os.environ | slot.environment | self._limits | identity,
            )
        slot.start_at = None
        if slot.cores is not None:
            with contextlib.suppress(OSError):  # it may have exited already
                os.sched_setaffinity(slot.process.pid, slot.cores)

    def _reap(self, slot: _Slot, code: int) -> None:
        """Record the exit of a worker, and restart it if runs are left."""
        process, slot.process = slot.process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()
        if code == EXIT_STOPPED or self._stopping:
            self._stopped = True
            return
        if code not in (0, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_REFUSED):
            self._store.record_death(slot.worker_id, f"its worker {_describe_exit(code)}", slot.log)
        if code in (EXIT_BAD_INPUT, EXIT_REFUSED):
            self._gave_up = f"a worker refused to start: see {slot.log}"
        elif self._has_runs_left():
            self._restart(slot, code)

    def _has_runs_left(self) -> bool:
        status = self._store.status()
        n_finished = sum(run.finished for run in status.runs)
        if n_finished > self._n_finished:
            self._n_finished = n_finished
            for slot in self._slots:
                slot.deaths = 0
        return n_finished < len(status.runs) and not status.cancelled

    def _restart(self, slot: _Slot, code: int) -> None:
        """Schedule the start of a new worker, with exponential backoff, up to MAX_DEATHS times."""
        slot.deaths += 1
        if slot.deaths > MAX_DEATHS:
            self._gave_up = (
                f"a worker died {slot.deaths} times without finishing a run; the last time it "
                f"{_describe_exit(code)}: see {slot.log}"
            )
            return
        self._n_restarts += 1
        slot.start_at = time.monotonic() + min(0.25 * 2**slot.deaths, MAX_BACKOFF_S)


def _describe_exit(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
