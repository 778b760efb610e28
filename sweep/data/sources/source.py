"""What a source of text is: documents that can be read again and again, and what names them."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.data.documents import Document
from sweep.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True)
class FileState:
    """A file, and what changes whenever its content does."""

    path: str
    n_bytes: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where the documents of one config come from. A corpus is named by its recipe, or else by its text."""

    name: str  # what points call the corpus
    documents: Callable[[], Iterator[Document]]
    """Reads all documents, one at a time, in an order that depends on nothing but the documents. Copies
    included. Raises DataError."""

    files: Callable[[], Iterable[FileState]] | None = None
    """What the documents are read from, in order: while it is unchanged, so are they. Raises DataError."""

    recipe: Mapping[str, Any] | None = None
    """JSON that names the documents where they are costly or impossible to read again."""


def read_file(path: Path) -> bytes:
    """The whole content of a file. Raises DataError when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path | str, error: OSError) -> DataError:
    """The error for a file or directory that the system will not let us read."""
    return DataError(f"{path} cannot be read ({error.strerror}): check its permissions")


def file_state(path: Path) -> FileState:
    """What a file is like now. Raises DataError when it cannot be read."""
    try:
        found = path.stat()
    except OSError as error:
        raise unreadable(path, error) from None
    return FileState(
        path=str(path), n_bytes=found.st_size, mtime_ns=found.st_mtime_ns, ctime_ns=found.st_ctime_ns
    )


def matching(key: str, patterns: Iterable[str]) -> list[Path]:
    """The files that paths and globs name: pattern by pattern, sorted within each, each file once.

    Raises:
        DataError: A pattern, given as config key `key`, names a directory or no file at all.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        expanded = str(Path(pattern).expanduser())
        if Path(expanded).is_dir():
            raise DataError(f"{key}={pattern} is a directory: name its files, as {pattern.rstrip('/')}/**/*")
        names = [expanded] if os.path.lexists(expanded) else sorted(glob.glob(expanded, recursive=True))  # noqa: PTH207
        files = [path for path in map(Path, names) if not path.is_dir()]
        if not files:
            raise DataError(f"{key}={pattern} matches no file in {Path.cwd()}: check the path")
        found.update(dict.fromkeys(files))
    return list(found)
