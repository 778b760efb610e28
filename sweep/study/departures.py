"""Runs of a sweep with a training curve that leaves the band of their peers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sweep.fit.checks.collapse import Departure, departures, trajectories
from sweep.store.attempts.attempts import STOPPED
from sweep.store.run_store import RunStore, StoredPoints

MAX_NAMED = 3  # runs named in the warning


def departed_runs(stored: StoredPoints) -> dict[str, Departure]:
    """Return the departures of a sweep's completed and fitted runs by run key, the farthest first."""
    excluded = {exclusion.run_key for exclusion in stored.excluded}
    points = [point for point in stored.points if point.run_key not in excluded]
    found = [one for group in trajectories(points, stored.curves) for one in departures(group)]
    return {one.run: one for one in sorted(found, key=lambda one: -one.score)}


def departure_warnings(sweep_dir: Path) -> list[str]:
    """Return warnings that name the runs of `departed_runs`, and those stopped as outliers."""
    store = RunStore(sweep_dir)
    stored = store.points()
    names = {str(point.run_key): point.name or str(point.run_key) for point in stored.points}
    found = departed_runs(stored)
    planned = {entry.run_key for entry in store.entries()} if store.has_plan() else set()
    runs = store.status().runs if planned - names.keys() else ()  # a status reads every attempt
    stopped = {run.name: run.reason or "" for run in runs if run.status == STOPPED and not run.excluded}
    return [
        *([departure_warning(found, names)] if found else []),
        *([_stopped_warning(stopped)] if stopped else []),
    ]


def _stopped_warning(reasons: Mapping[str, str]) -> str:
    """Return one sentence about runs that trainer.stop_outliers stopped, by name with the reason."""
    shown = [f"{name} ({reason})" for name, reason in list(reasons.items())[:MAX_NAMED]]
    more = f" and {len(reasons) - MAX_NAMED} more (sweep status has all)" if len(reasons) > MAX_NAMED else ""
    which = "run was" if len(reasons) == 1 else "runs were"
    return f"{len(reasons)} {which} stopped and not fitted: {'; '.join(shown)}{more}"


def departure_warning(found: Mapping[str, Departure], names: Mapping[str, str]) -> str:
    """Return one sentence about the runs in `found`, with a remedy."""
    shown = [f"{names[key]} ({one})" for key, one in list(found.items())[:MAX_NAMED]]
    more = f" and {len(found) - MAX_NAMED} more (sweep status has all)" if len(found) > MAX_NAMED else ""
    which = "run is" if len(found) == 1 else "runs are"
    return (
        f"{len(found)} {which} unlike the other training curves: {'; '.join(shown)}{more}: check learning "
        f"rate and data, or leave a run out with sweep exclude"
    )
