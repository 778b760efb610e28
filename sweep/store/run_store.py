"""The store of a sweep: adds plans, provides the queue, and reads status and points."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sweep.config import ExperimentConfig, RunConfig, read_run
from sweep.errors import DataError, InputError
from sweep.identity import run_key
from sweep.records import CurvePoint, Plan, Point
from sweep.store.attempts.active import write_end
from sweep.store.attempts.attempts import LOST, list_attempts, read_attempt, read_retry_group
from sweep.store.attempts.claims import Claimer
from sweep.store.attempts.logs import keep_tail
from sweep.store.files import check_filesystem, json_bytes, read_json, read_kept, write_atomic
from sweep.store.plans import (
    RUN_KEY,
    PlanEntry,
    StoredPlan,
    arm_experiments,
    exclude_plans,
    latest_experiment,
    no_plan,
    plan_files,
    read_entries,
    read_plans,
    run_directory,
    write_plan,
)
from sweep.store.points import ResultError, StoredResult, not_fitted, read_result
from sweep.store.queue import RunQueue
from sweep.store.status import RunStatus, SweepStatus, sweep_status


@dataclass(frozen=True, kw_only=True, slots=True)
class Exclusion:
    """A run that is not fitted, with the reason."""

    run_key: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredPoints:
    """Every point of a sweep in a fixed order, and the runs that are not fitted.

    A diverged or excluded run is in both; a run with an invalid result only among the exclusions.
    """

    points: tuple[Point, ...]
    excluded: tuple[Exclusion, ...]
    curves: dict[str, tuple[CurvePoint, ...]]  # by run key


class RunStore:
    """One sweep on disk. Any process with access to the directory may open it; there are no locks."""

    def __init__(self, sweep_dir: Path | str, *, retry_group: str | None = None) -> None:
        """Open a sweep; `retry_group` limits entries, status and queue to the runs of that `retry` group."""
        self.sweep_dir = Path(sweep_dir)
        self._retry_group = retry_group
        self._cancel = self.sweep_dir / "cancel.json"

    def check_filesystem(self) -> None:
        """Raise SafetyError if commits or claims would not be safe on this file system."""
        check_filesystem(self.sweep_dir)

    def add_plan(self, plan: Plan) -> Path:
        """Add a plan's runs to the sweep; its launch and trainer settings now apply to them.

        Raises SafetyError if config.json of a run belongs to another run.
        """
        return write_plan(self.sweep_dir, plan)

    def has_plan(self) -> bool:
        """Return True if there is a plan; the directory may exist before it."""
        return bool(plan_files(self.sweep_dir))

    def plans(self) -> list[StoredPlan]:
        """Return all plans in the order in which they were planned; none for a new sweep."""
        return read_plans(self.sweep_dir) if self.has_plan() else []

    def entries(self) -> list[PlanEntry]:
        """Return the runs of all plans, longest first. Raises InputError if there is no readable plan."""
        return read_entries(self.sweep_dir, self._retry_group)

    def latest_experiment(self) -> ExperimentConfig:
        """Return the experiment planned last. Raises InputError if there is no readable plan."""
        return latest_experiment(self.sweep_dir)

    def arm_experiments(self) -> list[ExperimentConfig]:
        """Return the experiment planned last for each arm. Raises InputError if there is no readable plan."""
        return arm_experiments(self.sweep_dir)

    def run_config(self, key: str) -> RunConfig:
        """Return the config of a run. Raises DataError if its file is missing, invalid or of another run."""
        path = run_directory(self.sweep_dir, key) / "config.json"
        stored = read_kept(path) or {}
        try:
            config = read_run(stored)
        except InputError as error:
            raise DataError(f"{path} is not a valid run config: {error}") from None
        if run_key(config) != key:
            raise DataError(
                f"{path} belongs to run {run_key(config)}, not {key}: restore it, or delete its directory"
            )
        return config

    def queue(self, worker_id: str) -> RunQueue:
        """Return the queue from which a worker claims runs."""
        return RunQueue(self.sweep_dir, Claimer(worker_id), self._retry_group)

    def status(self) -> SweepStatus:
        """Return the state of every run. Raises InputError if there is no readable plan."""
        return sweep_status(self.sweep_dir, self.entries(), cancelled=self.cancelled())

    def failed(self) -> tuple[RunStatus, ...]:
        """Return the runs that were given up, and those of a retry group that still have no result.

        The latter belong to a retry of failed runs that was stopped. Raises InputError as `status`.
        """
        waiting = (seen for seen in self.status().runs if not self.has_result(seen.run_key))
        return tuple(
            seen
            for seen in waiting
            if seen.finished
            or (seen.status not in ("running", "planned") and self._in_retry_group(seen.run_key))
        )

    def has_result(self, key: str) -> bool:
        """Return True if the run has a valid result."""
        try:
            return self._read_result(key) is not None
        except ResultError:
            return False

    def run_keys(self) -> Iterator[str]:
        """Yield the keys of all runs on disk in a fixed order; no plan is needed."""
        with contextlib.suppress(FileNotFoundError):
            names = sorted(path.name for path in (self.sweep_dir / "runs").iterdir())
            yield from (name for name in names if RUN_KEY.fullmatch(name))

    def points(self) -> StoredPoints:
        """Return every committed point, sorted by budget, size, seed and key; no plan is needed."""
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
        """Rebuild points.csv and points.parquet from the results; return their paths."""
        from sweep.store.tables import write_tables  # pyarrow is slow to import, and workers do not need it

        return write_tables(self.sweep_dir, self.points().points)

    def exclude(self, key: str, reason: str) -> None:
        """Exclude a run from fits, keeping its point. Raises InputError for an unknown run."""
        write_atomic(self._existing(key) / "excluded.json", json_bytes(_exclusion(reason)))

    def exclude_plans(self, hashes: Sequence[str], reason: str) -> list[str]:
        """Set plans aside and exclude the runs that no other plan lists; return their keys.

        Planning the same experiment again restores them. Raises InputError for an unknown plan.
        """
        return exclude_plans(self.sweep_dir, hashes, _exclusion(reason))

    def find_run(self, run: str) -> str:
        """Return the key of a run given by its key or its name.

        Raises InputError for an unknown run, and for a name that runs of several plans have.
        """
        if not self.has_plan() and not (self.sweep_dir / "runs").is_dir():
            raise no_plan(self.sweep_dir)
        if RUN_KEY.fullmatch(run):
            self._existing(run)
            return run
        if self.has_plan():
            keys, listed = (
                [entry.run_key for entry in self.entries() if entry.name == run],
                "sweep status shows",
            )
        else:  # imported runs alone
            points = self.points().points
            keys, listed = [str(point.run_key) for point in points if point.name == run], "points.csv lists"
        if len(keys) > 1:
            raise InputError(f"{run} is the name of {len(keys)} runs, {' and '.join(keys)}: give a key")
        if not keys:
            raise InputError(f"{run!r} is not a run key or the name of a run: {listed} both")
        return keys[0]

    def retry(self, key: str, group: str | None = None) -> None:
        """Reset the failure count of a run that was given up, so that workers claim it again.

        `group` is the name under which a store can be limited to the runs retried together.
        """
        run_dir = self._existing(key)
        attempts = list_attempts(run_dir)
        last = attempts[-1][0] if attempts else 0
        record = {"after_attempt": last, "retried_at": _now(), "retry_group": group}
        write_atomic(run_dir / "retry.json", json_bytes(record))

    def cancel(self) -> None:
        """Ask all workers to save their state and stop at the next step. Raises InputError without a plan."""
        if not self.has_plan():
            raise no_plan(self.sweep_dir)
        write_atomic(self._cancel, json_bytes({"cancelled_at": _now()}))

    def clear_cancel(self) -> None:
        """Remove the request to stop."""
        self._cancel.unlink(missing_ok=True)

    def cancelled(self) -> bool:
        """Return True if workers are asked to stop; False if the disk does not answer."""
        with contextlib.suppress(OSError):
            return self._cancel.exists()
        return False

    def record_death(self, worker_id: str, reason: str, log: Path | None = None) -> str | None:
        """Mark the attempt of a dead worker as failed:host; return the key of its run, None without one.

        Called by the supervisor of the worker. The end of `log` is stored with the attempt, which another
        worker may have set aside already.
        """
        for entry in self.entries():
            run_dir = run_directory(self.sweep_dir, entry.run_key)
            if not (run_dir / "result.json").exists() and _mark_dead(run_dir, worker_id, reason, log):
                return entry.run_key
        return None

    def _in_retry_group(self, key: str) -> bool:
        return read_retry_group(run_directory(self.sweep_dir, key)) is not None

    def _existing(self, key: str) -> Path:
        run_dir = run_directory(self.sweep_dir, key)
        if not run_dir.is_dir():
            raise InputError(f"{self.sweep_dir} has no run {key}: sweep status shows its run keys")
        return run_dir

    def _read_result(self, key: str) -> StoredResult | None:
        path = run_directory(self.sweep_dir, key) / "result.json"
        return read_result(path, key) if path.exists() else None


def _exclusion(reason: str) -> dict[str, str]:
    if not reason.strip():
        raise InputError("excluding a run requires a reason: give --reason TEXT")
    return {"reason": reason, "excluded_at": _now()}


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
    """Write the end and the log of an attempt, also if another worker sets it aside at this moment."""
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
