"""Plan files: one per distinct experiment, and the union of their runs."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sweep.config import ExperimentConfig, read_experiment, read_run, to_dict
from sweep.config.upgrade import upgrade_experiment
from sweep.errors import InputError, SafetyError
from sweep.identity import canonical_json, plan_hash, run_key, trunk_key
from sweep.records import Plan, PlannedRun
from sweep.store.attempts.attempts import read_retry_group
from sweep.store.files import create_once, json_bytes, read_json, read_kept, write_atomic

RUN_KEY = re.compile(r"[0-9a-f]{16}")
MAX_OFFERED = 8  # sweeps named by an error


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanEntry:
    """One run of the union, with the experiment of the latest plan that lists it."""

    run_key: str
    name: str
    flops: int
    n_steps: int
    memory_bytes: int  # estimated peak
    experiment: ExperimentConfig
    time_s: float = 0.0  # estimated, on one worker; 0 where it is not known
    trunk: str | None = None  # key of the trunk that a wsd run trains before its decay
    branch_step: int = 0  # steps that the run shares with the trunk


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredPlan:
    """One plan file."""

    hash: str
    planned_at: str  # ISO 8601, UTC
    experiment: ExperimentConfig
    entries: tuple[PlanEntry, ...]
    validation: bool = False  # True for the runs of sweep validate
    suggested: bool = False  # True for runs that were added by their expected information


def write_plan(sweep_dir: Path, plan: Plan) -> Path:
    """Add a plan to the sweep: first config.json of each run, then plans/HASH.json; both may exist already.

    A new sweep directory is private to its owner (0700); files in it follow the umask.
    Raises SafetyError if an existing config.json belongs to another run.
    """
    sweep_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    for directory in (sweep_dir / "plans", sweep_dir / "runs"):
        directory.mkdir(exist_ok=True)
    for run in plan.runs:
        _write_config(run_directory(sweep_dir, run.run_key) / "config.json", run)
    own_hash = plan_hash(plan.experiment)
    for run in plan.runs:
        _restore(run_directory(sweep_dir, run.run_key), own_hash)
    path = sweep_dir / "plans" / f"{own_hash}.json"
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    content = {
        "schema_version": 1,
        "created_at": (read_json(path) or {}).get("created_at", now),
        "planned_at": now,
        "experiment": to_dict(plan.experiment),
        "runs": [_run_record(run) for run in by_cost(plan.runs)],
        "dropped": [asdict(cell) for cell in plan.dropped],
        "warnings": list(plan.warnings),
        **({"validation": True} if plan.validation else {}),
        **({"suggested": True} if plan.suggested else {}),
    }
    write_atomic(path, json_bytes(content))
    return path


def by_cost(runs: tuple[PlannedRun, ...]) -> list[PlannedRun]:
    """Sort runs by FLOPs, largest first, ties by key, so that every worker uses the same order."""
    return sorted(runs, key=lambda run: (-run.flops, run.run_key))


def latest_experiment(sweep_dir: Path) -> ExperimentConfig:
    """Return the experiment planned last, validations and suggested runs aside.

    Raises InputError as `read_entries`.
    """
    return arm_experiments(sweep_dir)[-1]


def arm_experiments(sweep_dir: Path) -> list[ExperimentConfig]:
    """Return the experiment planned last for each arm, in the order of planning.

    Plans of validations and of suggested runs do not count.

    Raises InputError as `read_entries`.
    """
    latest: dict[str | None, ExperimentConfig] = {}
    plans = read_plans(sweep_dir)
    for plan in [plan for plan in plans if not (plan.validation or plan.suggested)] or plans:
        latest.pop(plan.experiment.arm, None)
        latest[plan.experiment.arm] = plan.experiment
    return list(latest.values())


def read_entries(sweep_dir: Path, retry_group: str | None = None) -> list[PlanEntry]:
    """Return the union of the sweep's plans, longest run first; limited to `retry_group` if it is given.

    Raises InputError if there is no plan, or one that this version cannot read.
    """
    union: dict[str, PlanEntry] = {}
    for plan in read_plans(sweep_dir):
        union.update((entry.run_key, entry) for entry in plan.entries)
    if retry_group is not None:
        groups = {key: read_retry_group(run_directory(sweep_dir, key)) for key in union}
        union = {key: entry for key, entry in union.items() if groups[key] == retry_group}
    return sorted(union.values(), key=lambda entry: (-entry.flops, entry.run_key))


def read_plans(sweep_dir: Path) -> list[StoredPlan]:
    """Return all plans in the order in which they were planned. Raises InputError as `read_entries`."""
    plans = sorted((_read_plan(path) for path in plan_files(sweep_dir)), key=lambda plan: plan.planned_at)
    if not plans:
        raise no_plan(sweep_dir)
    return plans


def no_plan(sweep_dir: Path) -> InputError:
    """Return the error for a directory without planned runs."""
    if any(sweep_dir.glob("runs/*/result.json")):
        return InputError(
            f"{sweep_dir} holds imported runs alone, which only fit, predict, compare and report read: give "
            f"the directory of a sweep with planned runs, or add some with sweep run"
        )
    table = sweep_dir / "points.csv"
    if table.is_file():
        return InputError(f"{sweep_dir} holds no runs, only their table: give {table} to fit or report")
    remedy = offer_sweeps(sweep_dir, "give the directory of one, or start one with sweep run")
    return InputError(f"{sweep_dir} holds no sweep: {remedy}")


def sweeps_in(directory: Path, *marks: str) -> list[Path]:
    """Return the sweeps in a directory by name: those with imported runs alone, or one of `marks`, too."""
    marks = ("plans", "runs", *marks)
    if not os.access(directory, os.R_OK | os.X_OK) or not directory.is_dir():
        return []
    paths = directory.iterdir()  # of other users too, where `exists` would raise PermissionError
    return sorted(path for path in paths if any(os.access(path / mark, os.F_OK) for mark in marks))


def offer_sweeps(path: Path, otherwise: str, *marks: str) -> str:
    """Return a remedy for a path that is no sweep: the sweeps near it, those of a similar name first.

    They are those in it, else those next to it, else those in ./results, as by `sweeps_in`; `otherwise`
    without any.
    """
    near = (sweeps_in(directory, *marks) for directory in (path, path.parent, Path("results")))
    found = next((sweeps for sweeps in near if sweeps), [])
    found.sort(key=lambda sweep: -difflib.SequenceMatcher(None, sweep.name, path.name).ratio())
    more = f" or {len(found) - MAX_OFFERED} more" if len(found) > MAX_OFFERED else ""
    return f"give one of {', '.join(map(str, found[:MAX_OFFERED]))}{more}" if found else otherwise


def exclude_plans(sweep_dir: Path, hashes: Sequence[str], record: Mapping[str, Any]) -> list[str]:
    """Set plans aside and exclude the runs that no other plan lists; return their keys.

    `hashes` are plan hashes or unique prefixes of them. Each run gets an excluded.json with `record` and the
    hash of its plan. Planning the same experiment again restores both. Raises InputError for an unknown plan.
    """
    plans = read_plans(sweep_dir)
    chosen = [find_plan(plans, given) for given in hashes]
    kept = {entry.run_key for plan in plans if plan not in chosen for entry in plan.entries}
    excluded: dict[str, str] = {}
    for plan in chosen:
        excluded |= {e.run_key: plan.hash for e in plan.entries if e.run_key not in kept}
    for key, plan_of_run in excluded.items():
        path = run_directory(sweep_dir, key) / "excluded.json"
        if path.parent.is_dir() and not path.exists():
            write_atomic(path, json_bytes({**record, "plan": plan_of_run}))
    for plan in chosen:
        path = sweep_dir / "plans" / f"{plan.hash}.json"
        path.replace(path.with_suffix(".excluded"))
    return list(excluded)


def find_plan(plans: Sequence[StoredPlan], given: str) -> StoredPlan:
    """Return the only plan with a hash that begins with `given`. Raises InputError for none or several."""
    found = [plan for plan in plans if given and plan.hash.startswith(given)]
    if len(found) != 1:
        listed = ", ".join(f"{plan.hash[:8]} ({len(plan.entries)} runs)" for plan in plans)
        raise InputError(f"{given!r} is not the hash of one plan of the sweep: choose from {listed}")
    return found[0]


def _restore(run_dir: Path, own_hash: str) -> None:
    """Delete the excluded.json of a run that was excluded together with the plan `own_hash`."""
    path = run_dir / "excluded.json"
    if (read_json(path) or {}).get("plan") == own_hash:
        path.unlink(missing_ok=True)


def plan_files(sweep_dir: Path) -> list[Path]:
    """Return the plan files in a fixed order."""
    return sorted((sweep_dir / "plans").glob("[0-9a-f]*.json"))


def plans_signature(sweep_dir: Path) -> tuple[tuple[str, int, int], ...]:
    """Return a value that changes whenever a plan is added or rewritten; costs one stat per plan."""
    stats = [(path.name, path.stat()) for path in plan_files(sweep_dir)]
    return tuple((name, stat.st_mtime_ns, stat.st_ino) for name, stat in stats)


def run_directory(sweep_dir: Path, key: str) -> Path:
    """Return the directory of a run. Raises InputError if `key` is not a run key, so no path can escape."""
    if not RUN_KEY.fullmatch(key):
        raise InputError(f"{key!r} is not a run key: give the 16 hex digits shown by sweep status")
    return sweep_dir / "runs" / key


def _write_config(path: Path, run: PlannedRun) -> None:
    """Write config.json once; only a file truncated by a power failure is written again."""
    data = canonical_json(to_dict(run.config)).encode()
    path.parent.mkdir(exist_ok=True)
    if create_once(path, data, durable=False):
        return
    present = read_json(path)
    if present is None:
        write_atomic(path, data)
    elif run_key(read_run(present)) != run.run_key:
        raise SafetyError(
            f"{path} belongs to another run than its directory: restore it, or delete {path.parent}"
        )


def _run_record(run: PlannedRun) -> dict[str, Any]:
    costs = {field.name: getattr(run, field.name) for field in fields(run) if field.name != "config"}
    labels: dict[str, Any] = {
        "name": run.config.name,
        "flops_budget": run.config.flops_budget,
        "seed": run.config.seed,
    }
    labels |= {"trunk": trunk_key(run.config), "branch_step": run.config.branch_step}
    return labels | costs | {"n_tokens": run.config.n_tokens, "n_steps": run.config.n_steps}


def _read_plan(path: Path) -> StoredPlan:
    """Read a plan file, validate its experiment, and convert its runs to entries."""
    plan = read_kept(path) or {}
    try:
        experiment = read_experiment(upgrade_experiment(plan["experiment"]))
        entries = tuple(_entry(run, experiment) for run in plan["runs"])
        return StoredPlan(
            hash=path.stem,
            planned_at=str(plan["planned_at"]),
            experiment=experiment,
            entries=entries,
            validation=plan.get("validation", False) is True,
            suggested=plan.get("suggested", False) is True,
        )
    except (AttributeError, InputError, KeyError, TypeError, ValueError) as error:
        detail = f" ({error})" if isinstance(error, InputError) else ""
        raise InputError(
            f"{path} is not a valid plan{detail}: delete it and run the experiment again"
        ) from None


def _entry(run: dict[str, Any], experiment: ExperimentConfig) -> PlanEntry:
    key = run["run_key"]
    if not isinstance(key, str) or not RUN_KEY.fullmatch(key):
        raise InputError(f"a plan of {experiment.name} contains the invalid run key {key!r}")
    return PlanEntry(
        run_key=key,
        name=str(run["name"]),
        flops=int(run["flops"]),
        n_steps=int(run["n_steps"]),
        memory_bytes=int(run["memory_bytes"]),
        time_s=float(run.get("time_s") or 0.0),
        experiment=experiment,
        trunk=run.get("trunk"),
        branch_step=int(run.get("branch_step", 0)),
    )
