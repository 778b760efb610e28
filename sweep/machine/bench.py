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
from sweep.plan.estimate import compilation_pays
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
    """Return the median over rounds for each size and number of workers; each process is started once."""
    rows = []
    sizes = sizes_to_measure(runs)
    numbers = _candidates(bench, max(run.memory_bytes for run in sizes))
    for run in sizes:
        with _warm_processes(run, bench, numbers[-1], service) as processes:
            rounds = [
                [_steps_per_second(processes[:n_workers], bench) for n_workers in numbers]
                for _ in range(bench.n_rounds)
            ]
        for n_workers, rates in zip(numbers, zip(*rounds, strict=True), strict=True):
            row = PackingRow(
                n_params=run.n_params,
                n_workers=n_workers,
                mps=bool(service),
                steps_per_second=statistics.median(rates),
            )
            on_row(row)
            rows.append(row)
    return rows


def _candidates(bench: Bench, memory_bytes: int) -> list[int]:
    """Return 1, 2, 4, 8 and the maximum that cores and memory allow."""
    memory = bench.device.memory_bytes
    fit = int(FITS_FRAC * memory // max(1, memory_bytes)) if memory else MAX_WORKERS
    most = max(1, min(len(bench.cores), fit, MAX_WORKERS))
    return sorted({n for n in (1, 2, 4, 8) if n <= most} | {most})


@contextlib.contextmanager
def _warm_processes(
    run: PlannedRun, bench: Bench, n_processes: int, service: Mapping[str, str]
) -> Iterator[list[subprocess.Popen[str]]]:
    """Start processes that train `run` on request, warm them up, and kill them after the block."""
    on_gpu = bool(bench.device.visible)
    task = {
        "run": to_dict(run.config),
        "device": "cuda:0" if on_gpu else "cpu",
        "micro_batch_size": bench.micro_batch_size,
        "compile": compilation_pays(run.time_s),
    }
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": bench.device.visible} | dict(service)
    environment |= dict.fromkeys(THREAD_VARIABLES, "1")
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(_process(environment)) for _ in range(n_processes)]
        for process in processes:
            _send(process, json.dumps(task))
        for process in processes:
            _receive(process, "ready")
        yield processes


def _steps_per_second(processes: Sequence[subprocess.Popen[str]], bench: Bench) -> float:
    """Return the steps per second of `processes` together; the others stay idle."""
    on_gpu = bool(bench.device.visible)
    n_threads = max(1, len(bench.cores) // len(processes)) if on_gpu else 1
    shares = core_shares(bench.cores, len(processes), on_gpu=on_gpu)
    for index, process in enumerate(processes):
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(process.pid, shares[index] if shares else bench.cores)
    for process in processes:
        _send(process, f"{bench.seconds} {n_threads}")
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
