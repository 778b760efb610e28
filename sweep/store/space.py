"""Room on the disk: a sweep that would not fit is refused before it starts."""

from __future__ import annotations

import shutil
from pathlib import Path

from sweep.errors import SafetyError

MARGIN = 1.2
"""Free space wanted, as a multiple of what the sweep is estimated to write."""


def check_free_space(directory: Path, needed_bytes: int) -> None:
    """Refuse a file system with less than MARGIN times `needed_bytes` free; quotas are not seen.

    Raises SafetyError, with both numbers. `directory` need not be there yet.
    """
    place = directory.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < MARGIN * needed_bytes:
        raise SafetyError(
            f"{directory} is on a file system with {_size(free)} free, and the sweep may write "
            f"{_size(needed_bytes)}, for which {_size(MARGIN * needed_bytes)} should be: make room, choose "
            f"another results_dir, or lower launch.n_workers"
        )


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"
