"""Starts the other ranks of a run as processes of our own, and sees that none outlives the run."""

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
END_S = 10.0  # for a rank to leave by itself, or to be found dead after a connection broke
LOOK_S = 0.2

Process = subprocess.Popen[str]


@contextlib.contextmanager
def together(run: RunConfig, placement: Placement, checkpoint_dir: Path) -> Iterator[Ranks]:
    """The ranks of a run, this process being rank 0; alone where `placement` gives one device.

    On leaving, the others have ended. Raises InputError when the run cannot be spread as asked, RankLost or
    torch.OutOfMemoryError when another rank died.
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
            yield from _led(team, spec, device)
        finally:
            _end(team)


def _led(team: Sequence[Process], spec: dict[str, Any], device: torch.device) -> Iterator[Ranks]:
    """Join the ranks that were started, and translate the end of one of them."""
    from sweep.train.ranks.parallel import abort, join, leave

    over = threading.Event()
    for rank, process in enumerate(team, start=1):  # else one that cannot even start would be waited for
        line = process.stdout.readline() if process.stdout else ""
        if line != "ready\n":
            raise _end_of(rank, len(team), _last_words(line), process.wait(END_S))
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
            _blame(team, error)
        raise
    finally:
        over.set()
        leave()


def _memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)


def _start(rank: int, placement: Placement, spec: dict[str, Any]) -> Process:
    """One more rank: what it needs to know is a line on its standard input, whose end is ours."""
    device = torch.device(placement.device)
    if device.type == "cuda" and placement.n_devices > torch.cuda.device_count():
        raise InputError(
            f"trainer.n_devices={placement.n_devices}, and this worker sees {torch.cuda.device_count()} GPUs"
        )
    where_to = f"cuda:{rank}" if device.type == "cuda" else placement.device
    own = replace(placement, device=where_to, trunk=None)  # rank 0 leaves and takes up its states
    where = asdict(own) | {"data_dir": str(own.data_dir)}
    process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):  # it is dead already, as its silence will tell
            process.stdin.write(json.dumps({**spec, "rank": rank, "placement": where}) + "\n")
            process.stdin.flush()
    return process


def _watch(team: Sequence[Process], over: threading.Event, abort: Callable[[], None]) -> None:
    """Gloo sees a peer's connection close; NCCL would wait for it, so it is told."""
    while not over.wait(LOOK_S):
        if any(process.poll() is not None for process in team):
            abort()
            return


def _blame(team: Sequence[Process], error: Exception) -> None:
    """Raise what ended a rank, when that is why a connection broke; else return."""
    deadline = time.monotonic() + END_S
    while all(process.poll() is None for process in team):
        if time.monotonic() > deadline:
            return
        time.sleep(LOOK_S)
    ends = {rank: process for rank, process in enumerate(team, start=1) if process.poll() is not None}
    words = {rank: _last_words(p.stdout.readline() if p.stdout else "") for rank, p in ends.items()}
    rank = max(ends, key=lambda rank: bool(words[rank].get("oom")))  # others only lost their connection
    raise _end_of(rank, len(team), words[rank], ends[rank].returncode) from error


def _last_words(line: str) -> dict[str, Any]:
    """What a rank prints when it fails; empty when it was killed."""
    with contextlib.suppress(ValueError):
        said = json.loads(line)
        return said if isinstance(said, dict) else {}
    return {}


def _end_of(rank: int, n_others: int, said: dict[str, Any], exit_code: int) -> Exception:
    who = f"rank {rank} of {n_others + 1}"
    if said.get("oom"):
        return torch.OutOfMemoryError(f"{who}: {said['error']}")
    return RankLost(f"{who} failed: {said['error']}" if said else f"{who} ended with exit code {exit_code}")


def _end(team: Sequence[Process]) -> None:
    """Let the ranks leave; end those that do not."""
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
