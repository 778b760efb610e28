"""Grouping of points into compute budgets: as planned, else by gaps in their FLOPs.

Legend: N parameters, C training FLOPs.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

BUDGET_GAP = 0.1  # a larger gap in ln C starts another budget, where none is given
BUDGET_SPREAD = 0.15  # largest width in ln C of a group that counts as a budget
MIN_GROUPED_FRAC = 0.6
BUDGET_MIN_SIZES = 2


def group_budgets(
    planned: FloatArray, flops: FloatArray, n_params: FloatArray
) -> tuple[IntArray, FloatArray]:
    """Return the budget index of each point, -1 for none, and the budgets in FLOPs.

    Planned budgets are used where there are any, else gaps in ln C. A group between two gaps is a budget when
    it is narrow, also relative to its distance to the next point. Where most points are in no such group, the
    few groups are taken as chance and there are no budgets.
    """
    index = np.full(len(flops), -1, np.int64)
    if not np.isnan(planned).all():
        budgets, inverse = np.unique(planned[~np.isnan(planned)], return_inverse=True)
        index[~np.isnan(planned)] = inverse
        return index, budgets
    log_c = np.log(flops)
    order = np.argsort(log_c, kind="stable")
    gaps = np.diff(log_c[order])
    budgets_found: list[float] = []
    for rows in np.split(order, np.flatnonzero(gaps > BUDGET_GAP) + 1) if len(order) else []:
        low, high = float(log_c[rows].min()), float(log_c[rows].max())
        others = np.delete(log_c, rows)
        isolation = float(np.minimum(np.abs(others - low), np.abs(others - high)).min(initial=np.inf))
        tight = high - low <= min(BUDGET_SPREAD, isolation)
        if tight and len(np.unique(n_params[rows])) >= BUDGET_MIN_SIZES:
            index[rows] = len(budgets_found)
            budgets_found.append(math.exp(float(log_c[rows].mean())))
    if (index >= 0).sum() < MIN_GROUPED_FRAC * len(flops):
        return np.full(len(flops), -1, np.int64), np.empty(0)
    return index, np.array(budgets_found)
