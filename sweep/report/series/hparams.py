"""Hyperparameter check: loss at half and twice the settings of the rules, at each corner of the grid."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweep.plan.hparam_check import Axis
from sweep.report.hparams import AxisCheck, CornerCheck, HparamReport
from sweep.report.results import SweepResults

FloatArray = npt.NDArray[np.float64]

N_PARABOLA = 61


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class HparamCurve:
    """One corner along one axis; all losses are relative to the loss at the rule's value, nats per token."""

    corner: str
    flops_budget: float
    is_small: bool  # the smaller size at its budget
    axis: Axis
    factor: FloatArray  # (3,) values over the rule's value
    difference: FloatArray  # (3,) means over seeds
    stderr: FloatArray  # (3,) of the differences; 0 at the rule's value and with one seed
    parabola_factor: FloatArray  # (N_PARABOLA,)
    parabola: FloatArray  # (N_PARABOLA,)
    best: tuple[float, float] | None  # factor and difference at the minimum, if it is usable


def hparam_curves(results: SweepResults) -> tuple[HparamCurve, ...]:
    """Return the curves of the sweep's hyperparameter check; empty without one."""
    return () if results.hparams is None else check_curves(results.hparams)


def check_curves(report: HparamReport) -> tuple[HparamCurve, ...]:
    """Return a curve for every corner and axis with a result for each of its settings."""
    smallest: dict[float, int] = {}
    for corner in report.corners:
        budget = corner.flops_budget
        smallest[budget] = min(corner.n_params, smallest.get(budget, corner.n_params))
    curves = (
        _curve(corner, check, corner.n_params == smallest[corner.flops_budget])
        for corner in report.corners
        for check in corner.axes
    )
    return tuple(curve for curve in curves if curve is not None)


def _curve(corner: CornerCheck, check: AxisCheck, is_small: bool) -> HparamCurve | None:
    found = check.found
    if found.slope is None or found.curvature is None:
        return None
    losses = np.array([row for row in check.losses if None not in row], dtype=np.float64)
    differences = losses - losses[:, [check.values.index(check.rule)]]
    factor = np.array(check.values) / check.rule
    x = np.linspace(math.log(factor[0]), math.log(factor[-1]), N_PARABOLA)
    spread = differences.std(axis=0, ddof=1) if len(losses) > 1 else np.zeros(len(factor))
    best = None
    if found.factor_opt is not None and found.loss_left is not None:
        best = (found.factor_opt, -found.loss_left)
    return HparamCurve(
        corner=corner.name,
        flops_budget=corner.flops_budget,
        is_small=is_small,
        axis=check.axis,
        factor=factor,
        difference=differences.mean(axis=0),
        stderr=spread / math.sqrt(len(losses)),
        parabola_factor=np.exp(x),
        parabola=found.slope * x + 0.5 * found.curvature * x**2,
        best=best,
    )
