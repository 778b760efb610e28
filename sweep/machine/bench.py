"""Measurement of the throughput of 1, 2, 4 … training processes on one device."""

from __future__ import annotations

import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sweep.config import to_dict
from sweep.errors import InputError
from sweep.machine.devices import Device, core_shares
from sweep.machine.environment import THREAD_VARIABLES
from sweep.machine.mps import mps_daemon
from sweep.machine.packing import PackingRow
from sweep.records import PlannedRun

SECONDS = 2.0  # of timed training in each round
N_ROUNDS = 3  # over all sizes and numbers of workers; the median discards one disturbance
MAX_WORKERS = 16
FITS_FRAC = 0.9  # of the device's memory that the estimates of the runs may fill


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """Settings of a measurement."""

    device: Device
    cores: tuple[int, ...]
    micro_batch_size: int | None
    seconds: float = SECONDS
    n_rounds: int = N_ROUNDS


def sizes_to_measure(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Return the smallest model, the one at half of the sweep's time, and the largest; each size once."""
    ordered = sorted(runs, key=lambda run: run.n_params)
    half, seconds, middle = sum(run.time_s for run in ordered) / 2, 0.0, ordered[0]
    for run in ordered:
        middle, seconds = run, seconds + run.time_s
        if seconds >= half:
            break
    chosen = {run.n_params: run for run in (ordered[0], middle, ordered[-1])}
    return list(chosen.values())


def measure_packing(
    runs: Sequence[PlannedRun], bench: Bench, on_row: Callable[[PackingRow], None] = lambda row: None
) -> list[PackingRow]:
    """Measure the throughput of 1, 2, 4 … workers of each size; on a GPU also with MPS, if it is available.

    Raises InputError with the last line of a process that cannot train.
    """
    rows = _measure(runs, bench, {}, on_row)
    if bench.device.visible:
        with mps_daemon(bench.device.visible) as service, contextlib.suppress(InputError):
            rows += [] if service is None else _measure(runs, bench, service, on_row)
    return rows


def _measure(
    runs: Sequence[PlannedRun],
    bench: Bench,
    service: Mapping[str, str],
    on_row: Callable[[PackingRow], None],
) -> list[PackingRow]:
    """Return the median over rounds for each size and number of workers."""
    sizes = sizes_to_measure(runs)
    numbers = _candidates(bench, max(run.memory_bytes for run in sizes))
    cases = [(run, n_workers) for run in sizes for n_workers in numbers]
    rounds = [[_steps_per_second(run, bench, n, service) for run, n in cases] for _ in range(bench.n_rounds)]
    rows = []
    for (run, n_workers), rates in zip(cases, zip(*rounds, strict=True), strict=True):
        rate = statistics.median(rates)
        row = PackingRow(n_params=run.n_params, n_workers=n_workers, mps=bool(service), steps_per_second=rate)
        on_row(row)
        rows.append(row)
    return rows


def _candidates(bench: Bench, memory_bytes: int) -> list[int]:
    """Return 1, 2, 4, 8 and the maximum that cores and memory allow."""
    memory = bench.device.memory_bytes
    fit = int(FITS_FRAC * memory // max(1, memory_bytes)) if memory else MAX_WORKERS
    most = max(1, min(len(bench.cores), fit, MAX_WORKERS))
    return sorted({n for n in (1, 2, 4, 8) if n <= most} | {most})


def _steps_per_second(run: PlannedRun, bench: Bench, n_workers: int, service: Mapping[str, str]) -> float:
    """Return the steps per second of all processes together; all are warmed up before any is timed."""
    on_gpu = bool(bench.device.visible)
    n_threads = max(1, len(bench.cores) // n_workers) if on_gpu else 1
    task = {
        "run": to_dict(run.config),
        "device": "cuda:0" if on_gpu else "cpu",
        "n_threads": n_threads,
        "micro_batch_size": bench.micro_batch_size,
    }
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": bench.device.visible} | dict(service)
    environment |= dict.fromkeys(THREAD_VARIABLES, str(n_threads))
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(_process(environment)) for _ in range(n_workers)]
        shares = core_shares(bench.cores, n_workers, on_gpu=on_gpu) or []
        for process, share in zip(processes, shares, strict=bool(shares)):
            os.sched_setaffinity(process.pid, share)
        for process in processes:
            _send(process, json.dumps(task))
        for process in processes:
            _receive(process, "ready")
        for process in processes:
            _send(process, str(bench.seconds))
        done = [json.loads(_receive(process)) for process in processes]
    return math.fsum(each["n_steps"] / each["seconds"] for each in done)


@contextlib.contextmanager
def _process(environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "sweep.train.throughput"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(environment),
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def _send(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it died: `_receive` reports its error
        process.stdin.write(line + "\n")
        process.stdin.flush()


def _receive(process: subprocess.Popen[str], expected: str | None = None) -> str:
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline().strip()
    if not line or (expected is not None and line != expected):
        last = (process.stderr.read().strip().splitlines() or ["no error message"])[-1]
        raise InputError(f"packing cannot be measured: a training process failed ({last})")
    return line
