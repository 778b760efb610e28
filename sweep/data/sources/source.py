"""The interface of text sources, and reading of their files."""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.config.places import user_path, working_directory
from sweep.data.documents import Document, Dropped
from sweep.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True)
class FileState:
    """A file's path, size and times, which change whenever its content changes."""

    path: str
    n_bytes: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """The documents of one config. Its corpus is identified by `recipe` if there is one, else by content."""

    name: str  # of the corpus, as recorded in points
    documents: Callable[[Dropped], Iterator[Document]]
    """Yields all documents, duplicates included, in an order that depends only on the documents; counts rows
    without text. Can be called repeatedly. Raises DataError."""

    files: Callable[[], Iterable[FileState]] | None = None
    """Yields the state of all source files, in order; if unchanged, the documents are unchanged. Raises
    DataError."""

    recipe: Mapping[str, Any] | None = None
    """JSON that identifies documents which are expensive or impossible to read again."""

    remedy_for_one_document: str | None = None
    """Advice for a corpus that is a single document."""


def read_file(path: Path) -> bytes:
    """Return the content of a file. Raises DataError when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path | str, error: OSError) -> DataError:
    """Return the error for a file or directory that cannot be read."""
    if isinstance(error, FileNotFoundError) and Path(path).is_symlink():
        return DataError(
            f"{path} is a link to {os.readlink(path)}, which does not exist: restore that file, "  # noqa: PTH115
            f"for example with git annex get, or remove the link"
        )
    remedies = {
        errno.ENOENT: "check the path",
        errno.ENOTDIR: "check the path",
        errno.ENAMETOOLONG: "use a shorter path",
        errno.ELOOP: "it is a link to itself, remove it",
    }
    if error.errno in remedies:
        return DataError(f"{path} cannot be read ({error.strerror}): {remedies[error.errno]}")
    return DataError(f"{path} cannot be read ({error.strerror}): check its permissions")


def file_state(path: Path | str) -> FileState:
    """Return the current state of a file. Raises DataError when it cannot be read."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError as error:
        raise unreadable(path, error) from None
    return FileState(
        path=str(path), n_bytes=found.st_size, mtime_ns=found.st_mtime_ns, ctime_ns=found.st_ctime_ns
    )


def _glob(pattern: str) -> list[str]:
    """Return the sorted matches of a glob. Leading components that exist as written are not patterns."""
    parts = Path(pattern).parts
    literal = 0
    while literal < len(parts) and os.path.lexists(Path(*parts[: literal + 1])):
        literal += 1
    escaped = Path(*map(glob.escape, parts[:literal]), *parts[literal:])
    return sorted(glob.glob(str(escaped), recursive=True))  # noqa: PTH207


def matching_files(key: str, patterns: Iterable[str]) -> list[str]:
    """Return the files that match paths or globs: in order of the patterns, sorted within each, each once.

    They are strings, because a Path needs ten times their memory.

    Raises:
        DataError: A pattern, given as config key `key`, matches no file or is a directory.
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        if not pattern.strip():
            raise DataError(f"{key} has an empty path: give files, as DIR/**/*")
        expanded = str(user_path(pattern, key))
        if Path(expanded).is_dir():
            raise DataError(f"{key}={pattern} is a directory: give its files, as {pattern.rstrip('/')}/**/*")
        names = [expanded] if os.path.lexists(expanded) else _glob(expanded)
        files = [name for name in names if not os.path.isdir(name)]  # noqa: PTH112
        if not files:
            raise DataError(f"{key}={pattern} matches no file in {working_directory()}: check the path")
        found.update(dict.fromkeys(files))
    return list(found)
