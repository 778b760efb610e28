"""Staging directories: private to one process, kept when it is stopped, and resumed by the next."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sweep.errors import DataError, DataInterrupted

ABANDONED_AFTER_S = 86_400.0  # a directory without a lock, unchanged for a day, was left by a crash

LOCK = "lock"


@contextmanager
def atomic_directory(final: Path) -> Iterator[Path]:
    """Yield a private directory and rename it to `final` on exit, unless another process was faster.

    Resumes the directory of a process that died or was stopped, if there is one: the system releases the lock
    of a dead process. Live processes each use a directory of their own. The directory is kept for the next
    process after DataInterrupted, an interrupt or a kill, and deleted after other errors.

    Raises:
        DataInterrupted: The directory cannot be written, for example because the disk is full.
    """
    private, lock = _resume(final) or _new(final)
    try:
        yield private
    except (DataInterrupted, KeyboardInterrupt, SystemExit):
        os.close(lock)
        raise
    except OSError as error:
        os.close(lock)
        raise _interrupted(private, error) from None
    except BaseException:
        _remove(private, lock)
        raise
    (private / LOCK).unlink(missing_ok=True)
    with suppress(OSError):  # another process was faster: a non-empty directory is never replaced
        private.rename(final)
    _remove(private, lock)
    if not final.is_dir():
        raise DataError(f"{private} cannot be renamed to {final}: remove the file of that name")


def _interrupted(private: Path, error: OSError) -> DataInterrupted:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "free disk space" if full else "fix the cause"
    return DataInterrupted(
        f"{private.parent} cannot be written ({error.strerror}): finished work is kept, {remedy} and repeat "
        f"the command to resume, or choose another data_dir"
    )


def _new(final: Path) -> tuple[Path, int]:
    """Create and lock a directory. One that another process locked first is left to that process."""
    while True:
        private = final.with_name(f".{final.name}.{uuid.uuid4().hex}")
        private.mkdir()
        lock = os.open(private / LOCK, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = os.path.samestat(os.fstat(lock), (private / LOCK).stat())
        except (BlockingIOError, FileNotFoundError):
            is_ours = False
        except OSError:  # no locks on this file system: the directory is then never resumed
            is_ours = True
        if is_ours:
            return private, lock
        os.close(lock)


def _resume(final: Path) -> tuple[Path, int] | None:
    """Lock and return a directory left by a dead process, or None; remove further ones."""
    found: tuple[Path, int] | None = None
    for private in sorted(final.parent.glob(f".{final.name}.*")):
        lock = _lock_if_free(private)
        if lock is None:
            _remove_abandoned(private)
        elif found is None:
            found = private, lock
        else:
            _remove(private, lock)
    return found


def _lock_if_free(private: Path) -> int | None:
    """Lock a directory and return the descriptor, or None when another process holds the lock."""
    try:
        lock = os.open(private / LOCK, os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), (private / LOCK).stat()):
            return lock
    except OSError:  # locked, or finished and renamed in the meantime
        pass
    os.close(lock)
    return None


def _remove(private: Path, lock: int) -> None:
    shutil.rmtree(private, ignore_errors=True)
    os.close(lock)


def _remove_abandoned(private: Path) -> None:
    with suppress(OSError):
        if not (private / LOCK).exists() and time.time() - private.stat().st_mtime > ABANDONED_AFTER_S:
            shutil.rmtree(private)
