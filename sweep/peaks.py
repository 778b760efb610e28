"""What devices could do at most, by their names: what utilisation is measured against."""

from __future__ import annotations

# dense bf16, from NVIDIA's data sheets; the first key found in the device's name counts
PEAK_FLOPS_PER_SECOND = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "A10G": 70e12,
    "RTX 4090": 165e12,
}


def peak_flops_per_second(device: str) -> float | None:
    """The bf16 peak of a device by the name its vendor gives it; None where it is not known.

    >>> peak_flops_per_second("NVIDIA H200")
    989000000000000.0
    """
    return next((peak for key, peak in PEAK_FLOPS_PER_SECOND.items() if key in device), None)
