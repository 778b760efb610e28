"""The device a run is trained on: its name, its peak rate, its memory high-water mark."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
from pathlib import Path

import psutil
import torch

from sweep.peaks import peak_flops_per_second


def device_name(device: torch.device) -> str:
    """What the vendor calls it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def model_flops_utilisation(flops: int, seconds: float, device: torch.device) -> float | None:
    """Exact training FLOPs over what the device could have done in bf16; None where its peak is not known."""
    if device.type != "cuda":
        return None
    peak = peak_flops_per_second(device_name(device))
    return None if peak is None or seconds <= 0 else flops / seconds / peak


def use_determinism(wanted: bool, device: torch.device) -> None:
    """Make a GPU's kernels repeat to the bit, or let them be fast again; a CPU's repeat as they are.

    cuBLAS reads its variable when it starts, so the first run of a process decides whether matrix products
    can repeat: one that is asked for later raises RuntimeError in torch's own words.
    """
    if device.type != "cuda":
        return
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(wanted)


class PeakMemory:
    """The most memory a run used beyond what was there when it began.

    On a GPU the most that was allocated; on the CPU the rise of this process's resident high-water mark, what
    it read of its libraries on the way included.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._before = 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            return_freed_memory()
            _forget_high_water_mark()
            self._before = _resident_peak_bytes()

    def bytes(self) -> int:
        """Since this object was made."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        return max(0, _resident_peak_bytes() - self._before)


def _resident_peak_bytes() -> int:
    """VmHWM of proc(5); where there is none, what is resident now."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return int(psutil.Process().memory_info().rss)


def _forget_high_water_mark() -> None:
    """Linux sets it to what is resident now, on request (proc(5), clear_refs); elsewhere it stays."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def return_freed_memory() -> None:
    """Give the system what this process freed: an earlier run's, else this one would seem to need less, and
    what training freed before scoring, whose larger blocks do not fit there."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # a C library without malloc_trim
            ctypes.CDLL(None).malloc_trim(0)
