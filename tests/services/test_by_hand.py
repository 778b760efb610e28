"""Two workers started in shells and `launch=local` on one smoke sweep: no run is trained twice."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.services.smoke import SMOKE, attempts, science
from tests.shell import command, environment

pytestmark = [pytest.mark.service, pytest.mark.timeout(420)]


def start(directory: Path, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*words),
        cwd=directory,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_two_shells_and_a_launcher_drain_one_sweep(
    tmp_path: Path, data_dir: Path, undisturbed: dict[str, Any]
) -> None:
    sweep_dir = tmp_path / "results/smoke"
    launcher = start(tmp_path, "run", *SMOKE, "launch.n_workers=1", f"data_dir={data_dir}")
    while not list(sweep_dir.glob("plans/*.json")):
        assert launcher.poll() is None
        time.sleep(0.02)
    shells = [start(tmp_path, "worker", "results/smoke") for _ in range(2)]
    errors = [process.communicate(timeout=300)[1] for process in (launcher, *shells)]
    assert [process.returncode for process in (launcher, *shells)] == [0, 0, 0], errors
    assert {tuple(attempt.state for attempt in tried) for tried in attempts(sweep_dir)} == {("done",)}
    assert science(sweep_dir) == undisturbed
    assert all(re.search(r"worker: \d+ done", words) for words in errors[1:])  # each shell trained some runs
