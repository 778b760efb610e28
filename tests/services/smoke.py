"""The smoke sweep under real services: its settings, and what must be true of it however it was disturbed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from sweep.records import BOOKKEEPING_COLUMNS
from sweep.store.attempts.attempts import Attempt, read_attempts
from sweep.store.files import read_json, read_records
from sweep.store.run_store import RunStore

SMOKE = ("experiment=smoke", "fit.n_bootstrap=50", "trainer.device=cpu", "trainer.checkpoint_interval_s=0.5")


def science(sweep_dir: Path) -> dict[str, dict[str, Any]]:
    """Every column of every point that must not depend on how the sweep was carried out, by run."""
    points = RunStore(sweep_dir).points().points
    assert len({point.run_key for point in points}) == len(points) == 12
    return {
        str(point.run_key): {k: v for k, v in asdict(point).items() if k not in BOOKKEEPING_COLUMNS}
        for point in points
    }


def attempts(sweep_dir: Path) -> list[list[Attempt]]:
    """The attempts of every run."""
    return [read_attempts(run) for run in sorted((sweep_dir / "runs").iterdir())]


def check_resumed(sweep_dir: Path) -> int:
    """Every attempt that found saved work went on with it; returns how many did. No attempt was a failure.

    One that ended before it had begun to train leaves what it found to the next.
    """
    n_resumed = 0
    for tried in attempts(sweep_dir):
        states = [(attempt.state, attempt.reason) for attempt in tried]
        assert [state for state, _ in states if state not in ("preempted", "lost")] == ["done"], states
        assert states[-1][0] == "done", states
        saved = None  # the step at which the last that trained was asked to stop, and saved
        for attempt in tried:
            records = _records(attempt)
            events = [record for record in records if "event" in record]
            assert "restarted" not in [event["event"] for event in events], events
            resumed = [event["step"] for event in events if event["event"] == "resumed"]
            if not records and not attempt.step:
                continue
            if saved is not None:
                assert resumed == [saved], (tried, events)
            saved = attempt.step if attempt.state == "preempted" and attempt.step else None
            n_resumed += len(resumed)
    return n_resumed


def saved_by(sweep_dir: Path, pids: set[int]) -> bool:
    """Whether a live attempt of one of these processes trains, and it or one before it has saved."""
    return any(
        attempt.state is None
        and list((attempt.path / "checkpoint").glob("*.json"))
        and (attempt.number == 1 or _records(attempt))  # the first alone has saved what it has
        and ((read_json(attempt.path / "claim.json") or {}).get("holder") or {}).get("pid") in pids
        for tried in attempts(sweep_dir)
        for attempt in tried
    )


def _records(attempt: Attempt) -> list[dict[str, Any]]:
    return list(read_records(attempt.path / "metrics.jsonl"))
