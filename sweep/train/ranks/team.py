"""Starts the other ranks of a run as child processes, and ends them with the run."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import torch

from sweep.config import RunConfig, to_dict
from sweep.errors import InputError, Interrupted, RankLost, is_out_of_memory
from sweep.plan.devices import check_devices, is_sharded
from sweep.records import Placement
from sweep.train.ranks.base import ALONE, Command, Ranks

COMMAND = [sys.executable, "-P", "-m", "sweep.train.rank"]
END_S = 10.0  # to let a rank exit, or to find it dead after a connection broke
POLL_S = 0.2

Process = subprocess.Popen[str]


@contextlib.contextmanager
def start_ranks(run: RunConfig, placement: Placement, checkpoint_dir: Path) -> Iterator[Ranks]:
    """Yield the ranks of a run with this process as rank 0; a single one if `placement` has one device.

    On exit the other ranks have ended. Raises InputError when the run cannot be distributed as configured,
    RankLost or torch.OutOfMemoryError when another rank died.
    """
    if placement.n_devices == 1:
        yield ALONE
        return
    check_devices(run, placement.n_devices, placement.parallel)
    device = torch.device(placement.device)
    sharded = is_sharded(run, placement.n_devices, placement.parallel, _memory_bytes(device), device.type)
    with tempfile.TemporaryDirectory(prefix="sweep-ranks-") as private:
        spec = {
            "run": to_dict(run),
            "n_ranks": placement.n_devices,
            "sharded": sharded,
            "store": str(Path(private) / "store"),
            "checkpoint_dir": str(checkpoint_dir),
        }
        team: list[Process] = []
        try:
            for rank in range(1, placement.n_devices):
                team.append(_start(rank, placement, spec))
            yield from _run(team, spec, device)
        finally:
            _end(team)


def _run(team: Sequence[Process], spec: dict[str, Any], device: torch.device) -> Iterator[Ranks]:
    """Join the started ranks and translate the death of one into an error."""
    from sweep.train.ranks.parallel import abort, join, leave

    over = threading.Event()
    for rank, process in enumerate(team, start=1):  # otherwise join would wait for one that failed to start
        line = process.stdout.readline() if process.stdout else ""
        if line != "ready\n":
            raise _failure(rank, len(team), _error_of(line), process.wait(END_S))
    try:
        ranks = join(0, spec, device)
        threading.Thread(target=_watch, args=(team, over, abort), name="rank-watch", daemon=True).start()
        try:
            yield ranks
        except Interrupted:
            ranks.announce(Command.END)
            raise
        ranks.announce(Command.END)
    except (RankLost, RuntimeError) as error:
        if not is_out_of_memory(error):
            _explain_failure(team, error)
        raise
    finally:
        over.set()
        leave()


def _memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)


def _start(rank: int, placement: Placement, spec: dict[str, Any]) -> Process:
    """Start one rank; it reads its specification from standard input and exits when that closes."""
    device = torch.device(placement.device)
    if device.type == "cuda" and placement.n_devices > torch.cuda.device_count():
        raise InputError(
            f"trainer.n_devices={placement.n_devices}, but this worker sees {torch.cuda.device_count()} "
            f"GPUs: lower trainer.n_devices, or start the worker on a machine with more"
        )
    where_to = f"cuda:{rank}" if device.type == "cuda" else placement.device
    own = replace(placement, device=where_to, trunk=None)  # only rank 0 saves and loads trunk states
    where = asdict(own) | {"data_dir": str(own.data_dir)}
    process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if process.stdin is not None:
        with contextlib.suppress(
            BrokenPipeError
        ):  # it has died already, which reading its first line detects
            process.stdin.write(json.dumps({**spec, "rank": rank, "placement": where}) + "\n")
            process.stdin.flush()
    return process


def _watch(team: Sequence[Process], over: threading.Event, abort: Callable[[], None]) -> None:
    """Abort collectives when a rank dies: Gloo detects the closed connection, NCCL would wait."""
    while not over.wait(POLL_S):
        if any(process.poll() is not None for process in team):
            abort()
            return


def _explain_failure(team: Sequence[Process], error: Exception) -> None:
    """Raise the error that ended a rank if one died; return if all are alive after END_S."""
    deadline = time.monotonic() + END_S
    while all(process.poll() is None for process in team):
        if time.monotonic() > deadline:
            return
        time.sleep(POLL_S)
    ends = {rank: process for rank, process in enumerate(team, start=1) if process.poll() is not None}
    errors = {rank: _error_of(p.stdout.readline() if p.stdout else "") for rank, p in ends.items()}
    rank = max(
        ends, key=lambda rank: bool(errors[rank].get("oom"))
    )  # the other ranks only lost their connection
    raise _failure(rank, len(team), errors[rank], ends[rank].returncode) from error


def _error_of(line: str) -> dict[str, Any]:
    """Parse the error that a rank prints when it fails; empty if it was killed."""
    with contextlib.suppress(ValueError):
        printed = json.loads(line)
        return printed if isinstance(printed, dict) else {}
    return {}


def _failure(rank: int, n_others: int, printed: dict[str, Any], exit_code: int) -> Exception:
    who = f"rank {rank} of {n_others + 1}"
    if printed.get("oom"):
        return torch.OutOfMemoryError(f"{who}: {printed['error']}")
    return RankLost(
        f"{who} failed: {printed['error']}" if printed else f"{who} ended with exit code {exit_code}"
    )


def _end(team: Sequence[Process]) -> None:
    """Close the ranks' standard input, and kill those that do not exit."""
    deadline = time.monotonic() + END_S
    for process in team:
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
    for process in team:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
