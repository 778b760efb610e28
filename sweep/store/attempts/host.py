"""Identity of the process that holds an attempt, with which others on the same host detect its death."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """One process of one boot of one machine. None if the system does not provide a value."""

    host: str
    pid: int
    start_ticks: int | None  # when the process started, in clock ticks since boot
    boot_id: str | None
    pid_namespace: str | None


def this_process() -> Holder:
    """Return the identity of the current process."""
    pid = os.getpid()
    return Holder(
        host=socket.gethostname(),
        pid=pid,
        start_ticks=_start_ticks(pid),
        boot_id=_boot_id(),
        pid_namespace=_pid_namespace(),
    )


def read_holder(values: Mapping[str, Any]) -> Holder | None:
    """Parse the holder of a claim; None if it is incomplete."""
    try:
        return Holder(**{key: values[key] for key in Holder.__slots__})
    except (KeyError, TypeError):
        return None


def is_gone(holder: Holder) -> bool:
    """Return True if `holder` is certainly dead; False if it is alive or cannot be checked from here.

    It can be checked only on the same boot of the same machine in the same PID namespace: elsewhere its PID
    may belong to another process. The host name is compared too, since clones of a virtual machine share a
    boot id. A zombie process counts as dead.
    """
    if holder.host != socket.gethostname():
        return False
    if holder.boot_id is None or holder.pid_namespace is None or holder.start_ticks is None:
        return False
    if (holder.boot_id, holder.pid_namespace) != (_boot_id(), _pid_namespace()):
        return False
    if not _exists(holder.pid):
        return True
    start = _start_ticks(holder.pid)
    return start is not None and start != holder.start_ticks


def shared_device() -> str | None:
    """Return the id of the GPU assigned by the launcher, equal for all workers on it; None without a GPU."""
    device = os.environ.get("SWEEP_DEVICE", "")
    if not device.startswith("cuda"):
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")  # inside a job the numbers may start at 0 again
    return "/".join((socket.gethostname(), os.environ.get("SLURM_JOB_ID", ""), visible, device))


def seconds_since_boot() -> float:
    """Return a monotonic time that, if the system provides one, also advances while the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


@cache
def _boot_id() -> str | None:
    return _read(Path("/proc/sys/kernel/random/boot_id"))


def _pid_namespace() -> str | None:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 only checks for existence
    except ProcessLookupError:
        return False
    except OSError:  # exists, but belongs to another user
        return True
    return True


def _start_ticks(pid: int) -> int | None:
    """Return field 22 of /proc/PID/stat; -1 for a zombie, None if it cannot be read."""
    text = _read(Path(f"/proc/{pid}/stat"))
    if text is None:
        return None
    fields = text.rpartition(")")[2].split()  # the name in parentheses may contain anything
    return -1 if fields[0] in "ZX" else int(fields[19])


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
