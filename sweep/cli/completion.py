"""Completion of arguments in a shell, without imports that take longer than a key press."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PREFIX = "experiment="
PACKAGE = Path(__file__).resolve().parents[1]
CONFIGS = (Path("configs"), PACKAGE / "configs", PACKAGE.parent / "configs")
"""Directories of experiments: the user's, and the packaged one of a wheel or a checkout."""


def complete_directory(incomplete: str) -> list[str]:
    """Return the sweeps below results, and the directories and files that start with `incomplete`."""
    sweeps = (str(path.parent) for path in Path("results").glob("*/plans"))
    return sorted({*(path for path in sweeps if path.startswith(incomplete)), *_paths(incomplete)})


def complete_setting(args: list[str], incomplete: str) -> list[str]:
    """Return experiments, as experiment=NAME; without the prefix where bash has cut the word at the =."""
    names = sorted({path.stem for directory in CONFIGS for path in directory.glob("experiment/*.yaml")})
    if args[-1:] == ["="] or incomplete == "=":
        return [name for name in names if name.startswith(incomplete.lstrip("="))]
    return [PREFIX + name for name in names if (PREFIX + name).startswith(incomplete)]


def complete_directory_or_setting(args: list[str], incomplete: str) -> list[str]:
    """Return what either of the other two gives."""
    settings = complete_setting(args, incomplete)
    return settings if args[-1:] == ["="] else [*complete_directory(incomplete), *settings]


def _paths(incomplete: str) -> Iterator[str]:
    start = Path(incomplete)
    parent, prefix = (start, "") if incomplete.endswith("/") else (start.parent, start.name)
    if not incomplete or not parent.is_dir():
        return
    for path in parent.iterdir():
        if path.name.startswith(prefix) and not path.name.startswith("."):
            yield f"{path}/" if path.is_dir() else str(path)
