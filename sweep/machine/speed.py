"""The speed of this machine's workers: measured on request, improved by finished runs, kept in a file.

The file is in the user's cache directory and has one entry for each device, version of torch, number of
threads and precision. A damaged or foreign file counts as empty.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from sweep.config import RunConfig, to_dict
from sweep.config.places import cache_directory
from sweep.machine.devices import devices
from sweep.machine.environment import N_THREADS, THREAD_VARIABLES, count_of
from sweep.plan.devices import DeviceType
from sweep.plan.speed import Speed, StepTime, step_terms
from sweep.store.files import write_atomic

MEASURE = "SWEEP_MEASURE_SPEED"
"""Environment variable: 0 keeps `plan`, `doctor` and `run` from measuring, as on a login node."""
SECONDS = 5.0  # of measuring, after torch is imported
TIMEOUT_S = 60.0  # importing torch from a network disk can be slow
MAX_SHAPES = 5  # measured at once
MAX_STEPS = 200  # kept, the latest
_unsaved: dict[str, dict[str, Any]] = {}  # entries that could not be written
MAX_AT_ONCE = 4  # processes that measure, so that workers are measured as they will share the machine


def may_measure() -> bool:
    """Return whether this process may measure: torch is installed, and the user has not ruled it out."""
    return os.environ.get(MEASURE, "1") != "0" and _torch_version() is not None


def known_speed(device: DeviceType, precision: str) -> Speed | None:
    """Return what is known of the workers of this machine; None without a measurement."""
    entry = _read().get(_key(device, precision))
    if not entry:
        return None
    with contextlib.suppress(KeyError, TypeError, ValueError):
        steps = tuple(_step(row) for row in entry["steps"])
        if steps:
            return Speed(steps=steps, start_s=float(entry["start_s"]))
    return None


def measure_speed(
    runs: Sequence[RunConfig],
    device: DeviceType,
    precision: str,
    *,
    n_workers: int,
    micro_batch_size: int | None,
) -> Speed | None:
    """Measure the steps of `runs`, in the order given, for about SECONDS, and keep them.

    As many processes as workers measure at once, at most MAX_AT_ONCE. Returns what is known then, None if a
    process fails.
    """
    task = {
        "runs": [to_dict(run) for run in runs],
        "device": "cuda:0" if device == "cuda" else "cpu",
        "micro_batch_size": micro_batch_size,
        "seconds": SECONDS,
        "began": time.time(),
    }
    command = [sys.executable, "-P", "-W", "ignore", "-m", "sweep.train.speed"]
    threads = str(count_of(os.environ, N_THREADS) or 1)
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, threads)
    n_processes = max(1, min(n_workers, MAX_AT_ONCE)) if device == "cpu" else 1
    processes = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        for _ in range(n_processes)
    ]
    try:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(json.dumps(task) + "\n")
            process.stdin.flush()
        found = [json.loads(process.communicate(timeout=TIMEOUT_S)[0]) for process in processes]
    except (ValueError, OSError, subprocess.TimeoutExpired):  # it cannot train: a run says why
        return known_speed(device, precision)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    steps = [
        StepTime(
            terms=step_terms(runs[each["index"]], each["n_tokens"]),
            tokens=float(each["n_tokens"]),
            seconds=float(each["seconds"]),
        )
        for done in found
        for each in done["steps"]
    ]
    remember(steps, device, precision, start_s=max(float(done["start_s"]) for done in found))
    return known_speed(device, precision)


def remember(
    steps: Sequence[StepTime], device: DeviceType, precision: str, *, start_s: float | None = None
) -> None:
    """Keep measured steps, for this process only where there is no cache directory or it is read-only."""
    path, key = _file(), _key(device, precision)
    steps = [step for step in steps if 0 < step.seconds < math.inf]
    if not steps:
        return
    known = _read()
    entry = known.get(key, {"steps": [], "start_s": 3.0})
    rows = [*entry["steps"], *(asdict(step) for step in steps)][-MAX_STEPS:]
    known[key] = {"start_s": entry["start_s"] if start_s is None else start_s, "steps": rows}
    if path is None:
        _unsaved.update(known)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(path, json.dumps({"schema_version": 1, "machines": known}, indent=1).encode())
    except OSError:
        _unsaved.update(known)


def _step(row: dict[str, Any]) -> StepTime:
    """Raises KeyError, TypeError or ValueError for values that cannot come from a measurement."""
    step = StepTime(
        terms=tuple(float(term) for term in row["terms"]),
        tokens=float(row["tokens"]),
        seconds=float(row["seconds"]),
    )
    numbers = (*step.terms[:3], step.tokens, step.seconds)
    if len(step.terms) != 7 or not all(0 < number < math.inf for number in numbers):
        raise ValueError(row)
    return step


def _key(device: DeviceType, precision: str) -> str:
    name = devices(device)[0].name
    threads = count_of(os.environ, N_THREADS) or 1
    return f"{name}, torch {_torch_version()}, {threads} threads, {precision}"


def _torch_version() -> str | None:
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return None


def _file() -> Path | None:
    directory = cache_directory()
    return None if directory is None else directory / "speed.json"


def _read() -> dict[str, dict[str, Any]]:
    path = _file()
    try:
        content = json.loads(path.read_text()) if path is not None else {}
        machines = content["machines"]
        found = {key: dict(entry) for key, entry in machines.items() if {"steps", "start_s"} <= entry.keys()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        found = {}
    return found | _unsaved
