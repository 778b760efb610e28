"""The smoke sweep under real services: its settings, and what must be true of it however it was disturbed."""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from sweep.records import BOOKKEEPING_COLUMNS
from sweep.store.attempts import Attempt, read_attempts
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
    """Every attempt that found saved work went on with it; returns how many did. No attempt was a failure."""
    n_resumed = 0
    for tried in attempts(sweep_dir):
        assert [attempt.state for attempt in tried if attempt.state == "done"] == ["done"]
        for earlier, later in pairwise(tried):
            assert earlier.state in ("preempted", "lost"), (earlier.state, earlier.reason)
            events = [record for record in read_records(later.path / "metrics.jsonl") if "event" in record]
            assert "restarted" not in [event["event"] for event in events]
            resumed = [event["step"] for event in events if event["event"] == "resumed"]
            if earlier.state == "preempted" and earlier.step > 0:
                assert resumed == [earlier.step]  # it saved where it stopped
            n_resumed += len(resumed)
    return n_resumed


def saved_by(sweep_dir: Path, pids: set[int]) -> bool:
    """Whether a live attempt of one of these processes has a checkpoint, and trains on."""
    return any(
        attempt.state is None
        and list((attempt.path / "checkpoint").glob("*.json"))
        and ((read_json(attempt.path / "claim.json") or {}).get("holder") or {}).get("pid") in pids
        for tried in attempts(sweep_dir)
        for attempt in tried
    )
