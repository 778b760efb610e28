"""What happened to a run so far: its attempts as they lie on disk, and whether it may be tried again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sweep.store.files import read_json

FREE_EXPIRIES = 10
"""Attempts in a row that may expire without progress before each further one counts as a failure."""

PREEMPTED, LOST = "preempted", "lost"
FAILURES = ("failed:oom", "failed:disk", "failed:data", "failed:code", "failed:host")
RETRIED = ("failed:code", "failed:host")
"""Failures that another attempt may not meet again; the others fail the run at once."""

_ATTEMPT_NAME = re.compile(r"([1-9][0-9]{0,8})(\.lost)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One attempt as an observer reads it. `state` is None while it has neither ended nor been set aside."""

    number: int
    path: Path
    state: str | None
    reason: str | None
    step: int  # the last one its heartbeat or its end told of
    elapsed_s: float = 0.0  # since it was claimed, as its last heartbeat told


def list_attempts(run_dir: Path) -> list[tuple[int, Path]]:
    """Attempt numbers and directories, oldest first.

    A directory set aside is `K.lost`; where both names exist, K is one a stale claimer is about to withdraw.
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
    """Every attempt of a run, oldest first."""
    return [read_attempt(number, path) for number, path in list_attempts(run_dir)]


def read_attempt(number: int, path: Path) -> Attempt:
    """One attempt's state, from its end.json, else from where it lies."""
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


def given_up(attempts: Sequence[Attempt], max_failures: int, forgiven: int) -> tuple[str, str] | None:
    """The final state and reason of a run that is not tried again; None while it may be.

    Attempts up to number `forgiven` are pardoned. Preemption never counts; an attempt that expired counts
    only once more than FREE_EXPIRIES in a row have got no further than the best before them.
    """
    counted = [attempt for attempt in attempts if attempt.number > forgiven]
    for attempt in counted:
        if attempt.state in FAILURES and attempt.state not in RETRIED:
            return str(attempt.state), attempt.reason or "no reason recorded"
    failed = [attempt for attempt in counted if attempt.state in RETRIED]
    expired = _expired_without_progress(attempts, forgiven)
    if len(failed) + max(0, expired - FREE_EXPIRIES) < max_failures:
        return None
    if not failed:
        return "failed:host", f"{expired} attempts in a row expired without progress"
    last = failed[-1]
    return str(last.state), f"{last.reason or 'no reason recorded'} ({len(failed)} failed attempts)"


def _expired_without_progress(attempts: Sequence[Attempt], forgiven: int) -> int:
    """Expired attempts, not pardoned, since one last got further than all before it."""
    best, n_expired = 0, 0
    for attempt in attempts:
        if attempt.step > best:
            best, n_expired = attempt.step, 0
        elif attempt.state == LOST and attempt.number > forgiven:
            n_expired += 1
    return n_expired


def read_forgiven(run_dir: Path) -> int:
    """The number of the last attempt pardoned by `RunStore.retry`; 0 without a pardon."""
    return _count((read_json(run_dir / "retry.json") or {}).get("after_attempt"))


def read_pardon(run_dir: Path) -> str | None:
    """The name under which `RunStore.retry` pardoned the run last, if it was given one."""
    pardon = (read_json(run_dir / "retry.json") or {}).get("pardon")
    return pardon if isinstance(pardon, str) else None


def _seconds(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) and value >= 0 else 0.0


def _count(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
