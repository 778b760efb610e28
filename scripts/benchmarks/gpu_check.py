"""Runs the steps of scripts/gpu_check, each in a process of its own with a time limit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARTS: Mapping[str, Mapping[str, float]] = {
    "A": {"environment": 60, "smoke": 80, "tests": 90, "steps": 110, "profile": 50, "packing": 90},
    "B": {"sweep": 240, "resume": 40, "peer": 60, "evidence": 20},
}
"""Time limit of each step in seconds, in order."""

MIN_FRAC = 0.3  # a step is skipped if less than this fraction of its limit is left
TINY_SLACK = 5.0  # factor on all limits with --tiny, for a CPU that does other work too
STDERR_LINES = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """Options of a check, passed to the process of every step."""

    device: str  # "cuda" or "cpu"
    tiny: bool
    out: Path
    peer: str | None


def python_path() -> str:
    """Return PYTHONPATH with the root of the checkout first; packages may be installed in the rest."""
    return os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))


def run_part(part: str, check: Check, seconds: float) -> int:
    """Run the steps of a part within `seconds`; return 1 if one failed, else 0. Tiny steps have more time."""
    check.out.mkdir(parents=True, exist_ok=True)
    slack = TINY_SLACK if check.tiny else 1.0
    deadline, failed = time.monotonic() + slack * seconds, False
    for name, limit in PARTS[part].items():
        limit_s = slack * limit
        left_s = min(limit_s, deadline - time.monotonic())
        state = "skipped" if left_s < MIN_FRAC * limit_s else _run_step(name, check, left_s)
        failed |= state in ("failed", "timed out")
        print(f"{name:<12} {state}", flush=True)
    return int(failed)


def _run_step(name: str, check: Check, limit_s: float) -> str:
    """Run one step, killed with its children at the limit; write its state next to its results."""
    command = [sys.executable, "-W", "ignore", "-m", "scripts.benchmarks.gpu_steps", name]
    options = asdict(check) | {"out": str(check.out), "limit_s": limit_s}
    log, started = check.out / f"{name}.log", time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, json.dumps(options)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": python_path()},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            state = "done" if process.wait(limit_s) == 0 else "failed"
        except subprocess.TimeoutExpired:
            state = "timed out"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    file = check.out / f"{name}.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    tail = [] if state == "done" else log.read_text(errors="replace").splitlines()[-STDERR_LINES:]
    summary = {"state": state, "seconds": time.monotonic() - started, "log": tail}
    file.write_text(json.dumps({"step": name} | summary | {"results": results}, indent=1) + "\n")
    return state
