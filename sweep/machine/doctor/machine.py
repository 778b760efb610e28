"""Memory, disks and file systems, against what an experiment needs."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import psutil

from sweep.errors import SafetyError
from sweep.machine.doctor.diagnosis import Check
from sweep.store.files import check_filesystem

MIN_FREE_BYTES = 2**30  # prepared data, checkpoints and points of a small sweep; many need less


def check_memory(needed_bytes: int) -> Check:
    """Memory that is free, within the limit of a container, against the largest run's."""
    free = min(psutil.virtual_memory().available, _container_limit_bytes())
    found = f"{free / 2**30:.1f} GiB free, the largest run needs about {needed_bytes / 2**30:.1f}"
    if free >= needed_bytes:
        return Check(name="memory", state="ok", found=found)
    remedy = "set trainer.micro_batch_size lower, or launch.n_workers=1, or lower the budgets"
    return Check(name="memory", state="missing", found=found, remedy=remedy)


def check_disk(key: str, directory: Path) -> Check:
    """Room and the right to write where `directory` is or will be."""
    place = _existing(directory)
    free = shutil.disk_usage(place).free
    try:
        probe = place / f".sweep-doctor-{id(place)}"
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        found = f"{place} cannot be written ({error.strerror})"
        return Check(name=key, state="missing", found=found, remedy=f"choose another with {key}=DIR")
    found = f"{free / 1e9:.1f} GB free in {place}"
    if free >= MIN_FREE_BYTES:
        return Check(name=key, state="ok", found=found)
    return Check(name=key, state="missing", found=found, remedy=f"make room, or choose {key}=DIR")


def check_links(results_dir: Path) -> Check:
    """Whether results can be committed there: hard links, and renames that replace nothing in use."""
    try:
        check_filesystem(_existing(results_dir))
    except SafetyError as error:
        return Check(name="hard links", state="missing", found=str(error), remedy="results_dir=DIR elsewhere")
    except OSError as error:
        found = f"cannot be tried ({error.strerror})"
        return Check(name="hard links", state="missing", found=found, remedy="choose results_dir=DIR")
    return Check(name="hard links", state="ok", found="work")


def _existing(directory: Path) -> Path:
    """The directory, or the nearest one above it that is there."""
    directory = directory.expanduser().absolute()
    return next(path for path in (directory, *directory.parents) if path.is_dir())


def _container_limit_bytes() -> float:
    try:
        return float(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):  # no cgroup of ours, or "max"
        return math.inf
