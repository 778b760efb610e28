"""Which tests stay together when they are spread over processes, and a heap that is quick to look through."""

from __future__ import annotations

import gc
from typing import Any

import pytest

TOGETHER = {
    "tests/study/test_run.py": "study",  # one finished sweep
    "tests/launch/test_every_launcher.py::TestRay": "ray",  # one cluster
    "tests/report/figures/": "figures",  # fitted and drawn once
    "tests/train/test_trunk.py": "trunk",  # one trunk trained beforehand
    "tests/services/test_by_hand.py": "smoke",  # one undisturbed sweep
    "tests/services/test_ray.py": "smoke",
    "tests/services/test_slurm.py": "smoke",
    "tests/services/test_image.py": "image",
    "tests/services/test_postgresql.py": "postgresql",  # one server
}
"""By how their names begin: marks of pytest-xdist 3.8 (--dist loadgroup) do nothing under pytest 9.2."""


def pytest_collection_finish() -> None:
    """What is imported by now stays: no collection looks through it again, and trainings ask for several."""
    gc.collect()
    gc.freeze()


def group(nodeid: str) -> str:
    """The name of what a test is sent to a process with; its own where it stands alone."""
    return next((name for start, name in TOGETHER.items() if nodeid.startswith(start)), nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling  # not where pytest-xdist is switched off

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid)

    return Scheduling(config, log)
