"""What a sweep looks like right now: every run's state, the work left, and when it may be done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sweep.records import Point
from sweep.store.attempts.attempts import FAILURES, LOST, Attempt, given_up, read_attempts, read_forgiven
from sweep.store.attempts.host import is_gone, read_holder
from sweep.store.attempts.logs import log_tail
from sweep.store.files import read_json
from sweep.store.plans import PlanEntry, run_directory
from sweep.store.points import ResultError, StoredResult, read_result
from sweep.store.throughput import Occupancy, Throughput, Work, epoch_s, throughput


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStatus:
    """One run as `sweep status` shows it."""

    run_key: str
    name: str
    status: str  # planned, leased, done, diverged, failed:<class>, preempted or lost
    attempts: int
    reason: str | None
    finished: bool  # no worker will take it up again
    excluded: str | None  # why it is never fitted, when somebody said so
    flops: int
    flops_done: float  # exact training FLOPs, the live attempt's steps included
    step: int
    n_steps: int
    flops_per_second: float | None  # observed, of a finished or live run
    loss: float | None  # of a finished run, nats per token
    log_tail: tuple[str, ...]  # of a failed run: the last lines its last failed attempt left
    ledger: Mapping[str, float] | None = None  # of a finished run: its seconds by activity


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepStatus:
    """A whole sweep as `sweep status` shows it."""

    runs: tuple[RunStatus, ...]
    cancelled: bool
    throughput: Throughput

    @property
    def counts(self) -> dict[str, int]:
        """Number of runs in each state that occurs."""
        return dict(sorted(Counter(run.status for run in self.runs).items()))

    @property
    def flops_total(self) -> int:
        """Exact training FLOPs of all runs."""
        return sum(run.flops for run in self.runs)

    @property
    def flops_done(self) -> float:
        """Of them, those trained and not to be trained again."""
        return sum(run.flops_done for run in self.runs)

    @property
    def finished(self) -> bool:
        """Whether no worker has anything left to do."""
        return all(run.finished for run in self.runs)

    @property
    def n_failed(self) -> int:
        """Runs given up."""
        return sum(run.finished and run.status not in ("done", "diverged") for run in self.runs)

    @property
    def eta_s(self) -> float | None:
        """FLOPs left over the rate observed; None while nobody works or nothing was observed.

        The rate is the sum over live runs of their own, or of the mean over finished runs where a live one
        has shown nothing yet. It is bounded below by the slowest live run's own time left.
        """
        live = [run for run in self.runs if run.status == "leased"]
        done = [run.flops_per_second for run in self.runs if run.finished and run.flops_per_second]
        mean = sum(done) / len(done) if done else None
        rates = [run.flops_per_second or mean for run in live]
        known = [rate for rate in rates if rate is not None]
        if not known:
            return 0.0 if self.finished else None
        rate = sum(known) * len(live) / len(known)
        left = sum(run.flops - run.flops_done for run in self.runs if not run.finished)
        own = [(run.flops - run.flops_done) / r for run, r in zip(live, rates, strict=True) if r is not None]
        return max(left / rate, *own)

    @property
    def ledger(self) -> dict[str, float]:
        """Seconds by activity, over the finished runs that tell."""
        total: dict[str, float] = {}
        for run in self.runs:
            for activity, seconds in (run.ledger or {}).items():
                total[activity] = total.get(activity, 0.0) + seconds
        return total

    def to_json(self) -> dict[str, Any]:
        """The document of `sweep status --json`."""
        return {
            "counts": self.counts,
            "flops_done": self.flops_done,
            "flops_total": self.flops_total,
            "eta_s": self.eta_s,
            "ledger": self.ledger,
            "finished": self.finished,
            "cancelled": self.cancelled,
            **asdict(self.throughput),
            "runs": [asdict(run) for run in self.runs],
        }


def sweep_status(sweep_dir: Path, entries: Sequence[PlanEntry], *, cancelled: bool) -> SweepStatus:
    """Read every run's state; nothing is written, and nothing waits."""
    seen = [_look(sweep_dir, entry) for entry in entries]
    return SweepStatus(
        runs=tuple(status for status, _ in seen),
        cancelled=cancelled,
        throughput=throughput([work for _, work in seen]),
    )


def run_status(sweep_dir: Path, entry: PlanEntry) -> RunStatus:
    """Read one run's state. A live-looking attempt whose process is certainly gone shows as lost."""
    return _look(sweep_dir, entry)[0]


