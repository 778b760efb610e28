"""Who holds an attempt: a process named so that others on the same boot can tell that it is gone."""

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
    """One process of one boot of one machine. None where the system does not tell."""

    host: str
    pid: int
    start_ticks: int | None  # when the process started, in clock ticks since boot
    boot_id: str | None
    pid_namespace: str | None


def this_process() -> Holder:
    """The process that is running."""
    pid = os.getpid()
    return Holder(
        host=socket.gethostname(),
        pid=pid,
        start_ticks=_start_ticks(pid),
        boot_id=_boot_id(),
        pid_namespace=_pid_namespace(),
    )


def read_holder(values: Mapping[str, Any]) -> Holder | None:
    """The holder a claim names; None when the claim does not name one completely."""
    try:
        return Holder(**{key: values[key] for key in Holder.__slots__})
    except (KeyError, TypeError):
        return None


def is_gone(holder: Holder) -> bool:
    """True when `holder` is certainly dead; False when it lives or nobody here can know.

    Certain only on the same boot of the same machine in the same PID namespace: elsewhere its number may
    belong to anybody. The host's name counts too, for clones of one virtual machine share a boot. A process
    that ended but was not waited for is gone too.
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
    """Names the GPU that a launcher gave this worker, the same for all that share it; None without one."""
    device = os.environ.get("SWEEP_DEVICE", "")
    if not device.startswith("cuda"):
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")  # inside a job numbers may begin at 0 again
    return "/".join((socket.gethostname(), os.environ.get("SLURM_JOB_ID", ""), visible, device))


def seconds_since_boot() -> float:
    """A clock that no one sets and that, where the system has one, also runs while the machine sleeps."""
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
        os.kill(pid, 0)  # signal 0 is never sent; it only asks
    except ProcessLookupError:
        return False
    except OSError:  # there, but somebody else's
        return True
    return True


def _start_ticks(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat; -1 for a process that is dead and not yet waited for, None when hidden."""
    text = _read(Path(f"/proc/{pid}/stat"))
    if text is None:
        return None
    fields = text.rpartition(")")[2].split()  # the name before the parenthesis may hold anything
    return -1 if fields[0] in "ZX" else int(fields[19])


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
