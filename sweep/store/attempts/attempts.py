"""The attempts of a run as recorded on disk, and the rule by which a run is given up."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sweep.store.files import read_json

FREE_EXPIRIES = 10
"""Consecutive expired attempts without progress before each further one counts as a failure."""

PREEMPTED, LOST = "preempted", "lost"
STOPPED = "failed:outlier"
"""State of a run that trainer.stop_outliers stopped."""
FAILURES = ("failed:oom", "failed:disk", "failed:data", "failed:code", "failed:host", STOPPED)
RETRIED = ("failed:code", "failed:host")
"""Failures that may not recur, so the run is tried again; the others end the run at once."""

_ATTEMPT_NAME = re.compile(r"([1-9][0-9]{0,8})(\.lost)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One attempt as read from disk. `state` is None while it has neither ended nor been set aside."""

    number: int
    path: Path
    state: str | None
    reason: str | None
    step: int  # the last one in its heartbeat or end
    elapsed_s: float = 0.0  # from its claim to its last heartbeat


def list_attempts(run_dir: Path) -> list[tuple[int, Path]]:
    """Return attempt numbers and directories, oldest first.

    A directory set aside is named `K.lost`; if K exists too, a late claimer is about to withdraw it.
    """
    found: dict[int, Path] = {}
    try:
        entries = list((run_dir / "attempts").iterdir())
    except FileNotFoundError:
        return []
    for path in entries:
        match = _ATTEMPT_NAME.fullmatch(path.name)
        if match and (match[2] or int(match[1]) not in found):
            found[int(match[1])] = path
    return sorted(found.items())


def read_attempts(run_dir: Path) -> list[Attempt]:
    """Return every attempt of a run, oldest first."""
    return [read_attempt(number, path) for number, path in list_attempts(run_dir)]


def read_attempt(number: int, path: Path) -> Attempt:
    """Return the state of an attempt, from end.json or else from the name of its directory."""
    end = read_json(path / "end.json") or {}
    beat = read_json(path / "heartbeat.json") or {}
    aside = path.name.endswith(".lost")
    state = end.get("state")
    known = state in FAILURES or state in (PREEMPTED, LOST, "done", "diverged")
    return Attempt(
        number=number,
        path=path,
        state=str(state) if known else (LOST if aside else None),
        reason=str(end["reason"]) if end.get("reason") is not None else None,
        step=max(_count(end.get("step")), _count(beat.get("step"))),
        elapsed_s=_seconds(beat.get("elapsed_s")),
    )


def given_up(attempts: Sequence[Attempt], max_failures: int, retried_attempt: int) -> tuple[str, str] | None:
    """Return the final state and reason of a run that is given up; None while it may be tried again.

    Attempts up to number `retried_attempt` do not count, and neither does preemption. An expired attempt
    counts only after FREE_EXPIRIES consecutive ones that made no progress beyond the best attempt before.
    """
    counted = [attempt for attempt in attempts if attempt.number > retried_attempt]
    for attempt in counted:
        if attempt.state in FAILURES and attempt.state not in RETRIED:
            return str(attempt.state), attempt.reason or "no reason recorded"
    failed = [attempt for attempt in counted if attempt.state in RETRIED]
    expired = _expired_without_progress(attempts, retried_attempt)
    if len(failed) + max(0, expired - FREE_EXPIRIES) < max_failures:
        return None
    if not failed:
        return "failed:host", f"{expired} consecutive attempts expired without progress"
    last = failed[-1]
    return str(last.state), f"{last.reason or 'no reason recorded'} ({len(failed)} failed attempts)"


def _expired_without_progress(attempts: Sequence[Attempt], retried_attempt: int) -> int:
    """Count the expired attempts after `retried_attempt` since the last one that made progress."""
    best, n_expired = 0, 0
    for attempt in attempts:
        if attempt.step > best:
            best, n_expired = attempt.step, 0
        elif attempt.state == LOST and attempt.number > retried_attempt:
            n_expired += 1
    return n_expired


def read_retried_attempt(run_dir: Path) -> int:
    """Return the number of the last attempt before `RunStore.retry`; 0 if the run was never retried."""
    return _count((read_json(run_dir / "retry.json") or {}).get("after_attempt"))


def read_retry_group(run_dir: Path) -> str | None:
    """Return the group of the last `RunStore.retry` of the run, if it had one."""
    record = read_json(run_dir / "retry.json") or {}
    group = record.get("retry_group", record.get("pardon"))  # the key in sweeps of earlier versions
    return group if isinstance(group, str) else None


def _seconds(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) and value >= 0 else 0.0


def _count(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