def _look(sweep_dir: Path, entry: PlanEntry) -> tuple[RunStatus, Work]:
    run_dir = run_directory(sweep_dir, entry.run_key)
    attempts = read_attempts(run_dir)
    stored, flaw = _result(run_dir, entry)
    if flaw is not None:
        seen: dict[str, Any] = {"status": "failed:data", "finished": True, "reason": flaw}
    elif stored is not None:
        seen = _of_result(entry, stored)
    else:
        seen = _of_attempts(run_dir, entry, attempts)
    failed = [a for a in attempts if a.state in FAILURES] if seen["status"] in FAILURES else []
    base: dict[str, Any] = {
        "run_key": entry.run_key,
        "name": entry.name,
        "attempts": attempts[-1].number if attempts else 0,
        "reason": None,
        "finished": False,
        "excluded": (read_json(run_dir / "excluded.json") or {}).get("reason"),
        "flops": entry.flops,
        "flops_done": 0.0,
        "step": 0,
        "n_steps": entry.n_steps,
        "flops_per_second": None,
        "loss": None,
        "log_tail": log_tail(sweep_dir, failed[-1]) if failed else (),
    }
    status = RunStatus(**(base | seen))
    return status, _work(status, stored.point if stored is not None else None, attempts)


def _work(status: RunStatus, point: Point | None, attempts: Sequence[Attempt]) -> Work:
    """A run that diverged counts the steps it did."""
    flops = status.flops_done
    if status.status == "diverged" and attempts:
        flops *= min(attempts[-1].step / status.n_steps, 1.0)
    return Work(
        flops=flops,
        has_result=point is not None,
        device=point.device if point is not None else None,
        occupied=tuple(o for attempt in attempts if (o := _occupancy(attempt, point)) is not None),
    )


def _occupancy(attempt: Attempt, point: Point | None) -> Occupancy | None:
    """The committed attempt's time from its point; that of others as their last heartbeat tells it."""
    claim = read_json(attempt.path / "claim.json") or {}
    began, seconds = epoch_s(claim.get("claimed_at")), attempt.elapsed_s
    if point is not None and point.attempts == attempt.number:
        began, ended = epoch_s(point.started_at), epoch_s(point.finished_at)
        seconds = ended - began if began is not None and ended is not None else 0.0
    if began is None or seconds <= 0:
        return None
    place = claim.get("device")
    return Occupancy(place=place if isinstance(place, str) else None, began=began, seconds=seconds)


def _result(run_dir: Path, entry: PlanEntry) -> tuple[StoredResult | None, str | None]:
    """The run's result, or why what lies there is none."""
    path = run_dir / "result.json"
    if not path.exists():
        return None, None
    try:
        return read_result(path, entry.run_key), None
    except ResultError as error:
        return None, str(error)


def _of_result(entry: PlanEntry, stored: StoredResult) -> dict[str, Any]:
    point = stored.point
    return {
        "status": point.status,
        "finished": True,
        "reason": stored.reason,
        "loss": point.loss,
        "ledger": stored.ledger,
        "step": entry.n_steps,
        "flops_done": entry.flops,
        "flops_per_second": entry.flops / point.wall_time_s if point.wall_time_s else None,
    }


def _of_attempts(run_dir: Path, entry: PlanEntry, attempts: Sequence[Attempt]) -> dict[str, Any]:
    if not attempts:
        return {"status": "planned"}
    last = attempts[-1]
    if last.state is None:
        return _of_live(entry, last)
    final = given_up(attempts, entry.experiment.launch.max_failures, read_forgiven(run_dir))
    if final is not None:
        return {"status": final[0], "reason": final[1], "finished": True, "step": last.step}
    if last.state in ("done", "diverged"):  # its result was deleted
        return {"status": "planned"}
    return {"status": last.state, "reason": last.reason, "step": last.step}


def _of_live(entry: PlanEntry, attempt: Attempt) -> dict[str, Any]:
    holder = read_holder((read_json(attempt.path / "claim.json") or {}).get("holder") or {})
    if holder is not None and is_gone(holder):
        return {
            "status": LOST,
            "reason": f"process {holder.pid} on {holder.host} is gone",
            "step": attempt.step,
        }
    beat = read_json(attempt.path / "heartbeat.json") or {}
    trained = entry.flops * min(attempt.step / entry.n_steps, 1.0)
    fresh = entry.flops * (attempt.step - beat.get("first_step", 0)) / entry.n_steps
    elapsed_s = beat.get("elapsed_s") or 0.0
    return {
        "status": "leased",
        "step": attempt.step,
        "flops_done": trained,
        "flops_per_second": fresh / elapsed_s if fresh > 0 and elapsed_s > 0 else None,
    }
