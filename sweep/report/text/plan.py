"""Plans as text: the runs with their cost, and what workers achieve together on one device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from sweep.machine.packing import PackingRow
from sweep.machine.workers import WorkerCount
from sweep.records import Plan, PlannedRun
from sweep.report.hparam_summary import UNMEASURED
from sweep.report.numbers import NarrowTable, duration, format4
from sweep.report.text.hparams import hparam_line

COLUMNS = ("run", "N", "D", "D/N", "C", "time", "state", "lr", "batch", "steps", "corpus", "memory", "error")
"""The most important first: a narrow terminal shows as many as fit."""


def plan_text(
    plan: Plan,
    states: Mapping[str, str],
    workers: WorkerCount,
    hparams: Mapping[str, Any] | str = UNMEASURED,
    start_s: float | None = None,
) -> RenderableType:
    """Return a table of the runs, followed by dropped cells, warnings and totals.

    `states` are those of `report.plans.run_states`. `start_s` are the seconds that a worker takes to start;
    None where the speed of this machine is not known.
    """
    table = NarrowTable(*COLUMNS)
    for run in plan.runs:
        table.add_row(*_row(run, states.get(run.run_key, "planned")))
    lines = [f"dropped {cell.name}: {cell.reason}" for cell in plan.dropped]
    lines += [f"warning: {warning}" for warning in plan.warnings]
    lines += [hparam_line(hparams), *_shared_line(plan), _totals(plan, states, workers, start_s)]
    arm = [Text(f"arm {plan.experiment.arm}")] if plan.experiment.arm else []
    return Group(*arm, table, *map(Text, lines))


def _row(run: PlannedRun, state: str) -> tuple[str, ...]:
    config = run.config
    return (
        config.name,
        format4(run.n_params),
        format4(config.n_tokens),
        format4(config.n_tokens / run.n_params),
        format4(run.flops),
        duration(run.time_s),
        state,
        format4(config.optimizer.lr_peak),
        str(config.batch_tokens),
        str(config.n_steps),
        "?" if run.corpus_share is None else f"{run.corpus_share:.2g}",
        f"{run.memory_bytes / 1e9:.2g} GB",
        f"{run.budget_error:+.2%}",
    )


def _shared_line(plan: Plan) -> list[str]:
    """Return a line on the FLOPs that shared trunks save, if runs share any."""
    shared, alone = sum(run.flops_shared for run in plan.runs), sum(run.flops for run in plan.runs)
    if not shared:
        return []
    n_branches = sum(run.flops_shared > 0 for run in plan.runs)
    return [
        f"{n_branches} runs branch from the trunks of other runs: {format4(shared)} of {format4(alone)} "
        f"FLOPs saved ({shared / alone:.0%})"
    ]


def wall_s(plan: Plan, states: Mapping[str, str], workers: WorkerCount, start_s: float | None) -> float:
    """Return the seconds from the start of the workers to the end of the runs without a result."""
    seconds = [run.time_s for run in plan.runs if states.get(run.run_key) != "cached"]
    return workers.wall_s(seconds) + (start_s or 0.0) if seconds else 0.0


def _source(plan: Plan, start_s: float | None) -> str:
    """Return how the time was estimated."""
    if plan.experiment.estimate.flops_per_second is not None:
        return "by estimate.flops_per_second"
    return "a guess: this machine's speed is not measured" if start_s is None else "as measured here"


def _totals(plan: Plan, states: Mapping[str, str], workers: WorkerCount, start_s: float | None) -> str:
    todo = [run for run in plan.runs if states.get(run.run_key) != "cached"]
    n_workers = workers.n_workers
    cost = sum(run.cost for run in todo)
    price = f", cost {cost:.2f}" if cost else ""
    flops = sum(run.flops - run.flops_shared for run in todo)
    return (
        f"{len(plan.runs)} run{'s' * (len(plan.runs) != 1)}, {len(plan.runs) - len(todo)} cached; to train: "
        f"{format4(flops)} FLOPs, about {duration(wall_s(plan, states, workers, start_s))} "
        f"on {n_workers} worker{'s' if n_workers > 1 else ''} ({_source(plan, start_s)}){price}"
    )


def packing_line(row: PackingRow) -> str:
    """Return a line on the steps per second of `row.n_workers` workers on one device."""
    workers = f"{row.n_workers} worker{'s' if row.n_workers > 1 else ''}{' with MPS' if row.mps else ''}"
    return f"N = {format4(row.n_params)}: {workers}, {format4(row.steps_per_second)} steps/s in total"
