"""Suggested runs of a sweep: those that most narrow the answer at a target for their FLOPs.

Legend: N parameters, D tokens, C training FLOPs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sweep import flops
from sweep.config import ExperimentConfig, RunConfig
from sweep.data.tokenizers.tokenizers import vocab_size
from sweep.errors import InputError
from sweep.fit import Fit
from sweep.fit.answer import AnswerLaw
from sweep.fit.checks.backtest import MIN_FITTED
from sweep.fit.design.model import HALF_SPAN, Situation, situation
from sweep.fit.design.propose import STEPS, Pool, Proposal, Purpose, propose
from sweep.fit.laws.base import Interval
from sweep.fit.predict import NEAR, too_far_beyond
from sweep.fit.refusals import Refusal
from sweep.fit.table.observations import Observations, observe
from sweep.identity import run_key
from sweep.plan.grid import cell_name, make_plan
from sweep.plan.shapes import nearest_shape
from sweep.records import Plan, PlannedRun
from sweep.report.numbers import format4
from sweep.report.suggestion import Outlook, SuggestedRun, Suggestion
from sweep.store.run_store import RunStore
from sweep.study.checks import check_parallel
from sweep.study.laws import fit_arm
from sweep.study.plan import arm_experiment, dataset
from sweep.study.speed import device_of

NEXT_BUDGET = 2.0  # ratio of the budgets that a sweep without an answer lacks
MAX_SEEDS = 8  # runs of one cell
BUDGET_STEP = 1.75  # ratio of the budgets that may be added beyond the largest one
WIDE_GAP = 1.8  # ratio of two budgets between which a further one may be added
SIZE_STEP = 0.12  # of ln N between the sizes that may be added
MAX_ADDED_BUDGETS = 24
TARGET_REACH = 10.0  # times the largest budget of an added run: the default target
DEFAULT_SHARE = 0.5  # of the FLOPs of the sweep's plans: the default allowance


def suggest(
    sweep_dir: Path,
    target: float | None = None,
    *,
    arm: str | None = None,
    flops_budget: float | None = None,
    max_budget: float | None = None,
) -> Suggestion:
    """Return the runs that most narrow the answer at `target` within `flops_budget`, both in FLOPs.

    The largest budget of a suggested run is `max_budget`, by default the largest planned one; the default
    target is ten times that budget, the default allowance half of the FLOPs of the grid. Where the sweep has
    no answer yet, the defaults are what it lacks: larger budgets where there are too few, and the FLOPs of
    all runs that are needed. Writes nothing.

    Raises InputError when the sweep has no finished run, settings that allow no suggestion, or a target below
    its smallest budget.
    """
    store = RunStore(sweep_dir)
    experiment = arm_experiment(store, arm)
    planned = [p for p in store.plans() if p.experiment.arm == arm and not p.validation]
    if target is not None:
        _check_target(target, [budget for plan in planned for budget in plan.experiment.budgets])
    largest = max_budget or max(max(plan.experiment.budgets) for plan in planned)
    found = suggestion(sweep_dir, experiment, target, flops_budget, largest)
    if found.refusal is None or (max_budget is not None and flops_budget is not None):
        return found
    if max_budget is None:
        largest *= NEXT_BUDGET ** _n_missing(store, experiment)
    needed = suggestion(
        sweep_dir, experiment, target, math.inf if flops_budget is None else flops_budget, largest
    )
    if flops_budget is not None:
        return needed
    return replace(needed, allowance=max(found.allowance, _round(1.01 * needed.flops)))  # rounded up


def _n_missing(store: RunStore, experiment: ExperimentConfig) -> int:
    """Return the number of budgets that an answer lacks, if the present ones get their minimum."""
    fitted = fit_arm(store.sweep_dir, experiment.fit, experiment.arm)
    return max(0, MIN_FITTED - len(_observations(store, fitted, experiment).budgets))


def suggestion(
    sweep_dir: Path,
    experiment: ExperimentConfig,
    target: float | None,
    allowance: float | None,
    max_budget: float | None,
    goal: float | None = None,
    round_flops: float | None = None,
) -> Suggestion:
    """Return the suggestion for one arm, as `suggest` does.

    `goal` ends it at this width of the interval on N_opt, as a factor; `round_flops` keeps its first actions.
    """
    store, arm = RunStore(sweep_dir), experiment.arm
    _check(experiment)
    fitted = fit_arm(sweep_dir, experiment.fit, arm)
    observations = _observations(store, fitted, experiment)
    largest = max_budget or max(experiment.budgets)
    target = target or TARGET_REACH * largest
    allowance = DEFAULT_SHARE * grid_flops(store, arm) if allowance is None else allowance
    present = _answer_at(fitted, target, experiment)
    answer = fitted.answer if isinstance(present, tuple) else None
    found = situation(observations, answer, experiment.fit)
    candidates = _Candidates.of(store, experiment, found, largest)
    wanted = {} if goal is None or answer is None else _width_factor(present, goal)
    proposal = propose(found, answer, candidates.pool, target, allowance, wanted)
    if round_flops is not None:
        proposal = _first(proposal, round_flops)
    runs, plans = candidates.chosen(proposal)
    outlooks = [
        _outlook(present[index], name, proposal) if isinstance(present, tuple) else None
        for index, name in enumerate(("n_params", "loss"))
    ]
    return Suggestion(
        arm=arm,
        target=target,
        max_budget=largest,
        allowance=allowance,
        confidence=experiment.fit.confidence,
        n_params_opt=outlooks[0],
        loss_opt=outlooks[1],
        refusal=present if isinstance(present, str) else None,
        unbracketed=tuple(f"{b.flops_budget:.4g} FLOPs: {b.reason}" for b in found.unbracketed),
        unrepaired=proposal.unrepaired,
        n_unfinished=sum(not run.finished for run in store.status().runs),
        runs=runs,
        plans=plans,
    )


def _check_target(target: float, budgets: Sequence[float]) -> None:
    """Raise InputError for a target below the planned budgets: it costs less than any suggested run."""
    smallest = min(budgets)
    if target < NEAR * smallest:
        raise InputError(
            f"nothing to suggest for --target {format4(target)}: it is below the smallest budget of the "
            f"sweep ({format4(smallest)}), so every suggested run would cost more than the target: give a "
            f"target of at least {format4(smallest)} FLOPs, or plan a sweep with smaller budgets"
        )


def _check(experiment: ExperimentConfig) -> None:
    if experiment.schedule.cooldown_branches:
        raise InputError(
            "schedule.cooldown_branches=true: added runs cannot branch from the trunks of the sweep, so none "
            "is suggested; add budgets or seeds to the experiment"
        )
    if not experiment.fit.n_bootstrap:
        raise InputError("a suggestion needs intervals: set fit.n_bootstrap above 0 in the experiment")


def _observations(store: RunStore, fitted: Fit, experiment: ExperimentConfig) -> Observations:
    """Return the points that were fitted."""
    points = [point for point in store.points().points if point.arm == experiment.arm]
    excluded = {entry.run_key: entry.reason for entry in fitted.excluded}
    observed = observe(
        points,
        excluded,
        filters=experiment.fit.filters,
        allow_mixed_schedules=experiment.fit.allow_mixed_schedules,
    )
    if observed.refusal is not None:
        raise InputError(f"there is nothing to suggest: {observed.refusal.reason}")
    if not len(observed):
        raise InputError("there is nothing to suggest: every point is excluded or diverged")
    if not len(observed.budgets):
        raise InputError("there is nothing to suggest: the points form no budgets")
    return observed


Present = tuple[tuple[float, Interval], tuple[float, Interval]]


def _answer_at(fitted: Fit, target: float, experiment: ExperimentConfig) -> Present | str:
    """Return N_opt and L_opt at the target with their intervals, or the reason for no answer."""
    answer = fitted.answer
    if not isinstance(answer, AnswerLaw):
        return answer.reason if isinstance(answer, Refusal) else "the fit has no answer"
    too_far = too_far_beyond(fitted, target, experiment.fit.max_reach)
    if too_far is not None:
        raise InputError(f"nothing to suggest for --target {format4(target)}: {too_far.reason}")
    at = [(answer.estimate(q, target), answer.interval(q, target)) for q in ("n_params_opt", "loss_opt")]
    (n_params, in_n), (loss, in_loss) = at
    if in_n is None or in_loss is None:
        return "the answer has no interval"
    return (n_params, in_n), (loss, in_loss)


def _width_factor(present: Present | str, goal: float) -> Mapping[Any, float]:
    """Return the width of the interval of ln N_opt that is wanted over the present one."""
    assert isinstance(present, tuple)
    low, high = present[0][1]
    return {"n_params": math.log(goal) / max(math.log(high / low), 1e-12)}


def _outlook(present: tuple[float, Interval], name: Any, proposal: Proposal) -> Outlook:
    estimate, (low, high) = present
    factor = proposal.width_factors[-1][name] if proposal.width_factors else 1.0
    expected = (estimate * (low / estimate) ** factor, estimate * (high / estimate) ** factor)
    return Outlook(estimate=estimate, interval=(low, high), expected_interval=expected)


def _first(proposal: Proposal, round_flops: float) -> Proposal:
    """Return the first actions of a proposal, at least one and at most `round_flops` in all."""
    spent = list(itertools.accumulate(action.flops for action in proposal.actions))
    n_kept = max(1, sum(flops <= round_flops for flops in spent))
    return replace(proposal, actions=proposal.actions[:n_kept], width_factors=proposal.width_factors[:n_kept])


def grid_flops(store: RunStore, arm: str | None) -> float:
    """Return the FLOPs of the runs that an arm's plans list, suggested ones and validations aside."""
    return planned_flops(store, arm, suggested=False)


