"""The smoke sweep under real services: its settings, and checks that hold after any disturbance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sweep.records import BOOKKEEPING_COLUMNS
from sweep.store.attempts.attempts import Attempt, read_attempts
from sweep.store.files import read_json, read_records
from sweep.store.run_store import RunStore

SMOKE = ("experiment=smoke", "fit.n_bootstrap=50", "trainer.device=cpu", "trainer.checkpoint_interval_s=0.5")


def science(sweep_dir: Path) -> dict[str, dict[str, Any]]:
    """Return the columns of every point that must not depend on the execution of the sweep, by run."""
    points = RunStore(sweep_dir).points().points
    assert len({point.run_key for point in points}) == len(points) == 12
    return {
        str(point.run_key): {k: v for k, v in point.values().items() if k not in BOOKKEEPING_COLUMNS}
        for point in points
    }


def attempts(sweep_dir: Path) -> list[list[Attempt]]:
    """Return the attempts of every run."""
    return [read_attempts(run) for run in sorted((sweep_dir / "runs").iterdir())]


def check_resumed(sweep_dir: Path) -> int:
    """Check that attempts continued from saved work and none failed; return how many continued.

    An attempt that ended before it trained leaves the saved work to the next.
    """
    n_resumed = 0
    for tried in attempts(sweep_dir):
        states = [(attempt.state, attempt.reason) for attempt in tried]
        assert [state for state, _ in states if state not in ("preempted", "lost")] == ["done"], states
        assert states[-1][0] == "done", states
        saved = None  # the step at which the last training attempt was stopped, and saved
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
    """Return True if a live attempt of these processes trains, and it or an earlier one has saved."""
    return any(
        attempt.state is None
        and list((attempt.path / "checkpoint").glob("*.json"))
        and (attempt.number == 1 or _records(attempt))  # the first has saved its own work
        and ((read_json(attempt.path / "claim.json") or {}).get("holder") or {}).get("pid") in pids
        for tried in attempts(sweep_dir)
        for attempt in tried
    )


def _records(attempt: Attempt) -> list[dict[str, Any]]:
    return list(read_records(attempt.path / "metrics.jsonl"))
