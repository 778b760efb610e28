"""The numbers of the figure of a hyperparameter check: losses about the rule's value, and their parabolas."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweep.plan.hparam_check import Axis
from sweep.report.hparams import CornerCheck, HparamReport

FloatArray = npt.NDArray[np.float64]
N_PARABOLA = 61


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class HparamCurve:
    """One corner along one axis; all losses less the loss at the rule's value, nats per token."""

    corner: str
    flops_budget: float
    is_small: bool  # the smaller size of its budget
    axis: Axis
    factor: FloatArray  # (3,) of the rule's value
    difference: FloatArray  # (3,) means over seeds
    stderr: FloatArray  # (3,) of the differences, 0 at the rule's value and with one seed
    parabola_factor: FloatArray
    parabola: FloatArray
    best: tuple[float, float] | None  # factor and difference at the minimum, where it counts


def hparam_curves(report: HparamReport) -> list[HparamCurve]:
    """A curve for every corner and axis whose settings all have a result."""
    curves = []
    for corner in report.corners:
        sizes = [other.n_params for other in report.corners if other.flops_budget == corner.flops_budget]
        curves += _curves(corner, corner.n_params == min(sizes))
    return curves


def _curves(corner: CornerCheck, is_small: bool) -> list[HparamCurve]:
    curves = []
    for check in corner.axes:
        found = check.found
        if found.slope is None or found.curvature is None:
            continue
        losses = np.array([row for row in check.losses if None not in row], dtype=np.float64)
        differences = losses - losses[:, [check.values.index(check.rule)]]
        factor = np.array(check.values) / check.rule
        x = np.linspace(math.log(factor[0]), math.log(factor[-1]), N_PARABOLA)
        spread = differences.std(axis=0, ddof=1) if len(losses) > 1 else np.zeros(len(factor))
        best = None
        if found.factor_opt is not None and found.loss_left is not None:
            best = (found.factor_opt, -found.loss_left)
        curves.append(
            HparamCurve(
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
        )
    return curves