def planned_flops(store: RunStore, arm: str | None, *, suggested: bool) -> float:
    """Return the FLOPs of the runs of an arm's plans, of suggested ones or of all others but validations."""
    runs = {
        entry.run_key: entry.flops
        for plan in store.plans()
        if plan.experiment.arm == arm and plan.suggested == suggested and not plan.validation
        for entry in plan.entries
    }
    return float(sum(runs.values()))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Candidates:
    """Cells of the sweep's family that may be trained, with the seeds of each that are free."""

    experiment: ExperimentConfig
    runs: tuple[PlannedRun, ...]  # one for each cell
    seeds: tuple[tuple[int, ...], ...]  # free seeds of each cell, in the order of their use
    pool: Pool

    @classmethod
    def of(
        cls, store: RunStore, experiment: ExperimentConfig, found: Situation, max_budget: float
    ) -> _Candidates:
        """Return the cells up to `max_budget` within reach of the expected minima."""
        data, device = dataset(experiment), device_of(experiment)
        widths = {budget: _widths(experiment, found, budget) for budget in _budgets(found, max_budget)}
        lattice = {budget: sizes for budget, sizes in widths.items() if sizes}
        if not lattice:
            raise InputError(
                f"no run of at most {max_budget:.4g} FLOPs can be suggested: the smallest budget of the "
                f"points is {found.budgets[0].flops_budget:.4g}, allow at least so much for one run"
            )
        taken = {entry.run_key: entry.name for entry in store.entries()}
        plan = make_plan(_of_cells(experiment, lattice, seed=0), data, device)
        _check_precision(store, experiment, plan)
        seeds = [_free_seeds(experiment, run.config, taken) for run in plan.runs]
        return cls(
            experiment=experiment,
            runs=plan.runs,
            seeds=tuple(seeds),
            pool=Pool(
                flops_budget=np.array([run.config.flops_budget for run in plan.runs], dtype=np.float64),
                n_params=np.array([run.n_params for run in plan.runs], dtype=np.float64),
                flops=np.array([run.flops for run in plan.runs], dtype=np.float64),
                n_free=np.array([len(free) for free in seeds], dtype=np.int64),
            ),
        )

    def chosen(self, proposal: Proposal) -> tuple[tuple[SuggestedRun, ...], tuple[Plan, ...]]:
        """Return the runs of a proposal and their plans, one for each seed."""
        used: dict[int, int] = {}
        order: list[tuple[Purpose, int, int]] = []  # purpose, row, seed
        for action in proposal.actions:
            for row in action.rows:
                number = used.get(row, 0)
                used[row] = number + 1
                order.append((action.purpose, row, self.seeds[row][number]))
        plans = self._plans([(row, seed) for _, row, seed in order])
        by_key = {run.run_key: run for plan in plans for run in plan.runs}
        runs = []
        for purpose, row, seed in order:
            planned = by_key[run_key(replace(self.runs[row].config, seed=seed))]
            runs.append(_suggested(planned, purpose))
        return tuple(runs), plans

    def _plans(self, cells: Sequence[tuple[int, int]]) -> tuple[Plan, ...]:
        data, device = dataset(self.experiment), device_of(self.experiment)
        plans = []
        for seed in sorted({seed for _, seed in cells}):
            widths: dict[float, list[int]] = {}
            for row in sorted(row for row, own in cells if own == seed):
                config = self.runs[row].config
                widths.setdefault(config.flops_budget or 0.0, []).append(config.model.d_model)
            plan = make_plan(_of_cells(self.experiment, widths, seed), data, device)
            check_parallel(plan)
            plans.append(replace(plan, warnings=(), suggested=True))
        return tuple(plans)


