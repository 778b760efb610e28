"""Atomic file operations: whole-file writes, hard-link commits, appended records, and reading of JSON."""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sweep.errors import DataError, SafetyError

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
FREE_SPACE_MARGIN = 1.2
"""Required free space, as a multiple of the estimated size of what a sweep writes."""

_APPEND = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)


def create(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a new file; on any error it is deleted again. Raises OSError, FileExistsError if it exists.

    `durable` waits until the bytes are on the disk. An existing symbolic link is not followed but an error.
    """
    with naming(path):
        descriptor = os.open(path, _NEW_FILE, 0o666)
        try:
            try:
                _write_all(descriptor, data)
                if durable:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def write_atomic(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write `data` to `path` atomically: a reader sees either the old or the new content."""
    temporary = _temporary(path)
    with naming(path):
        create(temporary, data, durable=durable)
        try:
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    if durable:
        sync_directory(path.parent)


def publish(temporary: Path, path: Path, *, durable: bool = True) -> bool:
    """Link `temporary` to `path`; return True if this call created `path`, False if it existed before.

    A network file system may create the link and lose the reply, so the link count of the temporary file
    decides, not the error.
    """
    try:
        path.hardlink_to(temporary)
    except OSError as error:
        if _n_links(temporary) != 2:
            if isinstance(error, FileExistsError):
                return False
            raise
    if durable:
        sync_directory(path.parent)
    return True


def create_once(path: Path, data: bytes, *, durable: bool = True) -> bool:
    """Create `path` atomically unless it exists; return True if this call created it."""
    temporary = _temporary(path)
    with naming(path):
        create(temporary, data, durable=durable)
    try:
        return publish(temporary, path, durable=durable)
    finally:
        temporary.unlink(missing_ok=True)


def sync_directory(path: Path) -> None:
    """Sync the entries of a directory to the disk.

    Errors are ignored: a visible file is committed in any case, and some file systems do not support fsync of
    directories.
    """
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in `path`; None if it is missing, truncated, no object or unreadable."""
    with contextlib.suppress(DataError):
        return read_kept(path)
    return None


def read_kept(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file that is written once; None if it is missing, truncated or no object.

    Raises DataError if the system cannot read it, since its content may be valid.
    """
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None
    except OSError as error:
        raise DataError(
            f"{path} cannot be read, although its content may be valid: {error.strerror}"
        ) from None
    return value if isinstance(value, dict) else None


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """Return one line of strict JSON. Raises ValueError for NaN and infinities."""
    return (json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n").encode()


def append_record(path: Path, record: Mapping[str, Any]) -> None:
    """Append one record to a file of JSON lines; non-finite numbers are stored as null.

    A truncated last line, left by a crash or a full disk, is terminated first, so that only it is lost.
    """
    descriptor = os.open(path, _APPEND, 0o666)
    try:
        size = os.lseek(descriptor, 0, os.SEEK_END)
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        _write_all(descriptor, b"\n" * torn + json_bytes(_finite(record)))
    finally:
        os.close(descriptor)


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield every complete record of a file of JSON lines, in order; truncated lines are skipped."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            record = json.loads(line)
            if isinstance(record, dict):
                yield record


def check_filesystem(directory: Path) -> None:
    """Check that the file system supports commits and claims.

    Raises SafetyError if hard links do not work, or a rename replaces a directory that is not empty.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    probe = _temporary(directory / "probe")
    probe.mkdir()
    try:
        create(probe / "one", b"1", durable=False)
        (probe / "two").hardlink_to(probe / "one")
        linked = _n_links(probe / "one") == 2
    except OSError:
        linked = False
    exclusive = _rename_is_exclusive(probe)
    remove_tree(probe)
    if not linked:
        raise SafetyError(
            f"{directory} is on a file system without hard links, which commits need: set results_dir to "
            f"another (local disks and NFS support them; FAT, exFAT and some FUSE mounts do not)"
        )
    if not exclusive:
        raise SafetyError(
            f"{directory} is on a file system that renames over a directory that is not empty, so two "
            f"workers could claim the same run: set results_dir to another file system"
        )


def check_writable(directory: Path) -> None:
    """Create and remove a directory in `directory`, or in its nearest existing parent. Raises OSError."""
    probe = _temporary(existing_parent(directory) / "probe")
    probe.mkdir()
    probe.rmdir()


def check_free_space(directory: Path, needed_bytes: int) -> None:
    """Check that FREE_SPACE_MARGIN times `needed_bytes` are free; quotas are not considered.

    Raises SafetyError with both numbers. `directory` need not exist yet.
    """
    free = shutil.disk_usage(existing_parent(directory)).free
    if free < FREE_SPACE_MARGIN * needed_bytes:
        raise SafetyError(
            f"{directory} has {_size(free)} of free disk space, but the sweep may write "
            f"{_size(needed_bytes)}, and {_size(FREE_SPACE_MARGIN * needed_bytes)} is required: free disk "
            f"space, set another results_dir, or lower launch.n_workers"
        )


def existing_parent(directory: Path) -> Path:
    """Return the directory, or its nearest existing parent."""
    place = directory.absolute()
    while not place.exists():
        place = place.parent
    return place


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


def _rename_is_exclusive(probe: Path) -> bool:
    for name in ("a", "b"):
        (probe / name).mkdir()
        create(probe / name / "full", b"", durable=False)
    try:
        (probe / "a").rename(probe / "b")
    except OSError:
        return True
    return False


def remove_tree(path: Path) -> None:
    """Delete a directory as far as possible; errors are ignored."""
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(path)):
            if entry.is_dir(follow_symlinks=False):
                remove_tree(Path(entry.path))
            else:
                with contextlib.suppress(OSError):
                    Path(entry.path).unlink()
        path.rmdir()


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have OSErrors in the block name `path` instead of a temporary file or no file."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def _n_links(path: Path) -> int:
    """Return the link count of a file, 0 if it cannot be opened. Network file systems cache stat by name."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return 0
    try:
        return os.fstat(descriptor).st_nlink
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
