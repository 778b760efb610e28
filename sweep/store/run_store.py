"""The store of a sweep: plans in, claims and commits between, points and status out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sweep.config import ExperimentConfig, RunConfig, read_run
from sweep.errors import DataError, InputError
from sweep.identity import run_key
from sweep.records import CurvePoint, Plan, Point
from sweep.store.attempts.active import write_end
from sweep.store.attempts.attempts import LOST, list_attempts, read_attempt, read_pardon
from sweep.store.attempts.claims import Claimer
from sweep.store.attempts.logs import keep_tail
from sweep.store.files import check_filesystem, json_bytes, read_json, read_kept, replace
from sweep.store.plans import (
    RUN_KEY,
    PlanEntry,
    latest_experiment,
    plan_files,
    read_entries,
    run_directory,
    write_plan,
)
from sweep.store.points import ResultError, StoredResult, not_fitted, read_result
from sweep.store.queue import RunQueue
from sweep.store.status import RunStatus, SweepStatus, sweep_status


@dataclass(frozen=True, kw_only=True, slots=True)
class Exclusion:
    """A run that is not fitted, and why."""

    run_key: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredPoints:
    """Every point of a sweep in a fixed order, and which of its runs are not fitted.

    A diverged or excluded run is in both; a run whose result cannot be read only among the exclusions.
    """

    points: tuple[Point, ...]
    excluded: tuple[Exclusion, ...]
    curves: dict[str, tuple[CurvePoint, ...]]  # by run key


class RunStore:
    """One sweep on disk. Every process that sees the directory may open it; nothing is locked or cached."""

    def __init__(self, sweep_dir: Path | str, *, pardon: str | None = None) -> None:
        """`pardon` limits entries, status and queue to the runs that `retry` pardoned under that name."""
        self.sweep_dir = Path(sweep_dir)
        self._pardon = pardon
        self._cancel = self.sweep_dir / "cancel.json"

    def check_filesystem(self) -> None:
        """Raises SafetyError when commits or claims would not be safe on this file system."""
        check_filesystem(self.sweep_dir)

    def add_plan(self, plan: Plan) -> Path:
        """Add a plan's runs to the sweep, and make it the plan whose placement counts.

        Raises SafetyError when a run's config.json was exchanged.
        """
        return write_plan(self.sweep_dir, plan)

    def has_plan(self) -> bool:
        """Whether a plan is there: its directory may be before it is."""
        return bool(plan_files(self.sweep_dir))

    def entries(self) -> list[PlanEntry]:
        """The runs of all plans, longest first. Raises InputError when there is no readable plan."""
        return read_entries(self.sweep_dir, self._pardon)

    def latest_experiment(self) -> ExperimentConfig:
        """The experiment planned last. Raises InputError when there is no readable plan."""
        return latest_experiment(self.sweep_dir)

    def run_config(self, key: str) -> RunConfig:
        """A run's config. Raises DataError when its file is missing, unreadable or another run's."""
        path = run_directory(self.sweep_dir, key) / "config.json"
        stored = read_kept(path) or {}
        try:
            config = read_run(stored)
        except InputError as error:
            raise DataError(f"{path} is not a readable run: {error}") from None
        if run_key(config) != key:
            raise DataError(
                f"{path} holds run {run_key(config)}, not {key}: restore it or delete its directory"
            )
        return config

    def queue(self, worker_id: str) -> RunQueue:
        """What a worker claims runs from."""
        return RunQueue(self.sweep_dir, Claimer(worker_id), self._pardon)

    def status(self) -> SweepStatus:
        """Every run's state. Raises InputError when there is no readable plan."""
        return sweep_status(self.sweep_dir, self.entries(), cancelled=self.cancelled())

    def failed(self) -> tuple[RunStatus, ...]:
        """The runs that were given up, and those pardoned by a name since that still wait for their result.

        The latter are of a rerun of failed runs that was stopped. Raises as `status` does.
        """
        waiting = (seen for seen in self.status().runs if not self.has_result(seen.run_key))
        return tuple(
            seen
            for seen in waiting
            if seen.finished or (seen.status not in ("leased", "planned") and self._pardoned(seen.run_key))
        )

    def has_result(self, key: str) -> bool:
        """Whether the run has a readable result."""
        try:
            return self._read_result(key) is not None
        except ResultError:
            return False

    def run_keys(self) -> Iterator[str]:
        """The keys of all runs on disk, in a fixed order; no plan is needed."""
        with contextlib.suppress(FileNotFoundError):
            names = sorted(path.name for path in (self.sweep_dir / "runs").iterdir())
            yield from (name for name in names if RUN_KEY.fullmatch(name))

    def points(self) -> StoredPoints:
        """Every committed point, by budget, size and key; no plan is needed to read them."""
        results: list[StoredResult] = []
        excluded: list[Exclusion] = []
        for key in self.run_keys():
            try:
                stored = self._read_result(key)
            except ResultError as error:
                excluded.append(Exclusion(run_key=key, reason=str(error)))
                continue
            if stored is not None:
                results.append(stored)
                reason = not_fitted(run_directory(self.sweep_dir, key), stored)
                excluded.extend([] if reason is None else [Exclusion(run_key=key, reason=reason)])
        results.sort(key=lambda result: _table_order(result.point))
        return StoredPoints(
            points=tuple(result.point for result in results),
            excluded=tuple(excluded),
            curves={str(result.point.run_key): result.curve for result in results},
        )

    def write_points(self) -> tuple[Path, Path]:
        """Rebuild points.csv and points.parquet from the results; returns their paths."""
        from sweep.store.tables import write_tables  # pyarrow is slow to import, and workers never need it

        return write_tables(self.sweep_dir, self.points().points)

    def exclude(self, key: str, reason: str) -> None:
        """Keep the run's point, but never fit it. Raises InputError for a run the sweep does not have."""
        if not reason.strip():
            raise InputError("a run is excluded with a reason: give --reason TEXT")
        replace(self._existing(key) / "excluded.json", json_bytes({"reason": reason, "excluded_at": _now()}))

    def retry(self, key: str, pardon: str | None = None) -> None:
        """Pardon the failures of a run that was given up; workers take it up again.

        `pardon` names it for a store that is limited to the runs pardoned together.
        """
        run_dir = self._existing(key)
        attempts = list_attempts(run_dir)
        last = attempts[-1][0] if attempts else 0
        record = {"after_attempt": last, "pardoned_at": _now(), "pardon": pardon}
        replace(run_dir / "retry.json", json_bytes(record))

    def cancel(self) -> None:
        """Ask all workers to stop at the next step with their state saved."""
        if not self.has_plan():
            raise InputError(f"{self.sweep_dir} is no directory of a sweep: it holds no plans")
        replace(self._cancel, json_bytes({"cancelled_at": _now()}))

    def clear_cancel(self) -> None:
        """Let workers work again."""
        self._cancel.unlink(missing_ok=True)

    def cancelled(self) -> bool:
        """Whether workers are asked to stop. A disk that does not answer asks nothing."""
        with contextlib.suppress(OSError):
            return self._cancel.exists()
        return False

    def record_death(self, worker_id: str, reason: str, log: Path | None = None) -> str | None:
        """Mark the attempt of a worker that certainly died as failed:host; returns its run's key.

        For a supervisor that saw the death; the end of the worker's `log` is kept with the attempt. Another
        worker may have set the attempt aside already.
        """
        for entry in self.entries():
            run_dir = run_directory(self.sweep_dir, entry.run_key)
            if not (run_dir / "result.json").exists() and _mark_dead(run_dir, worker_id, reason, log):
                return entry.run_key
        return None

    def _pardoned(self, key: str) -> bool:
        return read_pardon(run_directory(self.sweep_dir, key)) is not None

    def _existing(self, key: str) -> Path:
        run_dir = run_directory(self.sweep_dir, key)
        if not run_dir.is_dir():
            raise InputError(f"{self.sweep_dir} has no run {key}: sweep status shows its run keys")
        return run_dir

    def _read_result(self, key: str) -> StoredResult | None:
        path = run_directory(self.sweep_dir, key) / "result.json"
        return read_result(path, key) if path.exists() else None


def _mark_dead(run_dir: Path, worker_id: str, reason: str, log: Path | None) -> bool:
    for number, path in reversed(list_attempts(run_dir)[-3:]):
        if (read_json(path / "claim.json") or {}).get("worker_id") != worker_id:
            continue
        attempt = read_attempt(number, path)
        gone = (read_json(path / "end.json") or {}).get("holder_gone", False)
        if attempt.state is None or (attempt.state == LOST and gone):
            return _write_death(path, reason, attempt.step, log)
    return False


def _write_death(attempt_dir: Path, reason: str, step: int, log: Path | None) -> bool:
    """Another worker may be setting the attempt aside at this moment: then it is found under that name."""
    for path in (attempt_dir, attempt_dir.with_name(f"{attempt_dir.name}.lost")):
        with contextlib.suppress(OSError):
            write_end(path, "failed:host", reason, step)
            keep_tail(path, log)
            return True
    return False


def _table_order(point: Point) -> tuple[float, float, float, str]:
    return point.flops_budget or 0.0, point.n_params or 0.0, point.seed or 0, point.run_key or ""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
