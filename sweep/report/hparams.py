"""Results of a hyperparameter check by corner: the content of hparams.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from sweep.errors import InputError
from sweep.fit.checks.hparam_gap import TOLERANCE, LeftOnTable, left_on_table
from sweep.plan.hparam_check import AXES, Axis, Corner, HparamCheck
from sweep.report.hparam_summary import SCHEMA_VERSION


@dataclass(frozen=True, kw_only=True, slots=True)
class AxisCheck:
    """One hyperparameter at one corner."""

    axis: Axis
    rule: float  # the rule's value: peak learning rate, or tokens per step
    values: tuple[float, ...]  # ascending, the rule's value included
    losses: tuple[tuple[float | None, ...], ...]  # by seed and value, nats per token; None without a result
    found: LeftOnTable


@dataclass(frozen=True, kw_only=True, slots=True)
class CornerCheck:
    """One corner of the grid."""

    name: str
    flops_budget: float
    n_params: int
    d_model: int
    axes: tuple[AxisCheck, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class HparamReport:
    """The check of one experiment, or of one of its arms."""

    experiment: str
    arm: str | None
    seeds: tuple[int, ...]
    grid_runs: dict[str, str]  # run keys of the rule's own setting by their names in the grid
    corners: tuple[CornerCheck, ...]

    def worst(self) -> tuple[CornerCheck, AxisCheck] | None:
        """Return the corner and hyperparameter with the largest known loss gap; None if none is known."""
        pairs = [(corner, axis) for corner in self.corners for axis in corner.axes]
        known = [pair for pair in pairs if pair[1].found.loss_left is not None]
        return max(
            known, key=lambda pair: (not pair[1].found.within, pair[1].found.loss_left or 0.0), default=None
        )

    def to_json(self) -> dict[str, Any]:
        """Return its entry in hparams.json."""
        worst, budgets = self.worst(), [corner.flops_budget for corner in self.corners]
        axes = [axis for corner in self.corners for axis in corner.axes]
        return {
            "arm": self.arm,
            "within_tolerance": all(axis.found.within for axis in axes),
            "worst": None if worst is None else _worst_entry(*worst),
            "n_corners": len(self.corners),
            "n_incomplete": sum(axis.found.loss_left is None for axis in axes),  # of the corners' axes
            "flops_range": [min(budgets), max(budgets)],
            **asdict(self),
        }


def measure(check: HparamCheck, losses: Mapping[str, float | None]) -> HparamReport:
    """Evaluate the runs of a check; `losses` are held-out losses in nats per token by run key."""
    experiment = check.plan.experiment
    arm = f"-{experiment.arm}" if experiment.arm else ""
    return HparamReport(
        experiment=experiment.name,
        arm=experiment.arm,
        seeds=check.seeds,
        grid_runs={
            f"{corner.name}-s{seed}{arm}": key
            for corner in check.corners
            for seed, key in zip(check.seeds, corner.run_keys, strict=True)
        },
        corners=tuple(_corner(corner, losses) for corner in check.corners),
    )


def _corner(corner: Corner, losses: Mapping[str, float | None]) -> CornerCheck:
    return CornerCheck(
        name=corner.name,
        flops_budget=corner.flops_budget,
        n_params=corner.n_params,
        d_model=corner.d_model,
        axes=tuple(_axis(corner, axis, losses) for axis in AXES),
    )


def _axis(corner: Corner, axis: Axis, losses: Mapping[str, float | None]) -> AxisCheck:
    """Evaluate one axis over the seeds that have a loss at every value."""
    settings = corner.settings[axis]
    table = [[losses.get(key) for key in setting.run_keys] for setting in settings]
    by_seed = tuple(zip(*table, strict=True))
    rule = corner.lr_peak if axis == "lr" else float(corner.batch_tokens)
    values = tuple(setting.value for setting in settings)
    complete = [row for row in by_seed if None not in row]
    found = left_on_table(values, rule, np.array(complete, dtype=np.float64))
    return AxisCheck(axis=axis, rule=rule, values=values, losses=by_seed, found=found)


def _worst_entry(corner: CornerCheck, axis: AxisCheck) -> dict[str, Any]:
    found = axis.found
    numbers = {"loss_left": found.loss_left, "stderr": found.stderr, "status": found.status}
    return {"corner": corner.name, "axis": axis.axis, **numbers, "within": found.within}


def document(reports: Sequence[HparamReport]) -> dict[str, Any]:
    """Return hparams.json as plain JSON types."""
    return {
        "schema_version": SCHEMA_VERSION,
        "tolerance": TOLERANCE,
        "checks": [report.to_json() for report in reports],
    }


def read_reports(content: Mapping[str, Any]) -> tuple[HparamReport, ...]:
    """Return the reports in an hparams.json, the inverse of `document`.

    Raises:
        InputError: the content has another schema version or is invalid.
    """
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        raise InputError(
            f"hparams.json has schema_version={version!r} instead of {SCHEMA_VERSION}: "
            f"run sweep check-hparams to write it again"
        )
    known = HparamReport.__dataclass_fields__
    try:
        checks = [{key: value for key, value in check.items() if key in known} for check in content["checks"]]
        return TypeAdapter(tuple[HparamReport, ...]).validate_python(checks)
    except (ValidationError, KeyError, AttributeError, TypeError) as error:
        raise InputError(
            f"hparams.json is invalid ({type(error).__name__}): run sweep check-hparams to write it again"
        ) from None
