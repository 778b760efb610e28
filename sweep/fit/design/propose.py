"""The next runs by their expected reduction of the answer's variance per FLOP.

Budgets without a bracketed minimum are repaired first. Then actions are added one at a time by the reduction
of the log variance per e-fold of the FLOPs spent (a greedy c-optimal design; Chaloner & Verdinelli 1995,
section 2). Sequences that begin with a larger budget are compared by the variance at the end of the allowance
or, with a goal that none is expected to meet, by the variance all along the way.

Legend: N parameters, C training FLOPs, L loss.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from sweep.fit.answer import TARGETS, AnswerLaw
from sweep.fit.checks.backtest import MIN_FITTED
from sweep.fit.checks.backtest_errors import Target
from sweep.fit.design.model import (
    HALF_SPAN,
    BudgetRuns,
    Design,
    DesignModel,
    LocalModel,
    Situation,
    Variance,
)
from sweep.fit.methods.parabola import CHECKED_SIZES, BudgetFit, Parabola
from sweep.fit.refusals import Refusal

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Purpose = Literal["bracket", "budget", "precision"]

NEW_BUDGET: tuple[tuple[float, ...], ...] = (
    (-1.0, -0.4, 0.4, 1.0),
    (-1.0, -0.5, 0.0, 0.5, 1.0),
    (-1.0, -0.75, -0.4, 0.0, 0.4, 0.75, 1.0),
)
"""Sizes of a new budget, in units of HALF_SPAN from the expected minimum."""
FURTHER = (-1.0, -0.5, 0.0, 0.5, 1.0)  # sizes of further runs of a budget, in the same units
STEPS = (0.3, 1.0)  # least and largest distance in ln N of a size that is added beyond an edge
LEAST_STEP = 0.05  # of ln N between the sizes of a new budget
GROWTH = 4.0
"""Most FLOPs of an action over those spent before: cheap runs show if dear ones are needed."""
OVERHEAD = 0.02  # of the largest run, added to the cost of an action: cheap runs are not free
MIN_GAIN = 3e-3  # of the weighted log variance


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """Cells with runs that may be added, arrays of shape (n,)."""

    flops_budget: FloatArray
    n_params: FloatArray
    flops: FloatArray  # of one run
    n_free: IntArray  # runs that may be added to the cell

    @cached_property
    def log_n(self) -> FloatArray:
        """Ln N of every row."""
        return np.log(self.n_params)

    @property
    def budgets(self) -> list[float]:
        """The budgets, ascending."""
        return sorted(self._rows)

    @cached_property
    def _rows(self) -> dict[float, IntArray]:
        budgets, index = np.unique(self.flops_budget, return_inverse=True)
        return {float(budget): np.flatnonzero(index == i) for i, budget in enumerate(budgets)}

    def at(self, budget: float) -> IntArray:
        """Return the rows of a budget with runs left."""
        rows = self._rows.get(budget, np.empty(0, np.int64))
        return rows[self.n_free[rows] > 0]

    def without(self, rows: Sequence[int]) -> Pool:
        """Return the pool with one run less of each of `rows`."""
        n_free = self.n_free.copy()
        np.subtract.at(n_free, list(rows), 1)
        return dataclasses.replace(self, n_free=n_free)


@dataclass(frozen=True, kw_only=True, slots=True)
class Action:
    """Runs that are added together: rows of the pool, one run each."""

    purpose: Purpose
    rows: tuple[int, ...]
    flops: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """The actions within an allowance, and the expected answer after them."""

    actions: tuple[Action, ...]
    width_factors: tuple[Mapping[Target, float], ...]
    """Expected widths of the intervals of the logarithms over the present ones, after each action; empty
    without an answer."""
    unrepaired: tuple[str, ...]  # budgets without a bracketed minimum that the pool cannot repair

    @property
    def flops(self) -> float:
        """The FLOPs of all runs."""
        return sum(action.flops for action in self.actions)

    @property
    def rows(self) -> tuple[int, ...]:
        """The rows of the pool, one for each run."""
        return tuple(row for action in self.actions for row in action.rows)


def propose(
    found: Situation,
    answer: AnswerLaw | Refusal | None,
    pool: Pool,
    target: float,
    allowance: float,
    goal: Mapping[Target, float] | None = None,
) -> Proposal:
    """Return the runs to add within an allowance in FLOPs, in the order in which they should be trained.

    Budgets without a bracketed minimum come first. Without an answer nothing else is proposed but the budgets
    that it lacks. `goal` ends the proposal early: the width factors of the interval that suffice.
    """
    repairs, pool, design, unrepaired = _repairs(found, pool, allowance)
    left = allowance - sum(action.flops for action in repairs)
    local = found.local
    if local is None or len(local.log_c) < MIN_FITTED or not isinstance(answer, AnswerLaw):
        opened = () if local is None else _missing_budgets(local, pool, design, left, len(repairs))
        actions = (*repairs, *opened)
        return Proposal(actions=actions, width_factors=(), unrepaired=unrepaired)
    model = DesignModel.of(local, answer, found.design, target)
    before = model.variances(found.design)
    enough = _Enough(before=before, goal=goal or {})
    actions = (*repairs, *_best_rollout(model, design, pool, left, enough))
    factors, reached = [], found.design
    for action in actions:
        reached = _with_action(reached, pool, action)
        factors.append(enough.factors(model.variances(reached)))
    return Proposal(actions=actions, width_factors=tuple(factors), unrepaired=unrepaired)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Enough:
    before: Mapping[Target, Variance]
    goal: Mapping[Target, float]

    def holds(self, after: Mapping[Target, Variance]) -> bool:
        """Return whether all goals are met; False without a goal."""
        factors = self.factors(after)
        return bool(self.goal) and all(factors[name] <= self.goal[name] for name in self.goal)

    def factors(self, after: Mapping[Target, Variance]) -> dict[Target, float]:
        """Return the widths of the intervals over the present ones."""
        return {name: math.sqrt(after[name].total / self.before[name].total) for name in TARGETS}


def _best_rollout(
    model: DesignModel, design: Design, pool: Pool, allowance: float, enough: _Enough
) -> tuple[Action, ...]:
    """Return the greedy sequence, with or without one new budget first, of the best end.

    With a goal it is the cheapest sequence that meets the goal, if any does.
    """
    spent = _spent(design)
    beyond = [
        action
        for action in _new_budgets(model.local, pool, design)
        if action.flops <= min(allowance, GROWTH * spent)
        and pool.flops_budget[action.rows[0]] > max(budget.flops for budget in design)
    ]
    best: tuple[tuple[float, float], tuple[Action, ...]] | None = None
    for start in (None, *beyond):
        path = _greedy(model, design, pool, allowance, enough, start)
        if path.met:
            rank = 0.0, path.spent[-1]
        else:
            rank = 1.0, path.area(spent + allowance) if enough.goal else path.scores[-1]
        if best is None or rank < best[0]:
            best = rank, path.actions
    assert best is not None
    return best[1]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Path:
    """A sequence of actions, with the FLOPs spent and the score at its start and after each of them."""

    actions: tuple[Action, ...]
    spent: tuple[float, ...]
    scores: tuple[float, ...]
    met: bool  # whether the goal is expected to be met at the end

    def area(self, flops: float) -> float:
        """Return the integral of the score over ln FLOPs up to `flops`.

        It ranks sequences by how narrow the interval is all along the way, since the goal may be met earlier
        or later than expected.
        """
        ends = np.log(np.minimum([*self.spent[1:], flops], flops) / np.array(self.spent))
        return float(ends @ np.array(self.scores))


def _greedy(
    model: DesignModel,
    design: Design,
    pool: Pool,
    allowance: float,
    enough: _Enough,
    start: Action | None,
) -> _Path:
    """Add actions by the reduction of the score per e-fold of FLOPs until nothing affordable helps."""
    actions: list[Action] = []
    overhead = OVERHEAD * float(pool.flops.max(initial=0.0))
    gains: dict[Action, float] = {}  # of earlier steps: upper bounds, as gains diminish
    spent, scores = [_spent(design)], [model.score(design)]
    end = spent[0] + allowance
    chosen = start
    while True:
        if chosen is not None:
            actions.append(chosen)
            design, pool = _with_action(design, pool, chosen), pool.without(chosen.rows)
            spent.append(spent[-1] + chosen.flops)
            scores.append(model.score(design))
        if enough.holds(model.variances(design)):
            break
        limit = min(end - spent[-1], GROWTH * spent[-1])
        affordable = {
            action: math.log1p((action.flops + overhead) / spent[-1])
            for action in (
                *_new_budgets(model.local, pool, design),
                *_single_runs(model.local, pool, design),
            )
            if action.flops <= limit
        }
        best, chosen = 0.0, None
        order = sorted(affordable, key=lambda action: -gains.get(action, math.inf) / affordable[action])
        for action in order:
            cost = affordable[action]
            if gains.get(action, math.inf) / cost <= best:
                break
            gain = gains[action] = scores[-1] - model.score(_with_action(design, pool, action))
            if gain > MIN_GAIN and gain / cost > best:
                best, chosen = gain / cost, action
        if chosen is None:
            break
    return _Path(
        actions=tuple(actions),
        spent=tuple(spent),
        scores=tuple(scores),
        met=enough.holds(model.variances(design)),
    )


def _spent(design: Design) -> float:
    """Return the FLOPs of all runs of a design."""
    return sum(budget.flops * len(budget.log_n) for budget in design)


def _with_action(design: Design, pool: Pool, action: Action) -> Design:
    """Return the design with the runs of an action."""
    by_budget = {budget.flops: budget for budget in design}
    for row in action.rows:
        flops, log_n = float(pool.flops_budget[row]), pool.log_n[row : row + 1]
        old = by_budget.get(flops) or BudgetRuns(flops=flops, log_n=log_n[:0], status="new")
        by_budget[flops] = old.plus(log_n)
    return tuple(by_budget[flops] for flops in sorted(by_budget))


def _new_budgets(local: LocalModel, pool: Pool, design: Design) -> Iterator[Action]:
    """Yield, for each budget of the pool without runs, the sizes that bracket its expected minimum."""
    present = {have.flops for have in design}
    for budget in pool.budgets:
        if budget in present:
            continue
        rows = pool.at(budget)
        u = pool.log_n[rows] - local.center(budget)
        found = {tuple(_spread(u, offsets)): None for offsets in NEW_BUDGET}
        for chosen in found:
            if len(chosen) >= CHECKED_SIZES:
                yield _action("budget", rows[list(chosen)].tolist(), pool)


def _spread(u: FloatArray, offsets: Sequence[float]) -> list[int]:
    """Return the indices of distinct sizes nearest to the offsets, the outermost chosen first."""
    chosen: list[int] = []
    for at in sorted(offsets, key=abs, reverse=True):
        free = [i for i in range(len(u)) if all(abs(u[i] - u[j]) > LEAST_STEP for j in chosen)]
        if free:
            chosen.append(min(free, key=lambda i: abs(u[i] - HALF_SPAN * at)))
    return sorted(chosen)


def _single_runs(local: LocalModel, pool: Pool, design: Design) -> Iterator[Action]:
    """Yield further runs around the minimum of every budget that has runs."""
    for budget in design:
        rows = pool.at(budget.flops)
        if len(rows):
            u = pool.log_n[rows] - local.center(budget.flops)
            nearest = {int(rows[np.argmin(np.abs(u - HALF_SPAN * at))]) for at in FURTHER}
            for row in sorted(nearest):
                yield _action("precision", [row], pool)


def _action(purpose: Purpose, rows: Sequence[int], pool: Pool) -> Action:
    return Action(purpose=purpose, rows=tuple(rows), flops=float(pool.flops[list(rows)].sum()))


def _missing_budgets(
    local: LocalModel, pool: Pool, design: Design, allowance: float, n_repaired: int
) -> tuple[Action, ...]:
    """Return the new budgets that the answer lacks, if the repaired ones get their minimum.

    The cheapest beyond the largest budget come first: a law needs a range more than points within it.
    """
    n_missing = max(0, MIN_FITTED - len(local.log_c) - n_repaired)
    largest = max(budget.flops for budget in design)
    by_budget = {float(pool.flops_budget[a.rows[0]]): a for a in _new_budgets(local, pool, design)}
    order = sorted(by_budget, key=lambda budget: (budget < largest, by_budget[budget].flops))
    actions: list[Action] = []
    for action in (by_budget[budget] for budget in order[:n_missing]):
        if action.flops <= allowance:
            actions.append(action)
            allowance -= action.flops
    return tuple(actions)


def _repairs(
    found: Situation, pool: Pool, allowance: float
) -> tuple[tuple[Action, ...], Pool, Design, tuple[str, ...]]:
    """Return the sizes that unbracketed budgets lack, cheapest budget first, and what cannot be repaired."""
    actions: list[Action] = []
    unrepaired: list[str] = []
    design = found.design
    for budget in found.unbracketed:
        rows = _repair(found, budget, pool)
        cost = float(pool.flops[rows].sum())
        if not rows or cost > allowance:
            limit = "the allowance is spent" if rows else _no_size(budget, pool)
            unrepaired.append(f"{budget.flops_budget:.4g} FLOPs: {budget.reason}; {limit}")
            continue
        action = _action("bracket", rows, pool)
        actions.append(action)
        allowance -= cost
        design, pool = _with_action(design, pool, action), pool.without(rows)
    return tuple(actions), pool, design, tuple(unrepaired)


def _no_size(budget: BudgetFit, pool: Pool) -> str:
    """Return the reason why no size can be added to a budget."""
    largest = max(pool.budgets, default=0.0)
    if budget.flops_budget > largest * (1 + 1e-9):
        return f"added runs have at most {largest:.4g} FLOPs each"
    return "no size to add can be trained"


def _repair(found: Situation, budget: BudgetFit, pool: Pool) -> list[int]:
    """Return the rows of the pool that may bracket the minimum of a budget."""
    (have,) = (runs for runs in found.design if runs.flops == budget.flops_budget)
    sizes = np.unique(have.log_n)
    step = float(np.clip(np.median(np.diff(sizes)), *STEPS)) if len(sizes) > 1 else STEPS[0]
    rows = pool.at(budget.flops_budget)
    log_n = pool.log_n[rows]

    def nearest(at: float, allowed: npt.NDArray[np.bool_]) -> list[int]:
        if not allowed.any():
            return []
        return [int(rows[allowed][np.argmin(np.abs(log_n[allowed] - at))])]

    above = nearest(sizes[-1] + step, log_n > sizes[-1] + 0.5 * STEPS[0])
    below = nearest(sizes[0] - step, log_n < sizes[0] - 0.5 * STEPS[0])
    if budget.status == "too_few" and found.local is not None:
        return _complete(found.local.center(budget.flops_budget), sizes, rows, log_n)
    if budget.status in ("not_convex", "too_few") or budget.parabola is None:
        return [*below, *above]
    t = float(Parabola.vertex(np.array(budget.parabola.coefficients))[0])
    return above if budget.parabola.center + t > float(sizes.mean()) else below


def _complete(center: float, sizes: FloatArray, rows: IntArray, log_n: FloatArray) -> list[int]:
    """Return further sizes that complete a budget to the least number, farthest from those present first."""
    have, chosen = list(sizes), []
    for offset in (-0.5, 0.5, -1.0, 1.0, 0.0):
        at = center + HALF_SPAN * offset
        free = [i for i in range(len(rows)) if min(abs(log_n[i] - size) for size in have) > 0.5 * STEPS[0]]
        if len(have) >= CHECKED_SIZES or not free:
            break
        nearest = min(free, key=lambda i: abs(log_n[i] - at))
        chosen.append(int(rows[nearest]))
        have.append(float(log_n[nearest]))
    return chosen
