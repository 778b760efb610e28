"""The device a run is trained on: its name, its peak rate, its memory high-water mark."""

from __future__ import annotations

import platform
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


class PeakMemory:
    """The most memory a run used: allocated on the GPU, or resident in this process on the CPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            self._reset_resident()

    def bytes(self) -> int:
        """The high-water mark since this object was made."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        status = Path("/proc/self/status")
        if status.exists():
            for line in status.read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return int(psutil.Process().memory_info().rss)

    @staticmethod
    def _reset_resident() -> None:
        """Linux forgets the high-water mark on request (proc(5), clear_refs); elsewhere it stays."""
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return
