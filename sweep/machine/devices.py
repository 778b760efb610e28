"""The GPUs and processor cores of this machine, found without torch."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # Linux control groups v2; set by docker --cpus


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """A device that several workers may share."""

    visible: str  # value for CUDA_VISIBLE_DEVICES; empty for the CPU
    name: str  # product name; for the CPU followed by the number of cores this process may use
    key: str  # unique on this machine
    memory_bytes: int


def devices(wanted: str) -> tuple[Device, ...]:
    """Return the GPUs that workers may use with `wanted` (auto, cpu or cuda); the CPU if there are none."""
    found = gpus() if wanted in ("auto", "cuda") else ()
    return tuple(_gpu(visible) for visible in found) or (_cpu(),)


def cores() -> tuple[int, ...]:
    """Return one logical CPU of each physical core this process may use, within the container's quota."""
    if not hasattr(os, "sched_getaffinity"):
        return tuple(range(psutil.cpu_count(logical=False) or psutil.cpu_count() or 1))
    allowed = sorted(os.sched_getaffinity(0))
    first_of: dict[str, int] = {}
    for cpu in allowed:
        first_of.setdefault(_siblings(cpu), cpu)
    return tuple(sorted(first_of.values()))[: _quota(CPU_QUOTA)]


def _quota(file: Path) -> int | None:
    """Return the CPU quota of a control group in processors, at least 1; None without a limit."""
    try:
        quota, period = file.read_text().split()
        return None if quota == "max" else max(1, round(int(quota) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        return None


def core_shares(all_cores: tuple[int, ...], n_slots: int, *, on_gpu: bool) -> list[frozenset[int]] | None:
    """Return disjoint sets of cores, one for each worker; None if workers are not pinned.

    CPU workers are pinned only if there is one for every core; with fewer, the system moves each to an idle
    core.
    """
    fits = n_slots <= len(all_cores) if on_gpu else n_slots == len(all_cores)
    if not fits or not hasattr(os, "sched_setaffinity"):
        return None
    return [frozenset(all_cores[index::n_slots]) for index in range(n_slots)]


def gpus() -> tuple[str, ...]:
    """Return the GPUs this process may use, as values for CUDA_VISIBLE_DEVICES; empty without GPUs."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = tuple(name.strip() for name in visible.split(",") if name.strip())
        return () if names in (("-1",), ("NoDevFiles",)) or not _listed_gpus() else names
    return tuple(listed.visible for listed in _listed_gpus())


@cache
def _listed_gpus() -> tuple[Device, ...]:
    query = ["nvidia-smi", "--query-gpu=index,uuid,memory.total,name", "--format=csv,noheader,nounits"]
    try:
        listing = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    rows = (line.split(", ", 3) for line in listing.stdout.splitlines() if line.count(", ") >= 3)
    return tuple(
        Device(visible=index, key=uuid, memory_bytes=_mebibytes(memory), name=name)
        for index, uuid, memory, name in rows
    )


def _mebibytes(number: str) -> int:
    """Convert a memory size printed by nvidia-smi to bytes; 0 if it is not a number, as for shared memory."""
    return int(number) * 2**20 if number.isdigit() else 0


def _gpu(visible: str) -> Device:
    for listed in _listed_gpus():
        if visible == listed.visible or listed.key.startswith(visible):
            return Device(visible=visible, name=listed.name, key=listed.key, memory_bytes=listed.memory_bytes)
    return Device(visible=visible, name="unknown GPU", key=visible, memory_bytes=0)


def _cpu() -> Device:
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    return Device(visible="", name=f"{name}, {len(cores())} cores", key="cpu", memory_bytes=_memory_bytes())


def _memory_bytes() -> int:
    """Return the memory of the machine, or the limit of the container."""
    total = int(psutil.virtual_memory().total)
    try:
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no control group, or "max"
        return total


def _siblings(cpu: int) -> str:
    try:
        with open(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") as file:  # noqa: PTH123
            return file.read().strip()
    except OSError:
        return str(cpu)
