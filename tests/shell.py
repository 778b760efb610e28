"""The command line in a process of its own, with its streams and exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PROGRAM = "from sweep.cli.app import main; main()"


def command(*arguments: object, before: str = "") -> list[str]:
    """Return the command of a process that runs the command line, after the Python code in `before`."""
    return [sys.executable, "-c", f"{before}\n{PROGRAM}", *map(str, arguments)]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "SWEEP_MEASURE_SPEED": "0"}


def sweep(
    *arguments: object, cwd: Path, timeout: float = 200, before: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments, before=before),
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def document(
    *arguments: object, cwd: Path, call: Callable[..., subprocess.CompletedProcess[str]] = sweep
) -> Any:
    """Return the JSON document that a verb prints with --json; it must be all of stdout."""
    done = call(*arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
