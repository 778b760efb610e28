"""The packages an experiment imports, and the extras of this installation."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import metadata

from sweep.machine.doctor.diagnosis import Check

NOT_FOR_USERS = frozenset({"dev", "test"})  # extras of those who work on sweep itself


def check_packages(packages: Iterable[str]) -> list[Check]:
    """The packages an experiment imports, with their versions."""
    found = {package: version_of(package) for package in packages}
    return [
        Check(name=package, state="ok", found=version)
        if version is not None
        else Check(name=package, state="missing", found="not installed", remedy="pip install 'sweep[train]'")
        for package, version in found.items()
    ]


def check_extras() -> list[Check]:
    """The extras of this installation of sweep: which are complete, and the command for each that is not."""
    try:
        extras = extras_of(metadata.requires("sweep") or [])
    except metadata.PackageNotFoundError:
        found = "sweep runs from a checkout that is not installed"
        return [Check(name="extras", state="absent", found=found, remedy="pip install -e .")]
    checks = []
    for extra, packages in sorted(extras.items()):
        lacking = [package for package in packages if version_of(package) is None]
        name = f"extra {extra}"
        if lacking:
            found = f"lacks {', '.join(lacking)}"
            remedy = f"pip install 'sweep[{extra}]'"
            checks.append(Check(name=name, state="absent", found=found, remedy=remedy))
        else:
            checks.append(Check(name=name, state="ok", found=", ".join(packages)))
    return checks


def extras_of(requirements: Iterable[str]) -> dict[str, list[str]]:
    """The packages of each extra for users, from a distribution's requirements.

    >>> extras_of(["numpy>=2", "torch>=2.11; extra == 'train'", 'wandb<1 ; extra == "wandb"'])
    {'train': ['torch'], 'wandb': ['wandb']}
    """
    extras: dict[str, list[str]] = {}
    for requirement in requirements:
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", requirement)
        if name and extra and extra.group(1) not in NOT_FOR_USERS:
            extras.setdefault(extra.group(1), []).append(name.group())
    return extras


def version_of(package: str) -> str | None:
    """The installed version of a package; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
