"""Checks of memory, disk space and file systems."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import psutil

from sweep.errors import SafetyError
from sweep.machine.doctor.diagnosis import Check
from sweep.store.files import check_filesystem, existing_parent

MIN_FREE_BYTES = 2**30  # for data, checkpoints and points; enough for a small sweep


def check_memory(needed_bytes: int) -> Check:
    """Compare the free memory, within the container's limit, with the estimate for the largest run."""
    free = min(psutil.virtual_memory().available, _container_limit_bytes())
    found = f"{free / 2**30:.1f} GiB free, the largest run needs about {needed_bytes / 2**30:.1f} GiB"
    if free >= needed_bytes:
        return Check(name="memory", state="ok", found=found)
    remedy = "lower trainer.micro_batch_size or the budgets, or set launch.n_workers=1"
    return Check(name="memory", state="missing", found=found, remedy=remedy)


def check_disk(key: str, directory: Path) -> Check:
    """Check free space and write permission in `directory`, or in its nearest existing parent."""
    place = existing_parent(directory)
    free = shutil.disk_usage(place).free
    try:
        probe = place / f".sweep-doctor-{id(place)}"
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        found = f"{place} is not writable ({error.strerror})"
        return Check(name=key, state="missing", found=found, remedy=f"set {key} to a writable directory")
    found = f"{free / 1e9:.1f} GB free in {place}"
    if free >= MIN_FREE_BYTES:
        return Check(name=key, state="ok", found=found)
    return Check(
        name=key, state="missing", found=found, remedy=f"free disk space, or set {key} to another disk"
    )


def check_links(results_dir: Path) -> Check:
    """Check the file system for hard links and for renames that never replace a non-empty directory."""
    try:
        check_filesystem(existing_parent(results_dir))
    except SafetyError as error:
        return Check(
            name="hard links",
            state="missing",
            found=str(error),
            remedy="set results_dir to a directory on another file system",
        )
    except OSError as error:
        found = f"not tested ({error.strerror})"
        return Check(
            name="hard links", state="missing", found=found, remedy="set results_dir to a writable directory"
        )
    return Check(name="hard links", state="ok", found="supported")


def _container_limit_bytes() -> float:
    try:
        return float(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):  # no control group, or "max"
        return math.inf
