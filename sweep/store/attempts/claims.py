"""Claims: the rules for taking a run, and the atomic rename with which exactly one process succeeds."""

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

from sweep.store.attempts.active import DISK_REFUSED, END_IN_RESERVE, ActiveAttempt
from sweep.store.attempts.attempts import (
    LOST,
    Attempt,
    given_up,
    list_attempts,
    read_attempts,
    read_retried_attempt,
)
from sweep.store.attempts.host import is_gone, read_holder, shared_device, this_process
from sweep.store.files import create, create_once, json_bytes, read_json, remove_tree

MAX_OBSERVED_GAP_S = 5.0
"""Longest time between two reads of a heartbeat that counts as observed: a suspended observer saw nothing."""


class Verdict(enum.Enum):
    """Reason why a run was not claimed."""

    FINISHED = "finished"  # it has a result, or was given up
    BUSY = "busy"  # another worker trains it, or claimed it first


@dataclass(frozen=True, kw_only=True, slots=True)
class Expiry:
    """Reason why an attempt is taken from its holder."""

    reason: str
    holder_gone: bool  # True if its process is certainly dead, False if only silent


@dataclass(slots=True)
class _Observation:
    beat: object  # the claim's token and the heartbeat's counter
    seen_at: float  # monotonic
    unchanged_s: float


class Claimer:
    """Claims runs for one worker, and keeps its observations of other workers' heartbeats.

    Uses only the monotonic clock of this process, never wall clocks or clocks of other machines.
    """

    def __init__(self, worker_id: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._worker_id = worker_id
        self._clock = clock
        self._holder = this_process()
        self._observations: dict[Path, _Observation] = {}

    def claim(self, run_dir: Path, *, lease_s: float, max_failures: int) -> ActiveAttempt | Verdict:
        """Claim the run if it is free. Raises OSError if the claim cannot be written."""
        if (run_dir / "result.json").exists():
            return Verdict.FINISHED
        attempts, retried_attempt = read_attempts(run_dir), read_retried_attempt(run_dir)
        newest = attempts[-1] if attempts else None
        if newest is not None and newest.state is None:
            expiry = self._expiry(run_dir, newest, lease_s)
            if expiry is None or not set_aside(newest, expiry):
                return Verdict.BUSY
            attempts = read_attempts(run_dir)
        if given_up(attempts, max_failures, retried_attempt) is not None:
            return Verdict.FINISHED
        return self._create(run_dir, 1 + (newest.number if newest else 0), lease_s) or Verdict.BUSY

    def _expiry(self, run_dir: Path, attempt: Attempt, lease_s: float) -> Expiry | None:
        claim = read_json(attempt.path / "claim.json") or {}
        holder = read_holder(claim.get("holder") or {})
        if holder is not None and is_gone(holder):
            return Expiry(reason=f"process {holder.pid} on {holder.host} is gone", holder_gone=True)
        beat = (claim.get("token"), (read_json(attempt.path / "heartbeat.json") or {}).get("counter"))
        now, seen = self._clock(), self._observations.get(run_dir)
        if seen is None or seen.beat != beat:
            self._observations[run_dir] = _Observation(beat, now, 0.0)
            return None
        seen.unchanged_s += min(max(now - seen.seen_at, 0.0), MAX_OBSERVED_GAP_S)
        seen.seen_at = now
        theirs = claim.get("lease_s")
        wait_s = max(lease_s, theirs) if isinstance(theirs, (int, float)) else lease_s
        if seen.unchanged_s <= wait_s:
            return None
        return Expiry(reason=f"no heartbeat for {seen.unchanged_s:.0f} s", holder_gone=False)

    def _create(self, run_dir: Path, number: int, lease_s: float) -> ActiveAttempt | None:
        """Claim attempt `number` by renaming a prepared directory; None if another worker was faster.

        A rename onto a directory with files fails, so the claim appears atomically with its content.
        """
        token = secrets.token_hex(8)
        attempt = ActiveAttempt(run_dir=run_dir, number=number, token=token)
        prepared = attempt.path.with_name(f".claim-{token}")
        try:
            # Not found: a commit deletes prepared claims, since the run is finished.
            with contextlib.suppress(FileExistsError, FileNotFoundError, NotADirectoryError):
                self._prepare(prepared, token, lease_s)
                _rename_exclusively(prepared, attempt.path)
            if attempt.is_ours() and _is_newest(run_dir, number):
                return attempt
        except OSError:
            _withdraw(attempt, prepared)
            raise
        _withdraw(attempt, prepared)
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
    """Rename the directory of an expired attempt to K.lost, so that its holder cannot commit any more.

    Returns False if it no longer exists: another worker was faster.
    """
    aside = attempt.path.with_name(f"{attempt.number}.lost")
    try:
        attempt.path.rename(aside)
    except OSError:
        return False
    end = {"state": LOST, "step": attempt.step, **asdict(expiry)}
    with contextlib.suppress(OSError):  # informative only: the name marks it as lost
        create_once(aside / "end.json", json_bytes(end), durable=False)
    return True


def _rename_exclusively(source: Path, target: Path) -> None:
    """Rename a directory. Raises FileExistsError if the name was taken, even if it was released since."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) or target.exists():  # error codes differ by system
            raise FileExistsError(target) from error
        raise


def _withdraw(attempt: ActiveAttempt, prepared: Path) -> None:
    with contextlib.suppress(OSError):
        if attempt.is_ours():
            attempt.path.rename(prepared)
    remove_tree(prepared)


def _is_newest(run_dir: Path, number: int) -> bool:
    """Return True if attempt `number` is the newest: a suspended claimer may take a name released since.

    The result is looked up in a directory listing, since a network file system may cache a missing name.
    """
    newest, path = list_attempts(run_dir)[-1]
    is_finished = any(entry.name == "result.json" for entry in run_dir.iterdir())
    return newest == number and path.name == str(number) and not is_finished
