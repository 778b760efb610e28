"""Checks of the packages an experiment requires, and of the extras of this installation."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import metadata

from sweep.machine.doctor.diagnosis import Check

NOT_FOR_USERS = frozenset({"dev", "test"})  # extras for the development of sweep itself


def check_packages(packages: Iterable[str]) -> list[Check]:
    """Check that each package is installed, and report its version."""
    found = {package: version_of(package) for package in packages}
    return [
        Check(name=package, state="ok", found=version)
        if version is not None
        else Check(name=package, state="missing", found="not installed", remedy=_remedy(package))
        for package, version in found.items()
    ]


def _remedy(package: str) -> str:
    """Return the command that installs a package: the first extra that holds it, or the package alone."""
    try:
        extras = extras_of(metadata.requires("sweep") or [])
    except metadata.PackageNotFoundError:
        extras = {}
    names = [extra for extra, packages in sorted(extras.items()) if package in packages]
    return f"pip install 'sweep[{names[0]}]'" if names else f"pip install {package}"


def check_extras() -> list[Check]:
    """Check each extra of this installation, with the command that installs it if it is incomplete."""
    try:
        extras = extras_of(metadata.requires("sweep") or [])
    except metadata.PackageNotFoundError:
        found = "sweep is not installed, it runs from a checkout"
        return [Check(name="extras", state="absent", found=found, remedy="pip install -e .")]
    checks = []
    for extra, packages in sorted(extras.items()):
        missing = [package for package in packages if version_of(package) is None]
        name = f"extra {extra}"
        if missing:
            found = f"not installed: {', '.join(missing)}"
            remedy = f"pip install 'sweep[{extra}]'"
            checks.append(Check(name=name, state="absent", found=found, remedy=remedy))
        else:
            checks.append(Check(name=name, state="ok", found=", ".join(packages)))
    return checks


def extras_of(requirements: Iterable[str]) -> dict[str, list[str]]:
    """Return the packages of each extra for users, from the requirements of a distribution.

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
    """Return the installed version of a package; None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
