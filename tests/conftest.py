"""Scheduling of tests over pytest-xdist workers, and a garbage collector that skips imported modules."""

from __future__ import annotations

import gc
from typing import Any

import pytest

SAME_WORKER = {
    "tests/report/": "report",  # one planted sweep, fitted and drawn once
    "tests/services/test_by_hand.py": "smoke",  # one uninterrupted sweep
    "tests/services/test_ray.py::TestRayContract": "ray",  # one cluster
    "tests/services/test_ray.py": "smoke",
    "tests/services/test_slurm.py": "smoke",
    "tests/services/test_image.py": "image",
    "tests/services/test_postgresql.py": "postgresql",  # one server
}
"""Groups of tests that run in one worker, by prefix of the test's id.

The xdist_group mark (--dist loadgroup) of pytest-xdist 3.8 has no effect under pytest 9.2.
"""

APART = ("tests/faults/", "tests/launch/", "tests/scripts/", "tests/tracking/", "tests/train/ranks/")
"""Tests of seconds each, without shared fixtures: any worker may take one, at the end too."""


def pytest_collection_finish() -> None:
    """Exclude imported modules from garbage collection, which training triggers several times."""
    gc.collect()
    gc.freeze()


def group(nodeid: str) -> str:
    """Return the name of a test's group: by default its file, so that fixtures of a module are made once."""
    named = next((name for start, name in SAME_WORKER.items() if nodeid.startswith(start)), None)
    return named or (nodeid if nodeid.startswith(APART) else nodeid.partition("::")[0])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling  # pytest-xdist may be disabled

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid)

    return Scheduling(config, log)
