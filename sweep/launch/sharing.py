"""Whether files are seen from other machines, as far as this one can tell."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import psutil

OWN_TYPES = frozenset(
    "apfs bcachefs btrfs exfat ext2 ext3 ext4 f2fs hfs jfs ntfs ntfs3 overlay ramfs reiserfs squashfs tmpfs "
    "ufs vfat xfs zfs".split()
)
"""Types of file systems that belong to one machine; it may export them under the same path all the same."""


def warnings(paths: Iterable[tuple[str, Path]]) -> list[str]:
    """A sentence for each path, given with its key, that other machines may not see; a node decides it."""
    kinds = [(key, path, filesystem_type(path)) for key, path in paths]
    return [
        f"{key}={path} is on {kind}, which usually one machine sees alone: on one that does not see it "
        f"workers refuse to start, and say so"
        for key, path, kind in kinds
        if kind in OWN_TYPES
    ]


def filesystem_type(path: Path) -> str | None:
    """The type of the file system that `path` lies, or would lie, on; None where nobody says."""
    places = {part.mountpoint: part.fstype for part in psutil.disk_partitions(all=True)}
    resolved = path.expanduser().absolute().resolve()
    return next((places[str(above)] for above in (resolved, *resolved.parents) if str(above) in places), None)
