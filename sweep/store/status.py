"""Status of a sweep: the state of every run, remaining FLOPs and estimated time left."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sweep.records import Point
from sweep.store.attempts.attempts import (
    FAILURES,
    LOST,
    Attempt,
    given_up,
    read_attempts,
    read_retried_attempt,
)
from sweep.store.attempts.host import is_gone, read_holder
from sweep.store.attempts.logs import log_tail
from sweep.store.files import read_json
from sweep.store.plans import PlanEntry, run_directory
from sweep.store.points import ResultError, StoredResult, read_result
from sweep.store.throughput import Occupancy, Throughput, Work, epoch_s, throughput

PRIOR_S = 5.0  # planned seconds that count as measured at the pace of the plan


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStatus:
    """The status of one run as shown by `sweep status`."""

    run_key: str
    name: str
    status: str  # planned, running, done, diverged, failed:<class>, preempted or lost
    attempts: int
    reason: str | None
    finished: bool  # no worker will claim it again
    excluded: str | None  # reason given by a user
    flops: int
    flops_done: float  # exact training FLOPs, including the steps of the live attempt
    step: int
    n_steps: int
    flops_per_second: float | None  # measured; None unless finished or running
    loss: float | None  # of a finished run, nats per token
    log_tail: tuple[str, ...]  # of a failed run: last log lines of its last failed attempt
    ledger: Mapping[str, float] | None = None  # of a finished run: seconds by activity
    time_s: float = 0.0  # planned, on one worker; 0 where it is not known


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepStatus:
    """The status of a sweep as shown by `sweep status`."""

    runs: tuple[RunStatus, ...]
    cancelled: bool
    throughput: Throughput
    n_workers: int = 0  # that are being started; those with a run count by themselves

    @property
    def counts(self) -> dict[str, int]:
        """Number of runs by state."""
        return dict(sorted(Counter(run.status for run in self.runs).items()))

    @property
    def flops_total(self) -> int:
        """Exact training FLOPs of all runs."""
        return sum(run.flops for run in self.runs)

    @property
    def flops_done(self) -> float:
        """Training FLOPs that are done and need not be repeated."""
        return sum(run.flops_done for run in self.runs)

    @property
    def finished(self) -> bool:
        """True if no run is left to train."""
        return all(run.finished for run in self.runs)

    @property
    def n_failed(self) -> int:
        """Number of runs that were given up."""
        return sum(run.finished and run.status not in ("done", "diverged") for run in self.runs)

    @property
    def eta_s(self) -> float | None:
        """Estimated time left until the workers have taken all runs in their order.

        The planned seconds of each run are scaled by measured over planned seconds of what is trained, so
        that the plan alone counts at first. Without planned seconds FLOPs stand for them, and the rates of
        runs decide. None without a worker, and without a plan or a measurement.
        """
        if self.finished:
            return 0.0
        is_planned = all(run.time_s > 0 for run in self.runs)
        prior = PRIOR_S if is_planned else 0.0
        work = {run.run_key: run.time_s if is_planned else float(run.flops) for run in self.runs}
        spent = {
            run.run_key: (work[run.run_key] * run.flops_done / run.flops, run.flops_done / rate)
            for run in self.runs
            if run.status in ("running", "done") and run.flops_done and (rate := run.flops_per_second)
        }
        live = [run for run in self.runs if run.status == "running"]
        n_workers = max(len(live), self.n_workers)
        pace = _pace(list(spent.values()), 1.0, prior)
        if pace is None or not n_workers:
            return None
        free = [0.0] * (n_workers - len(live))
        for run in live:
            own = _pace([spent[run.run_key]], pace, prior) if run.run_key in spent else pace
            free.append(work[run.run_key] * (1 - run.flops_done / run.flops) * (own or pace))
        heapq.heapify(free)
        for run in self.runs:
            if not run.finished and run.status != "running":
                heapq.heappush(free, heapq.heappop(free) + work[run.run_key] * pace)
        return max(free)

    @property
    def ledger(self) -> dict[str, float]:
        """Seconds by activity, summed over the finished runs that recorded them."""
        total: dict[str, float] = {}
        for run in self.runs:
            for activity, seconds in (run.ledger or {}).items():
                total[activity] = total.get(activity, 0.0) + seconds
        return total

    def to_json(self) -> dict[str, Any]:
        """Return the document printed by `sweep status --json`."""
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


def _pace(spent: Sequence[tuple[float, float]], expected: float, prior: float) -> float | None:
    """Return measured over planned seconds, from pairs (planned, measured); None where nothing is known.

    `prior` are the planned seconds that count as measured at the `expected` pace.
    """
    planned = prior + sum(pair[0] for pair in spent)
    measured = prior * expected + sum(pair[1] for pair in spent)
    return measured / planned if planned else None


def sweep_status(sweep_dir: Path, entries: Sequence[PlanEntry], *, cancelled: bool) -> SweepStatus:
    """Read the state of every run, without writing or waiting.

    A live-looking attempt with a process that is certainly dead is shown as lost.
    """
    statuses = [_run_status(sweep_dir, entry) for entry in entries]
    return SweepStatus(
        runs=tuple(status for status, _ in statuses),
        cancelled=cancelled,
        throughput=throughput([work for _, work in statuses]),
    )


def _run_status(sweep_dir: Path, entry: PlanEntry) -> tuple[RunStatus, Work]:
    run_dir = run_directory(sweep_dir, entry.run_key)
    attempts = read_attempts(run_dir)
    stored, invalid = _result(run_dir, entry)
    if invalid is not None:
        seen: dict[str, Any] = {"status": "failed:data", "finished": True, "reason": invalid}
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
        "time_s": entry.time_s,
    }
    status = RunStatus(**(base | seen))
    return status, _work(status, stored.point if stored is not None else None, attempts)


def _work(status: RunStatus, point: Point | None, attempts: Sequence[Attempt]) -> Work:
    """Return the work of a run for the throughput; a diverged run counts the steps it completed."""
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
    """Return the time of an attempt: from the point if it committed one, else from its last heartbeat."""
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
    """Return the run's result, or the error message of an invalid one."""
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
    final = given_up(attempts, entry.experiment.launch.max_failures, read_retried_attempt(run_dir))
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
        "status": "running",
        "step": attempt.step,
        "flops_done": trained,
        "flops_per_second": fresh / elapsed_s if fresh > 0 and elapsed_s > 0 else None,
    }