def _of_cells(
    experiment: ExperimentConfig, widths: Mapping[float, Sequence[int]], seed: int
) -> ExperimentConfig:
    """Return the experiment with other cells: widths by budget, and one seed."""
    budgets = sorted(widths)
    sizes = tuple(tuple(sorted(widths[budget])) for budget in budgets)
    grid = replace(experiment.grid, d_model=sizes, n_params=None)
    return replace(experiment, budgets=tuple(budgets), grid=grid, seeds=(seed,))


def _check_precision(store: RunStore, experiment: ExperimentConfig, plan: Plan) -> None:
    """Raise InputError where this machine would train in another precision than the sweep's runs."""
    trained = {p.precision for p in store.points().points if p.arm == experiment.arm and p.precision}
    planned = plan.runs[0].config.precision
    if trained and planned not in trained:
        raise InputError(
            f"runs suggested here would be trained in {planned}, and those of the sweep in "
            f"{', '.join(sorted(trained))}: call this on a machine with the sweep's device, or set precision "
            f"in the experiment"
        )


def _free_seeds(experiment: ExperimentConfig, config: RunConfig, taken: Mapping[str, str]) -> tuple[int, ...]:
    """Return the seeds of a cell that no plan lists, those of the experiment first; at most MAX_SEEDS.

    `taken` maps run keys to names. Names begin with their cell, so that few keys have to be hashed.
    """
    others = (seed for seed in itertools.count() if seed not in experiment.seeds)
    order = itertools.islice(itertools.chain(experiment.seeds, others), MAX_SEEDS)
    cell = cell_name(config.flops_budget or 0.0, config.model)
    if not any(name.startswith(f"{cell}-") for name in taken.values()):
        return tuple(order)
    return tuple(seed for seed in order if run_key(replace(config, seed=seed)) not in taken)


