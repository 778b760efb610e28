"""Files that appear whole or not at all: atomic writes, hard-link commits, appended records, JSON reading."""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sweep.errors import DataError, SafetyError

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
_APPEND = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)


def create(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file that must not exist yet; on any error nothing is left of it.

    `durable` waits until the bytes are on the disk. A symbolic link in the way is refused, not followed.
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


def replace(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Put `data` at `path` in one step: a reader sees the old content or the new, never a mixture."""
    temporary = _beside(path)
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
    """Link `temporary` to `path`; True when this call made `path` appear, False when it was there before.

    A network file system may carry the link out and lose the reply: then the error is wrong, and the two
    links of the temporary file are the truth.
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
    """Make `path` appear whole unless it is there already; True when this call did."""
    temporary = _beside(path)
    create(temporary, data, durable=durable)
    try:
        return publish(temporary, path, durable=durable)
    finally:
        temporary.unlink(missing_ok=True)


def sync_directory(path: Path) -> None:
    """Ask the disk to keep the directory's entries.

    Errors are ignored: what became visible is committed whatever this call says, and some file systems
    refuse it for directories.
    """
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in `path`; None when the file is absent, torn, no object or cannot be read now."""
    with contextlib.suppress(DataError):
        return read_kept(path)
    return None


def read_kept(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file that is written once; None when it is absent, torn or no object.

    Raises DataError for one that the system will not show: what it holds may be sound.
    """
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None
    except OSError as error:
        raise DataError(f"{path} cannot be read, and may be sound: {error.strerror}") from None
    return value if isinstance(value, dict) else None


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """One line of strict JSON. Raises ValueError on NaN and infinities."""
    return (json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n").encode()


def append_record(path: Path, record: Mapping[str, Any]) -> None:
    """Append one record to a file of JSON lines; a non-finite number is stored as null, for unknown.

    A torn last line, left by a crash or a full disk, is closed first, so it costs itself only.
    """
    descriptor = os.open(path, _APPEND, 0o666)
    try:
        size = os.lseek(descriptor, 0, os.SEEK_END)
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        _write_all(descriptor, b"\n" * torn + json_bytes(_finite(record)))
    finally:
        os.close(descriptor)


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """Every whole record of a file of JSON lines, in order; torn lines are passed over."""
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
    """Refuse a file system on which a result could be committed twice or torn.

    Raises SafetyError when hard links do not work, or a rename replaces a directory that is not empty.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    probe = _beside(directory / "probe")
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
            f"{directory} is on a file system without hard links, which commits need: choose another "
            f"results_dir (local disks and NFS have them; FAT, exFAT and some FUSE mounts do not)"
        )
    if not exclusive:
        raise SafetyError(
            f"{directory} is on a file system that renames over a directory in use, so two workers could "
            f"claim one run: choose another results_dir"
        )


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
    """Delete a directory of ours as far as possible; what cannot be deleted is only garbage."""
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
    """Errors of the system within tell of `path`, not of a temporary name or of none."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def _n_links(path: Path) -> int:
    """Links of a file, 0 when it cannot be read; opened, for a network file system caches what stat says."""
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
