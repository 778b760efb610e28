"""Fixtures of the service tests: skips as failures, and an undisturbed smoke sweep for comparison."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.services.smoke import SMOKE, science
from tests.shell import sweep


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Turn skips into failures if the services are required (scripts/service-tests)."""
    report = yield
    if report.skipped and os.environ.get("SWEEP_SERVICES") == "required":
        report.outcome = "failed"
        report.longrepr = f"skipped where services are required: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> dict[str, dict[str, Any]]:
    """The science columns of an undisturbed smoke sweep on this machine alone."""
    directory = tmp_path_factory.mktemp("undisturbed")
    done = sweep("run", *SMOKE, f"data_dir={data_dir}", cwd=directory, timeout=400)
    assert done.returncode == 0, done.stderr
    return science(directory / "results/smoke")


def need(*programs: str) -> None:
    """Skip the test if a program of the system is missing."""
    missing = [
        name for name in programs if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None
    ]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: scripts/service-tests does it")
