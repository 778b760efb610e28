"""Budgets that fit into an amount of time or money, and seeds that resolve a difference in loss.

Legend: C training FLOPs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any, Literal

from sweep.config import ExperimentConfig
from sweep.config.places import sweep_directory
from sweep.errors import InputError
from sweep.machine.workers import worker_count
from sweep.records import Plan, Point
from sweep.store.run_store import RunStore
from sweep.study.plan import plan_experiment
from sweep.study.speed import measured

Kind = Literal["gpu_hours", "hours", "money"]
UNITS: dict[Kind, str] = {"gpu_hours": "device-hours", "hours": "hours", "money": "of money"}
CLOSE = 0.93  # of the limit: budgets that use more are not enlarged
MAX_ROUNDS = 12
ASSUMED_NOISE = 0.01
"""Standard deviation of one run's loss between seeds, nats: about that of the demo."""
CONFIDENCE, POWER = 0.95, 0.8


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """An amount of one kind that a plan may take."""

    kind: Kind
    amount: float

    def __str__(self) -> str:
        return f"{self.amount:g} {UNITS[self.kind]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Plans that fit into a limit, and the overrides by which they differ from the experiment."""

    plans: tuple[Plan, ...]
    overrides: tuple[str, ...]
    used: float  # of the limit, in its unit

    def to_json(self) -> dict[str, Any]:
        """Return the entry `chosen` of `sweep plan --json`."""
        return {"overrides": list(self.overrides), "used": self.used}


def afford(
    arms: Sequence[ExperimentConfig], limit: Limit, on_notice: Callable[[str], None] = lambda sentence: None
) -> Choice:
    """Scale the budgets of an experiment's arms by one factor, so that their plans just fit into `limit`.

    Sizes that are listed become as many sizes log-spaced around the expected D/N, as larger budgets need
    larger models. Raises InputError where not even the smallest trainable budgets fit, and for money without
    a price.
    """
    if limit.amount <= 0:
        raise InputError(f"{limit} is not above zero: give a positive number")
    if limit.kind == "money" and not arms[0].estimate.price_per_hour:
        raise InputError("--money needs the price of a device: give estimate.price_per_hour=PRICE")
    factor, best = 1.0, None
    plans = tuple(measured([plan_experiment(arm) for arm in _scaled(arms, factor)], on_notice))
    for _ in range(MAX_ROUNDS):
        used = _used(plans, limit.kind)
        if used <= limit.amount:
            best = Choice(plans=plans, overrides=_overrides(plans[0].experiment), used=used)
            if used >= CLOSE * limit.amount:
                break
        factor *= 0.97 * limit.amount / used
        try:
            plans = tuple(plan_experiment(arm) for arm in _scaled(arms, factor))
        except InputError as error:
            if best is not None:
                break
            raise InputError(f"{limit} are too little for this experiment: {error}") from None
    if best is None:
        raise InputError(f"no budgets of this experiment take {limit}: give a larger amount")
    plans = tuple(measured(best.plans, on_notice))  # the shapes that were chosen may be new
    return replace(best, plans=plans, used=_used(plans, limit.kind))


def _scaled(arms: Sequence[ExperimentConfig], factor: float) -> list[ExperimentConfig]:
    return [_scaled_arm(arm, factor) for arm in arms]


def _scaled_arm(arm: ExperimentConfig, factor: float) -> ExperimentConfig:
    budgets = tuple(float(f"{budget * factor:.1e}") for budget in arm.budgets)
    grid, listed = arm.grid, arm.grid.d_model or arm.grid.n_params
    if listed is not None:
        n_sizes = max(len(sizes) if isinstance(sizes, tuple) else len(listed) for sizes in listed)
        grid = replace(grid, d_model=None, n_params=None, n_sizes=n_sizes)
    return replace(arm, budgets=budgets, grid=grid)


