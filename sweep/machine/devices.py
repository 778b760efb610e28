"""What this machine offers to workers: its processor cores and GPUs, found without torch."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from sweep.machine.packing import Packing

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # Linux control groups, version 2; docker --cpus writes it


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """Something that several workers may share."""

    visible: str  # as CUDA_VISIBLE_DEVICES takes it; empty for the CPU
    name: str  # what its maker calls it; for the CPU with the number of cores this process may use
    key: str  # names this very device on this machine
    memory_bytes: int


def devices(wanted: str) -> tuple[Device, ...]:
    """The GPUs that `wanted` (auto, cpu or cuda) lets workers use, else the CPU."""
    found = gpus() if wanted in ("auto", "cuda") else ()
    return tuple(_gpu(visible) for visible in found) or (_cpu(),)


def cores() -> tuple[int, ...]:
    """One logical CPU of every physical core this process may use, within a container's quota."""
    if not hasattr(os, "sched_getaffinity"):
        return tuple(range(psutil.cpu_count(logical=False) or psutil.cpu_count() or 1))
    allowed = sorted(os.sched_getaffinity(0))
    first_of: dict[str, int] = {}
    for cpu in allowed:
        first_of.setdefault(_siblings(cpu), cpu)
    return tuple(sorted(first_of.values()))[: _quota(CPU_QUOTA)]


def _quota(file: Path) -> int | None:
    """Processors' worth of time that a control group may use, at least 1; None without a limit."""
    try:
        quota, period = file.read_text().split()
        return None if quota == "max" else max(1, round(int(quota) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        return None


def n_places(n_workers: int | None, device: str, packing: Packing | None = None, n_devices: int = 1) -> int:
    """Workers this machine takes: as many as asked for, else as measured, else one per GPU or core.

    A worker whose runs are spread over `n_devices` takes so many GPUs or cores.
    """
    found = gpus() if device in ("auto", "cuda") else ()
    if n_workers is not None:
        return n_workers
    if packing is not None and n_devices == 1:
        return packing.n_workers * max(1, len(found))
    return max(1, (len(found) or len(cores())) // n_devices)


def core_shares(all_cores: tuple[int, ...], n_slots: int, *, on_gpu: bool) -> list[frozenset[int]] | None:
    """Cores of each worker, none in two hands; None where they are not pinned.

    On a CPU they are when every core has its one thread: of fewer, the system moves each to an idle core.
    """
    fits = n_slots <= len(all_cores) if on_gpu else n_slots == len(all_cores)
    if not fits or not hasattr(os, "sched_setaffinity"):
        return None
    return [frozenset(all_cores[index::n_slots]) for index in range(n_slots)]


def gpus() -> tuple[str, ...]:
    """Names of the GPUs this process may use, as CUDA_VISIBLE_DEVICES takes them; empty without any."""
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
    """Bytes from what nvidia-smi prints of memory; 0 where it knows none, as when it is the host's."""
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
    """The machine's memory, or what a container may use of it."""
    total = int(psutil.virtual_memory().total)
    try:
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no cgroup of ours, or "max"
        return total


def _siblings(cpu: int) -> str:
    try:
        with open(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") as file:  # noqa: PTH123
            return file.read().strip()
    except OSError:
        return str(cpu)
