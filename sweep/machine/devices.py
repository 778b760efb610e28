"""The GPUs and processor cores of this machine."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from sweep.machine.torch_probe import installed_gpus, probe_torch

GPU_FILE = Path("/dev/nvidiactl")  # there also in containers without nvidia-smi
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # Linux control groups v2; set by docker --cpus


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """A device that several workers may share."""

    visible: str  # value for CUDA_VISIBLE_DEVICES, a UUID; empty for the CPU
    name: str  # product name; for the CPU followed by the number of cores this process may use
    key: str  # unique on this machine
    memory_bytes: int


def devices(wanted: str) -> tuple[Device, ...]:
    """Return the GPUs that workers may use with `wanted` (auto, cpu or cuda); the CPU if there are none."""
    found = _gpus(os.environ.get("CUDA_VISIBLE_DEVICES")) if wanted in ("auto", "cuda") else ()
    return found or (_cpu(),)


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
    """Return the GPUs that torch can use here, as values for CUDA_VISIBLE_DEVICES; empty without GPUs."""
    return tuple(gpu.visible for gpu in _gpus(os.environ.get("CUDA_VISIBLE_DEVICES")))


def unusable_gpus() -> str | None:
    """Return why this machine's GPUs cannot be used, in one clause; None without GPUs or with usable ones."""
    names = installed_gpus()
    if not names or gpus():
        return None
    found = _probe(os.environ.get("CUDA_VISIBLE_DEVICES"))
    reason = found.get("no_gpu_because") or found.get("error") or "CUDA_VISIBLE_DEVICES hides them"
    return f"torch cannot use {', '.join(names)} ({reason})"


def _gpus(visible: str | None) -> tuple[Device, ...]:
    """Return the GPUs by UUID, in torch's order.

    An index would mean another GPU to nvidia-smi than to CUDA, and another one again to a client of MPS. A
    slice of a GPU (MIG) keeps the name by which CUDA_VISIBLE_DEVICES selects it; without one it is CUDA's
    index of the GPU, since CUDA takes the first slice.
    """
    if not _may_have_gpu() or visible in ("", "-1", "NoDevFiles"):
        return ()
    found = _probe(visible).get("devices", {})
    names = [name.strip() for name in visible.split(",")] if visible else []
    listed = []
    for index, (_, device) in enumerate((name, each) for name, each in found.items() if name != "cpu"):
        given = names[index] if index < len(names) else str(index)
        is_slice = given.startswith("MIG-") or " MIG " in device["name"]
        name = given if is_slice else f"GPU-{device['uuid']}"
        listed.append(
            Device(visible=name, key=name, name=device["name"], memory_bytes=device["memory_bytes"])
        )
    return tuple(listed)


def _may_have_gpu() -> bool:
    """Return False where no GPU can be, without the seconds that importing torch takes."""
    return shutil.which("nvidia-smi") is not None or GPU_FILE.exists()


@cache
def _probe(visible: str | None) -> dict[str, Any]:
    """Probe torch once per process and value of CUDA_VISIBLE_DEVICES, which the probe inherits."""
    return probe_torch()


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
