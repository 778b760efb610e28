"""Maintenance of a sweep: excluding runs and rebuilding derived files."""

from __future__ import annotations

from pathlib import Path

from sweep.store.run_store import RunStore
from sweep.store.sql.copy import catch_up, rebuild
from sweep.store.status import RunStatus


def failed_runs(sweep_dir: Path) -> tuple[RunStatus, ...]:
    """Return the runs that `sweep run --only failed` trains; none where there is no sweep yet."""
    return RunStore(sweep_dir).failed() if (sweep_dir / "plans").is_dir() else ()


def reindex(sweep_dir: Path) -> tuple[Path, ...]:
    """Rebuild points.csv, points.parquet and the SQL copy, if there is one, from the results.

    Returns the tables. Raises IndexUnavailable, after the tables are written, when the database cannot be.
    """
    store = RunStore(sweep_dir)
    experiment = store.latest_experiment()
    tables = store.write_points()
    rebuild(store, experiment.store, experiment.name)
    return tables


def exclude(sweep_dir: Path, run_key: str, reason: str) -> str | None:
    """Exclude a run's point from fits. Returns why the SQL copy could not be updated, None if it was."""
    store = RunStore(sweep_dir)
    store.exclude(run_key, reason)
    if not (sweep_dir / "plans").is_dir():  # points that were copied here without their plans
        return None
    experiment = store.latest_experiment()
    return catch_up(store, experiment.store, experiment.name)
