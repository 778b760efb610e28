"""What is done to a sweep besides planning and running it: leaving runs out, rewriting what is derived."""

from __future__ import annotations

from pathlib import Path

from sweep.store.run_store import RunStore
from sweep.store.sql.copy import catch_up, rebuild
from sweep.store.status import RunStatus


def failed_runs(sweep_dir: Path) -> tuple[RunStatus, ...]:
    """The runs that `sweep run --only failed` takes up; none where there is no sweep yet."""
    return RunStore(sweep_dir).failed() if (sweep_dir / "plans").is_dir() else ()


def reindex(sweep_dir: Path) -> tuple[Path, ...]:
    """Write all that derives from a sweep's results again: the tables, and the SQL copy if there is one.

    Returns the tables. Raises IndexUnavailable, once they are there, when the database cannot be written.
    """
    store = RunStore(sweep_dir)
    experiment = store.latest_experiment()
    tables = store.write_points()
    rebuild(store, experiment.store, experiment.name)
    return tables


def exclude(sweep_dir: Path, run_key: str, reason: str) -> str | None:
    """Keep a run's point, but never fit it. Returns why the SQL copy could not be told; None when it was."""
    store = RunStore(sweep_dir)
    store.exclude(run_key, reason)
    if not (sweep_dir / "plans").is_dir():  # points that were copied here without their plans
        return None
    experiment = store.latest_experiment()
    return catch_up(store, experiment.store, experiment.name)
