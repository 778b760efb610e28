"""Hyperparameter check: runs at the grid's corners with half and twice the learning rate and the batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from sweep.config import ExperimentConfig, ModelConfig
from sweep.plan.devices import DeviceType, with_precision
from sweep.plan.grid import cell_name, cell_of, grid_shapes, make_plan, plan_cell
from sweep.records import Dataset, DroppedCell, Plan, PlannedRun

FACTORS = (0.5, 2.0)  # of the rule's value
Axis = Literal["lr", "batch"]
AXES: tuple[Axis, ...] = ("lr", "batch")


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One value of a hyperparameter at a corner, with its runs."""

    value: float  # peak learning rate, or tokens per step
    run_keys: tuple[str, ...]  # one per seed, in the order of hparam_check.seeds


@dataclass(frozen=True, kw_only=True, slots=True)
class Corner:
    """One corner of the grid: the rule's setting, and the smaller and larger ones along each axis."""

    name: str
    flops_budget: float
    n_params: int
    d_model: int
    lr_peak: float  # the rule's
    batch_tokens: int
    run_keys: tuple[str, ...]  # of the rule's setting, one per seed
    settings: Mapping[Axis, tuple[Setting, ...]]  # by axis, ascending, the rule's included


@dataclass(frozen=True, kw_only=True, slots=True)
class HparamCheck:
    """The corners of an experiment's grid, and their runs."""

    plan: Plan
    corners: tuple[Corner, ...]
    seeds: tuple[int, ...]


def plan_check(experiment: ExperimentConfig, dataset: Dataset, device: DeviceType = "cpu") -> HparamCheck:
    """Return the check of an experiment: the extreme sizes at its smallest and its largest budget.

    Along `lr` the batch is fixed. Along `batch` the learning rate follows its rule, as with batch_multiplier:
    another batch is judged with the learning rate that it would have been trained with.

    Raises:
        InputError: As `make_plan`.
    """
    experiment = with_precision(experiment, device)
    check = replace(experiment, seeds=experiment.hparam_check.seeds)
    grid, shapes = make_plan(check, dataset, device), grid_shapes(check, dataset, [])
    runs: dict[str, PlannedRun] = {}
    dropped: list[DroppedCell] = []
    corners = []
    for budget, model in _corner_cells(grid):
        cell = _CornerCell(check, dataset, shapes, model, budget, device)
        corners.append(cell.corner(dropped))
        runs |= {run.run_key: run for run in cell.runs}
    plan = Plan(experiment=experiment, runs=tuple(runs.values()), dropped=tuple(dropped), warnings=())
    return HparamCheck(plan=plan, corners=tuple(corners), seeds=check.seeds)


def _corner_cells(grid: Plan) -> list[tuple[float, ModelConfig]]:
    """Return budget and shape of the distinct corners."""
    budgets = {run.config.flops_budget for run in grid.runs if run.config.flops_budget is not None}
    cells = []
    for budget in (min(budgets), max(budgets)):
        at = [run for run in grid.runs if run.config.flops_budget == budget]
        for pick in (min, max):
            cells.append((budget, pick(at, key=lambda run: run.n_params).config.model))
    return list(dict.fromkeys(cells))


class _CornerCell:
    """Plans the settings of one corner and keeps their runs."""

    def __init__(
        self,
        experiment: ExperimentConfig,
        dataset: Dataset,
        shapes: list[list[ModelConfig]],
        model: ModelConfig,
        budget: float,
        device: DeviceType,
    ) -> None:
        self.device = device
        self.experiment, self.dataset, self.shapes = experiment, dataset, shapes
        self.model, self.budget = model, budget
        self.runs: list[PlannedRun] = []

    def corner(self, dropped: list[DroppedCell]) -> Corner:
        """Return the corner; settings that cannot be trained are added to `dropped`."""
        centre = self._runs(self.experiment, "centre")
        assert isinstance(centre, list)  # it is a cell of the grid
        self.runs += centre
        first = centre[0]
        settings = {axis: self._along(axis, centre, dropped) for axis in AXES}
        return Corner(
            name=cell_name(self.budget, self.model),
            flops_budget=self.budget,
            n_params=first.n_params,
            d_model=self.model.d_model,
            lr_peak=first.config.optimizer.lr_peak,
            batch_tokens=first.config.batch_tokens,
            run_keys=tuple(run.run_key for run in centre),
            settings=settings,
        )

    def _along(self, axis: Axis, centre: list[PlannedRun], dropped: list[DroppedCell]) -> tuple[Setting, ...]:
        found = [_setting(axis, centre)]
        for factor in FACTORS:
            name = f"{axis}x{factor:g}"
            varied = _varied(self.experiment, axis, factor, centre[0].config.batch_tokens)
            runs = self._runs(varied, name)
            if isinstance(runs, DroppedCell):
                dropped.append(replace(runs, name=f"{runs.name}-{name}"))
            elif runs[0].run_key == centre[0].run_key:
                cell = cell_name(self.budget, self.model)
                reason = f"{factor:g} of the {axis} rounds to the rule's setting"
                dropped.append(DroppedCell(name=f"{cell}-{name}", reason=reason))
            else:
                self.runs += runs
                found.append(_setting(axis, runs))
        return tuple(sorted(found, key=lambda setting: setting.value))

    def _runs(self, experiment: ExperimentConfig, name: str) -> list[PlannedRun] | DroppedCell:
        cell = cell_of(experiment, self.shapes, self.model, self.budget)
        runs = plan_cell(experiment, self.dataset, cell, self.device)
        return runs if isinstance(runs, DroppedCell) else [_labelled(run, name) for run in runs]


def _varied(experiment: ExperimentConfig, axis: Axis, factor: float, batch_tokens: int) -> ExperimentConfig:
    """Return `experiment` with one setting changed by `factor`; `batch_tokens` is the corner's."""
    if axis == "batch":
        return replace(experiment, batch_tokens=batch_tokens, batch_multiplier=factor)
    optimizer = experiment.optimizer
    return replace(experiment, optimizer=replace(optimizer, lr_multiplier=optimizer.lr_multiplier * factor))


def _setting(axis: Axis, runs: list[PlannedRun]) -> Setting:
    config = runs[0].config
    value = config.optimizer.lr_peak if axis == "lr" else config.batch_tokens
    return Setting(value=value, run_keys=tuple(run.run_key for run in runs))


def _labelled(run: PlannedRun, setting: str) -> PlannedRun:
    """Return the run with the labels of the check, which do not change its key."""
    parts = (cell_name(run.config.flops_budget or 0, run.config.model), setting, f"s{run.config.seed}")
    name = "-".join(filter(None, (*parts, run.config.arm)))
    return replace(run, config=replace(run.config, name=name, purpose="hparam_check"))
