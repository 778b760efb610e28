"""Claiming a run: who may take it, and the one atomic step by which exactly one process does."""

from __future__ import annotations

import contextlib
import enum
import errno
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from sweep.store.attempts.active import DISK_REFUSED, END_IN_RESERVE, HeldAttempt
from sweep.store.attempts.attempts import (
    LOST,
    Attempt,
    given_up,
    list_attempts,
    read_attempts,
    read_forgiven,
)
from sweep.store.attempts.host import is_gone, read_holder, shared_device, this_process
from sweep.store.files import create, create_once, json_bytes, read_json, remove_tree

MAX_WATCH_GAP_S = 5.0
"""Most time between two looks that counts as having watched: an observer that slept has seen nothing."""


class Verdict(enum.Enum):
    """Why a run was not claimed."""

    FINISHED = "finished"  # it has a result, or was given up
    BUSY = "busy"  # somebody lives on it, or was faster


@dataclass(frozen=True, kw_only=True, slots=True)
class Expiry:
    """Why an attempt is taken from its holder."""

    reason: str
    holder_gone: bool  # certainly dead, not only silent


@dataclass(slots=True)
class _Sighting:
    beat: object  # the claim's token and the heartbeat's counter
    seen_at: float  # monotonic
    unchanged_s: float


class Claimer:
    """Claims runs for one worker, and remembers the heartbeats it has watched.

    Only this process's monotonic clock is read: wall clocks and other machines' clocks decide nothing.
    """

    def __init__(self, worker_id: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._worker_id = worker_id
        self._clock = clock
        self._holder = this_process()
        self._sightings: dict[Path, _Sighting] = {}

    def claim(self, run_dir: Path, *, lease_s: float, max_failures: int) -> HeldAttempt | Verdict:
        """Take the run if it is free. Raises OSError when the disk refuses the claim's files."""
        if (run_dir / "result.json").exists():
            return Verdict.FINISHED
        attempts, forgiven = read_attempts(run_dir), read_forgiven(run_dir)
        newest = attempts[-1] if attempts else None
        if newest is not None and newest.state is None:
            expiry = self._expiry(run_dir, newest, lease_s)
            if expiry is None or not set_aside(newest, expiry):
                return Verdict.BUSY
            attempts = read_attempts(run_dir)
        if given_up(attempts, max_failures, forgiven) is not None:
            return Verdict.FINISHED
        return self._create(run_dir, 1 + (newest.number if newest else 0), lease_s) or Verdict.BUSY

    def _expiry(self, run_dir: Path, attempt: Attempt, lease_s: float) -> Expiry | None:
        claim = read_json(attempt.path / "claim.json") or {}
        holder = read_holder(claim.get("holder") or {})
        if holder is not None and is_gone(holder):
            return Expiry(reason=f"process {holder.pid} on {holder.host} is gone", holder_gone=True)
        beat = (claim.get("token"), (read_json(attempt.path / "heartbeat.json") or {}).get("counter"))
        now, seen = self._clock(), self._sightings.get(run_dir)
        if seen is None or seen.beat != beat:
            self._sightings[run_dir] = _Sighting(beat, now, 0.0)
            return None
        seen.unchanged_s += min(max(now - seen.seen_at, 0.0), MAX_WATCH_GAP_S)
        seen.seen_at = now
        theirs = claim.get("lease_s")
        wait_s = max(lease_s, theirs) if isinstance(theirs, (int, float)) else lease_s
        if seen.unchanged_s <= wait_s:
            return None
        return Expiry(reason=f"no heartbeat for {seen.unchanged_s:.0f} s", holder_gone=False)

    def _create(self, run_dir: Path, number: int, lease_s: float) -> HeldAttempt | None:
        """Claim attempt `number` by renaming a finished directory to its name; None when another was faster.

        A rename onto a directory that holds files fails, so the claim and what it says appear in one step.
        """
        token = secrets.token_hex(8)
        held = HeldAttempt(run_dir=run_dir, number=number, token=token)
        prepared = held.path.with_name(f".claim-{token}")
        try:
            # Not found: whoever commits sweeps up claims under way, for the run is finished.
            with contextlib.suppress(FileExistsError, FileNotFoundError, NotADirectoryError):
                self._prepare(prepared, token, lease_s)
                _rename_exclusively(prepared, held.path)
            if held.is_ours() and _is_newest(run_dir, number):
                return held
        except OSError:
            _withdraw(held, prepared)
            raise
        _withdraw(held, prepared)
        return None

    def _prepare(self, directory: Path, token: str, lease_s: float) -> None:
        directory.mkdir(parents=True)
        claim = {
            "token": token,
            "worker_id": self._worker_id,
            "holder": asdict(self._holder),
            "lease_s": lease_s,
            "device": shared_device(),
            "claimed_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        create(directory / "claim.json", json_bytes(claim), durable=False)
        create(directory / "heartbeat.json", json_bytes({"counter": 0, "step": 0}), durable=False)
        create(directory / END_IN_RESERVE, json_bytes(DISK_REFUSED), durable=False)


def set_aside(attempt: Attempt, expiry: Expiry) -> bool:
    """Rename an expired attempt's directory to K.lost, so its holder can commit nothing any more.

    False when it is gone already: another taker was faster.
    """
    aside = attempt.path.with_name(f"{attempt.number}.lost")
    try:
        attempt.path.rename(aside)
    except OSError:
        return False
    end = {"state": LOST, "step": attempt.step, **asdict(expiry)}
    with contextlib.suppress(OSError):  # only a comment: the name says that it is lost
        create_once(aside / "end.json", json_bytes(end), durable=False)
    return True


def _rename_exclusively(source: Path, target: Path) -> None:
    """Raises FileExistsError where the name is taken, even if whoever took it has withdrawn by now."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) or target.exists():  # or what else it is called
            raise FileExistsError(target) from error
        raise


def _withdraw(held: HeldAttempt, prepared: Path) -> None:
    with contextlib.suppress(OSError):
        if held.is_ours():
            held.path.rename(prepared)
    remove_tree(prepared)


def _is_newest(run_dir: Path, number: int) -> bool:
    """Whether attempt `number` is the live one: a claimer that slept may have taken a name freed since.

    The result is looked for in a listing, for a network file system may remember that a name was not there.
    """
    newest, path = list_attempts(run_dir)[-1]
    is_finished = any(entry.name == "result.json" for entry in run_dir.iterdir())
    return newest == number and path.name == str(number) and not is_finished
