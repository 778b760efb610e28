"""What this machine offers to workers: its processor cores and GPUs, found without torch."""

from __future__ import annotations

import os
import subprocess
from functools import cache

import psutil


def cores() -> tuple[int, ...]:
    """One logical CPU of every physical core this process may use."""
    if not hasattr(os, "sched_getaffinity"):
        return tuple(range(psutil.cpu_count(logical=False) or psutil.cpu_count() or 1))
    allowed = sorted(os.sched_getaffinity(0))
    first_of: dict[str, int] = {}
    for cpu in allowed:
        first_of.setdefault(_siblings(cpu), cpu)
    return tuple(sorted(first_of.values()))


def n_places(n_workers: int | None, device: str, n_devices: int = 1) -> int:
    """Workers this machine takes: as many as asked for, else one per `n_devices` GPUs, else cores."""
    found = gpus() if device in ("auto", "cuda") else ()
    return n_workers or max(1, (len(found) or len(cores())) // n_devices)


def gpus() -> tuple[str, ...]:
    """Names of the GPUs this process may use, as CUDA_VISIBLE_DEVICES takes them; empty without any."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = tuple(name.strip() for name in visible.split(",") if name.strip())
        return () if names in (("-1",), ("NoDevFiles",)) or not _installed_gpus() else names
    return tuple(str(index) for index in range(_installed_gpus()))


@cache
def _installed_gpus() -> int:
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in listing.stdout.splitlines())


def _siblings(cpu: int) -> str:
    try:
        with open(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") as file:  # noqa: PTH123
            return file.read().strip()
    except OSError:
        return str(cpu)
