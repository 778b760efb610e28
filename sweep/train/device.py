"""The device of a run: initialisation, name, utilisation and peak memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
from pathlib import Path

import platformdirs
import psutil
import torch

from sweep.flops import peak_flops_per_second


def device_name(device: torch.device) -> str:
    """Return the vendor's name of the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def model_flops_utilisation(flops: int, seconds: float, device: torch.device) -> float | None:
    """Return exact training FLOPs over the device's bf16 peak; None where the peak is unknown."""
    if device.type != "cuda":
        return None
    peak = peak_flops_per_second(device_name(device))
    return None if peak is None or seconds <= 0 else flops / seconds / peak


def initialise_device(device: torch.device, *, deterministic: bool) -> None:
    """Initialise CUDA for this process and choose deterministic or fast kernels; a CPU needs neither.

    Must come before any other CUDA call: statistics of the allocator do not initialise CUDA themselves.
    cuBLAS reads its variable when it starts, so deterministic products must be asked for in the first run of
    a process; later, torch raises RuntimeError.
    """
    if device.type != "cuda":
        return
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.cuda.init()  # type: ignore[no-untyped-call]
    torch.cuda.set_device(device)
    if deterministic != torch.are_deterministic_algorithms_enabled():  # the call imports torch's compiler
        torch.use_deterministic_algorithms(deterministic)
    torch.cuda.empty_cache()  # left by a run that failed


def use_compilation_cache() -> None:
    """Keep compiled kernels in the user's cache directory, by machine, for all workers and later sweeps.

    torch's cache holds pickles, so a directory that others may write to is not used; without a private one,
    torch keeps its default, below the directory for temporary files.
    """
    directory = platformdirs.user_cache_path("sweep") / "compiled" / platform.node()
    with contextlib.suppress(OSError):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = directory.stat()
        if status.st_uid == os.getuid() and not status.st_mode & 0o022:
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(directory))


class PeakMemory:
    """Peak memory of a run above the level at its start.

    On a GPU the rise of the peak of allocated bytes; on the CPU the rise of the process's resident high-water
    mark, which includes library pages that the run touches first.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._before = 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device)
        else:
            return_freed_memory()
            _forget_high_water_mark()
            self._before = _resident_peak_bytes()

    def bytes(self) -> int:
        """Return the peak since this object was made."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device)) - self._before
        return max(0, _resident_peak_bytes() - self._before)


def _resident_peak_bytes() -> int:
    """Return VmHWM of proc(5), or the resident size where there is no such file."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return int(psutil.Process().memory_info().rss)


def _forget_high_water_mark() -> None:
    """Reset the high-water mark to the resident size (Linux only: proc(5), clear_refs)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def return_cached_memory(device: torch.device) -> None:
    """Return a GPU's cached memory to the driver, for the other workers of the device."""
    if device.type == "cuda" and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def return_freed_memory() -> None:
    """Return freed heap memory to the system (glibc).

    Otherwise a run would reuse an earlier run's memory and seem to need less, and scoring could not use the
    small blocks that training freed.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # a C library without malloc_trim
            ctypes.CDLL(None).malloc_trim(0)
