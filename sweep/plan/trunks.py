"""Cooldown branches in a plan: the common settings of a trunk's runs, and the cost saved by sharing it.

Source: one run at a constant rate with a decay from it for each budget, Hu et al. 2024 (MiniCPM,
arXiv:2404.06395) and Hägele et al. 2024 (arXiv:2405.18392).

Legend: D tokens, C training FLOPs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sweep import flops
from sweep.config import EstimateConfig, RunSchedule, ScheduleConfig
from sweep.identity import trunk_key
from sweep.plan import estimate, rules
from sweep.records import PlannedRun


@dataclass(frozen=True, kw_only=True, slots=True)
class GridCell:
    """One cell of the grid, and the cells that its rules are applied to, equal to it without branches."""

    own: rules.Cell
    tuned: rules.Cell  # determines batch and learning rate
    shortest: rules.Cell  # determines the warmup, which must fit into every branch


def branch_cell(tuned: rules.Cell, budget: float) -> rules.Cell:
    """Return the tokens of `budget` at the trunk's batch: D = floor(C / flops_per_token / batch) · batch."""
    n_steps = int(budget / flops.flops_per_token(tuned.model) // tuned.batch_tokens)
    return replace(tuned, budget=budget, n_tokens=n_steps * tuned.batch_tokens)


def run_schedule(schedule: ScheduleConfig, cell: GridCell) -> RunSchedule:
    """Return the schedule of a cell's run: the warmup of the shortest branch, the decay of its own steps."""
    warmup_steps = rules.warmup_steps(schedule, cell.shortest)
    return replace(rules.run_schedule(schedule, cell.own), warmup_steps=warmup_steps)


def share_trunks(runs: Sequence[PlannedRun], assumed: EstimateConfig) -> tuple[PlannedRun, ...]:
    """Return the runs with `flops_shared`, time and cost for trunks that are trained once.

    The run that branches last trains the trunk; the others cost only their decay.
    """
    last: dict[str | None, PlannedRun] = {}
    for run in runs:
        key = trunk_key(run.config)
        last[key] = max(last.get(key, run), run, key=_branch_order)
    return tuple(
        run if last[key] is run or key is None else _without_trunk(run, assumed)
        for run, key in ((run, trunk_key(run.config)) for run in runs)
    )


def _branch_order(run: PlannedRun) -> tuple[int, int]:
    return run.config.branch_step, run.flops


def _without_trunk(run: PlannedRun, assumed: EstimateConfig) -> PlannedRun:
    config, n_shared = run.config, run.config.branch_step
    shared = flops.count(config.model, n_shared * config.batch_tokens).flops if n_shared else 0
    seconds = run.time_s - shared / estimate.rate(assumed) - n_shared * assumed.step_overhead_s
    return replace(run, flops_shared=shared, time_s=seconds, cost=estimate.cost(seconds, assumed))
