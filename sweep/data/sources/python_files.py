"""Corpora of Python source files: the standard library, and directories."""

from __future__ import annotations

import contextlib
import os
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

from sweep.config import PythonData, StdlibData
from sweep.config.places import user_path
from sweep.data.documents import Document, decoded, document
from sweep.data.sources.source import FileState, Source, file_state, read_file
from sweep.errors import DataError

EXCLUDED_DIRECTORIES = frozenset(
    "test tests idle_test pydoc_data site-packages dist-packages __pycache__".split()
)
"""Directories left out of the standard library: tests, generated text and installed packages."""

BUILD_PREFIXES = ("_sysconfigdata", "config-", "sitecustomize", "usercustomize")
"""Prefixes of names written when Python is built or installed; these files contain local paths."""


def stdlib_source(config: StdlibData) -> Source:
    """Return the source files of the running interpreter's standard library."""
    return Source(name="stdlib", documents=lambda _: stdlib_documents(), files=_stdlib_files)


def stdlib_documents(root: Path | None = None) -> Iterator[Document]:
    """Yield the source files of the running interpreter's standard library, sorted by path below `root`.

    Tests, generated text, installed packages and files with local paths are left out, so that two
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
    """Return all Python files below `config.roots`, tests included, sorted by root and path.

    The default root is the running interpreter's installed packages. Files that are not UTF-8 are left out:
    packages contain some as test data. Raises DataError for a root that is not a directory.
    """
    roots = [user_path(root, "data.roots") for root in config.roots] or [Path(sysconfig.get_path("purelib"))]
    for root in roots:
        if not root.is_dir():
            raise DataError(f"data.roots={root} is not a directory: give directories with Python files")

    def files() -> Iterator[FileState]:
        return (file_state(root / name) for root in roots for name in _names_below(root))

    def documents() -> Iterator[Document]:
        for root in roots:
            for name in _names_below(root):
                found = document(name, read_file(root / name))
                with contextlib.suppress(DataError):
                    decoded(found)
                    yield found

    return Source(name="python", documents=lambda _: documents(), files=files)


def _is_library(name: str) -> bool:
    return name not in EXCLUDED_DIRECTORIES and not name.startswith(BUILD_PREFIXES)


def _names_below(root: Path, is_wanted: Callable[[str], bool] = lambda name: True) -> list[str]:
    """Return the sorted paths of *.py files, relative to `root`, with forward slashes.

    Leaves out directories and files with unwanted names.
    """
    found: list[str] = []
    for directory, subdirectories, files in os.walk(root):
        subdirectories[:] = [name for name in subdirectories if is_wanted(name)]
        below = Path(directory).relative_to(root).as_posix()
        prefix = "" if below == "." else f"{below}/"
        found += [prefix + name for name in files if name.endswith(".py") and is_wanted(name)]
    return sorted(found)
