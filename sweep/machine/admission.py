"""Admission control for the memory of a device shared by several workers.

A directory of the user holds one file for each admitted run, locked by the process that trains it. The kernel
releases the lock when the process ends, however it ends, so the memory of a dead worker is free at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from sweep.errors import SafetyError
from sweep.machine.environment import count_of

DIRECTORY, MEMORY = "SWEEP_ADMISSION_DIR", "SWEEP_ADMISSION_BYTES"  # environment variables, set by launchers


class Admission:
    """The memory of one device, shared by the workers on it.

    There is no limit while no other worker holds memory: a run larger than the device is tried alone, since
    its estimate may be too high, and its micro-batch is reduced.
    """

    def __init__(self, directory: Path, total_bytes: int) -> None:
        self._directory, self._total_bytes = directory, total_bytes
        self._held: tuple[Path, IO[str]] | None = None

    @contextlib.contextmanager
    def alone(self) -> Iterator[int | None]:
        """Lock out the other workers of the device; yield the free bytes, or None for no limit.

        Also yields None if the directory cannot be used: a sweep never stops for lack of admission control.
        """
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = (self._directory / "lock").open("a")
        except OSError:
            yield None
            return
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            held = self._held_by_others()
            yield max(0, self._total_bytes - sum(held)) if held else None

    def hold(self, n_bytes: int) -> None:
        """Reserve `n_bytes` until `release`; call it within `alone`. Without effect if the disk is full."""
        path = self._directory / f"{secrets.token_hex(8)}.bytes"
        try:
            file = os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW, 0o600), "w")
        except OSError:
            return
        self._held = path, file
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(str(n_bytes))
            file.flush()

    def release(self) -> None:
        """Release the reservation, if there is one."""
        if self._held is not None:
            path, file = self._held
            self._held = None
            with contextlib.suppress(OSError):  # a full disk may refuse the buffered data
                path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                file.close()

    def _held_by_others(self) -> list[int]:
        return [held for path in self._directory.glob("*.bytes") if (held := _held_bytes(path)) is not None]


def _held_bytes(path: Path) -> int | None:
    """Return the bytes held by the live owner of `path`; delete the file and return None without an owner."""
    try:
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read() or 0)
            path.unlink(missing_ok=True)
    except (OSError, ValueError):
        return None
    return None


def admission_directory(device_key: str) -> Path:
    """Return the directory of the reservations of a device, for this user on this machine.

    Not below XDG_RUNTIME_DIR, which is deleted when the user logs out while a detached sweep keeps running.
    Raises SafetyError if the parent directory belongs to another user.
    """
    base = Path(tempfile.gettempdir()) / f"sweep-{os.getuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    if base.is_symlink() or base.stat().st_uid != os.getuid():
        raise SafetyError(f"{base} belongs to another user: delete it, or set TMPDIR")
    return base / re.sub(r"[^A-Za-z0-9-]", "-", device_key)


def admission_from(environ: Mapping[str, str]) -> Admission | None:
    """Return the admission control set up by the launcher; None if the device is not shared.

    Raises InputError for a size that is not a number.
    """
    directory, total = environ.get(DIRECTORY), count_of(environ, MEMORY, least=0)
    return Admission(Path(directory), total) if directory and total is not None else None
