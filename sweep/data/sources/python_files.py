"""Corpora of Python sources: the standard library, and all sources below some directories."""

from __future__ import annotations

import contextlib
import os
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

from sweep.config import PythonData, StdlibData
from sweep.data.documents import Document, decoded, document
from sweep.data.sources.source import FileState, Source, file_state, read_file
from sweep.errors import DataError

EXCLUDED_DIRECTORIES = frozenset(
    "test tests idle_test pydoc_data site-packages dist-packages __pycache__".split()
)
"""Below the standard library: tests, generated texts, and what is not the standard library."""

MACHINE_MADE = ("_sysconfigdata", "config-", "sitecustomize", "usercustomize")
"""Beginnings of names written when Python was built or installed: they hold this machine's paths."""


def stdlib_source(config: StdlibData) -> Source:
    """The sources of the running interpreter's standard library."""
    return Source(name="stdlib", documents=stdlib_documents, files=_stdlib_files)


def stdlib_documents(root: Path | None = None) -> Iterator[Document]:
    """The sources of the running interpreter's standard library, ordered by their path below `root`.

    Tests, generated texts, installed packages and files that hold this machine's paths are left out, so two
    installations of one Python version yield the same corpus. Raises DataError for text that is not UTF-8.
    """
    root = Path(sysconfig.get_path("stdlib")) if root is None else root
    for name in _names_below(root, _is_library):
        found = document(name, read_file(root / name))
        decoded(found)
        yield found


def _stdlib_files() -> Iterator[FileState]:
    root = Path(sysconfig.get_path("stdlib"))
    return (file_state(root / name) for name in _names_below(root, _is_library))


def python_source(config: PythonData) -> Source:
    """All Python sources below `config.roots`, tests included, by root and path.

    Without roots, the packages installed for the running interpreter. Text that is not UTF-8 is left out:
    installed packages carry such files as test data. Raises DataError for a root that is no directory.
    """
    roots = [Path(root).expanduser() for root in config.roots] or [Path(sysconfig.get_path("purelib"))]
    for root in roots:
        if not root.is_dir():
            raise DataError(f"data.roots={root} is not a directory: name directories with Python sources")

    def files() -> Iterator[FileState]:
        return (file_state(root / name) for root in roots for name in _names_below(root))

    def documents() -> Iterator[Document]:
        for root in roots:
            for name in _names_below(root):
                found = document(name, read_file(root / name))
                with contextlib.suppress(DataError):
                    decoded(found)
                    yield found

    return Source(name="python", documents=documents, files=files)


def _is_library(name: str) -> bool:
    return name not in EXCLUDED_DIRECTORIES and not name.startswith(MACHINE_MADE)


def _names_below(root: Path, is_wanted: Callable[[str], bool] = lambda name: True) -> list[str]:
    """Paths of the *.py files below `root`, relative to it, with forward slashes, sorted.

    Only below directories, and of files, whose own name is wanted. Raises DataError where reading fails.
    """
    found: list[str] = []
    for directory, subdirectories, files in os.walk(root):
        subdirectories[:] = [name for name in subdirectories if is_wanted(name)]
        below = Path(directory).relative_to(root).as_posix()
        prefix = "" if below == "." else f"{below}/"
        found += [prefix + name for name in files if name.endswith(".py") and is_wanted(name)]
    return sorted(found)
