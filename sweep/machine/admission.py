"""Which workers of this machine may hold how much memory of one device: so that packed runs fit together.

A directory of this user's holds one file for each admitted run, locked by the process that trains it. The
kernel drops the lock with the process, however it ends, so what a dead worker held is free at once.
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

DIRECTORY, MEMORY = "SWEEP_ADMISSION_DIR", "SWEEP_ADMISSION_BYTES"  # what a launcher tells its workers


class Admission:
    """The memory of one device, shared by the workers that use it. Nothing is refused without other holders.

    A run larger than the device is tried alone: its estimate may be too high, and its micro-batch shrinks.
    """

    def __init__(self, directory: Path, total_bytes: int) -> None:
        self._directory, self._total_bytes = directory, total_bytes
        self._held: tuple[Path, IO[str]] | None = None

    @contextlib.contextmanager
    def alone(self) -> Iterator[int | None]:
        """Lock out the other workers of the device; gives the bytes that are free, None for no limit.

        None too where the directory cannot be had: that workers share a device stops no sweep.
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
        """Take `n_bytes` until `release`; call it within `alone`. What the disk refuses is not counted."""
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
        """Give back what is held, if anything."""
        if self._held is not None:
            path, file = self._held
            self._held = None
            with contextlib.suppress(OSError):  # a full disk refuses what is still buffered
                path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                file.close()

    def _held_by_others(self) -> list[int]:
        return [held for path in self._directory.glob("*.bytes") if (held := _held_bytes(path)) is not None]


def _held_bytes(path: Path) -> int | None:
    """What the living owner of `path` holds; None, and the file is gone, when it has none."""
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
    """Where this user's workers on this machine tell each other what they hold of a device.

    Not below XDG_RUNTIME_DIR, which goes when the user logs out: a detached sweep stays.
    """
    base = Path(tempfile.gettempdir()) / f"sweep-{os.getuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    if base.is_symlink() or base.stat().st_uid != os.getuid():
        raise SafetyError(f"{base} belongs to somebody else: delete it, or set TMPDIR")
    return base / re.sub(r"[^A-Za-z0-9-]", "-", device_key)


def admission_from(environ: Mapping[str, str]) -> Admission | None:
    """What the launcher told this worker of its device; None where nothing is shared.

    Raises InputError for a size that is no number.
    """
    directory, total = environ.get(DIRECTORY), count_of(environ, MEMORY, least=0)
    return Admission(Path(directory), total) if directory and total is not None else None