def _overrides(experiment: ExperimentConfig) -> tuple[str, ...]:
    listed = ",".join(f"{budget:.2g}".replace("e+", "e") for budget in experiment.budgets)
    sizes = (f"grid.n_sizes={experiment.grid.n_sizes}",)
    return (f"budgets=[{listed}]", "grid.d_model=null", "grid.n_params=null", *sizes)


def _used(plans: Sequence[Plan], kind: Kind) -> float:
    """Return what the plans take, in the unit of the limit; finished runs count as if they were left."""
    workers = worker_count(plans)
    runs = [run for plan in plans for run in plan.runs]
    alone_s = sum(run.time_s for run in runs)
    if kind == "hours":
        return workers.wall_s([run.time_s for run in runs]) / 3600
    share = 1.0 if workers.packing is None else 1.0 / workers.packing.speedup
    device_hours = alone_s * share * plans[0].experiment.trainer.n_devices / 3600
    return device_hours * (plans[0].experiment.estimate.price_per_hour if kind == "money" else 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolution:
    """The seeds that resolve a difference between two settings, each trained on the same grid."""

    difference: float  # nats
    noise_sd: float  # of one run's loss between seeds, nats
    n_replicates: int  # degrees of freedom of the noise; 0: it is assumed
    n_cells: int  # of the plan: budget and size
    n_seeds_cell: int  # for the difference at one cell
    n_seeds_grid: int  # for the mean difference over all cells

    def to_json(self) -> dict[str, Any]:
        """Return the entry `resolve` of `sweep plan --json`."""
        return asdict(self)

    def __str__(self) -> str:
        source = (
            f"measured with {self.n_replicates} degrees of freedom"
            if self.n_replicates
            else "assumed: no cell of this sweep has two seeds yet"
        )
        return (
            f"to resolve {self.difference:g} nats between two settings ({CONFIDENCE:.0%} confidence, "
            f"{POWER:.0%} power): {self.n_seeds_grid} seed{'s' * (self.n_seeds_grid > 1)} of each for the "
            f"mean over the {self.n_cells} cells, {self.n_seeds_cell} for one cell; seed noise "
            f"{self.noise_sd:.2g} nats ({source})"
        )


def resolution(plan: Plan, difference: float) -> Resolution:
    """Return the seeds for a two-sample z-test of two settings: n = 2 ((z_α + z_β) sd / difference)².

    The noise is that of the finished runs that differ in their seed alone, pooled; ASSUMED_NOISE without any.
    """
    if not (0 < difference < math.inf):
        raise InputError(f"--resolve {difference:g} is not a difference in loss: give nats above zero")
    stored = RunStore(sweep_directory(plan.experiment)).points()
    left_out = {item.run_key for item in stored.excluded}
    sd, n_dof = seed_noise([point for point in stored.points if point.run_key not in left_out])
    cells = {(run.config.flops_budget, run.n_params) for run in plan.runs}
    normal = NormalDist()
    z = normal.inv_cdf(0.5 + CONFIDENCE / 2) + normal.inv_cdf(POWER)
    needed = 2 * (z * (sd or ASSUMED_NOISE) / difference) ** 2
    return Resolution(
        difference=difference,
        noise_sd=sd or ASSUMED_NOISE,
        n_replicates=n_dof if sd else 0,
        n_cells=len(cells),
        n_seeds_cell=max(1, math.ceil(needed)),
        n_seeds_grid=max(1, math.ceil(needed / len(cells))),
    )


def seed_noise(points: Sequence[Point]) -> tuple[float, int]:
    """Return the pooled standard deviation of losses within cells, nats, and its degrees of freedom."""
    cells: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for point in points:
        if point.loss is not None and point.provenance is None:
            key = (
                point.arm,
                point.flops_budget,
                point.n_params,
                point.n_tokens,
                point.lr_peak,
                point.batch_tokens,
            )
            cells[key].append(point.loss)
    squares = sum((loss - sum(own) / len(own)) ** 2 for own in cells.values() for loss in own)
    n_dof = sum(len(own) - 1 for own in cells.values())
    return (math.sqrt(squares / n_dof), n_dof) if n_dof else (0.0, 0)