def _budgets(found: Situation, max_budget: float) -> list[float]:
    """Return the budgets that may get runs: those of the points, and further ones up to `max_budget`."""
    present = [budget.flops_budget for budget in found.budgets]
    budgets = [budget for budget in present if budget <= max_budget * (1 + 1e-9)]
    for low, high in itertools.pairwise(present):
        if high > WIDE_GAP * low and high <= max_budget:
            budgets.append(_round(math.sqrt(low * high)))
    largest = present[-1]
    if max_budget > largest * 1.1:
        n_steps = max(1, round(math.log(max_budget / largest) / math.log(BUDGET_STEP)))
        steps = min(n_steps, MAX_ADDED_BUDGETS)
        budgets += [_round(largest * (max_budget / largest) ** (i / steps)) for i in range(1, steps)]
        budgets.append(max_budget)
    return sorted(set(budgets))


def _round(budget: float) -> float:
    return float(f"{budget:.3g}")


def _widths(experiment: ExperimentConfig, found: Situation, budget: float) -> list[int]:
    """Return the plannable widths around a budget's expected minimum and its present sizes."""
    spans = []
    if found.local is not None:
        center = found.local.center(budget)
        spans.append((center - HALF_SPAN - STEPS[1], center + HALF_SPAN + STEPS[1]))
    present = [runs.log_n for runs in found.design if math.isclose(runs.flops, budget, rel_tol=1e-9)]
    spans += [(float(x.min()) - STEPS[1], float(x.max()) + STEPS[1]) for x in present]
    if not spans:
        return []
    low, high = min(span[0] for span in spans), max(span[1] for span in spans)
    n_vocab = vocab_size(experiment.tokenizer)
    targets = np.exp(np.arange(low, high + SIZE_STEP, SIZE_STEP))
    known = np.exp(np.unique(np.concatenate(present))) if present else np.empty(0)
    shapes = (
        nearest_shape(lambda m: flops.n_params(m).total, float(n), experiment.model, n_vocab)
        for n in (*targets, *known)
    )
    return sorted({shape.d_model for shape in shapes})


def _suggested(run: PlannedRun, purpose: Purpose) -> SuggestedRun:
    config = run.config
    return SuggestedRun(
        run_key=run.run_key,
        name=config.name,
        purpose=purpose,
        flops_budget=config.flops_budget or 0.0,
        d_model=config.model.d_model,
        n_layers=config.model.n_layers,
        n_params=run.n_params,
        n_tokens=config.n_tokens,
        seed=config.seed,
        flops=run.flops,
    )
