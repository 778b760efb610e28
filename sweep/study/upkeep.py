"""Maintenance of a sweep: excluding runs and rebuilding derived files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sweep.store.run_store import RunStore
from sweep.store.sql.copy import catch_up, rebuild
from sweep.store.status import RunStatus


def failed_runs(sweep_dir: Path) -> tuple[RunStatus, ...]:
    """Return the runs that `sweep run --only failed` trains; none where there is no sweep yet."""
    store = RunStore(sweep_dir)
    return store.failed() if store.has_plan() else ()


def reindex(sweep_dir: Path) -> tuple[Path, ...]:
    """Rebuild points.csv, points.parquet and the SQL copy, if there is one, from the results.

    Returns the tables. Raises IndexUnavailable, after the tables are written, when the database cannot be.
    """
    store = RunStore(sweep_dir)
    experiment = store.latest_experiment()
    tables = store.write_points()
    rebuild(store, experiment.store, experiment.name)
    return tables


def exclude(
    sweep_dir: Path, runs: Sequence[str], reason: str, *, plans: Sequence[str] = ()
) -> tuple[list[str], str | None]:
    """Exclude points from fits: those of `runs`, keys or names, and of `plans`, hashes or prefixes.

    Returns the keys, and why the SQL copy could not be updated, None if it was. Excludes nothing, and raises
    InputError, if one of them is unknown.
    """
    store = RunStore(sweep_dir)
    experiment = store.latest_experiment() if store.has_plan() else None
    keys = [store.find_run(run) for run in runs]
    if plans:
        keys += store.exclude_plans(plans, reason)
    for key in keys[: len(runs)]:
        store.exclude(key, reason)
    if experiment is None:  # points that were copied here without their plans
        return keys, None
    return keys, catch_up(store, experiment.store, experiment.name)
