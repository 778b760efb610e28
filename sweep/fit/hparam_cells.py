"""Best learning rate and batch of each cell: the minimum of a second-degree polynomial.

A cell is one N and D, trained with several learning rates or batches. ln L is a polynomial of ln lr and ln B
near the minimum.

Legend: N parameters, D tokens, B tokens per step, L loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Axis = Literal["lr", "batch"]
AXES: tuple[Axis, ...] = ("lr", "batch")

SAME_SIZE = 0.01  # in ln N: runs of one cell
SAME_TOKENS = 0.05  # in ln D: a batch that does not divide D changes it by up to a step
MIN_VALUES = 3  # of a hyperparameter in a cell
MIN_SPARE = 2  # runs of a cell's window in addition to the coefficients of its polynomial


@dataclass(frozen=True, kw_only=True, slots=True)
class CellOptimum:
    """The best learning rate and batch of one cell, or the reason why they are not known."""

    n_params: float
    n_tokens: float
    n_runs: int
    n_fitted: int  # within the window
    reason: str | None  # why the cell is not used
    optimum: dict[Axis, float]  # of the axes that vary in the cell; empty with a reason
    se: dict[Axis, float]  # standard errors of their logarithms by noise; empty where no run is left for it
    loss: float | None  # at the optimum

    @property
    def name(self) -> str:
        """The cell in words."""
        return f"N = {self.n_params:.4g}, D = {self.n_tokens:.4g}"


def cells_of(table: FloatArray) -> list[Cell]:
    """Return the cells of a table with columns N, D, lr, B and L, by N and then D."""
    groups = [rows for size in _groups(table, 0, SAME_SIZE) for rows in _groups(size, 1, SAME_TOKENS)]
    return [Cell(rows) for rows in groups]


def _groups(table: FloatArray, column: int, gap: float) -> list[FloatArray]:
    """Return groups of rows between gaps in the logarithm of a column, ascending."""
    if not len(table):
        return []
    ordered = table[np.argsort(table[:, column], kind="stable")]
    return np.split(ordered, np.flatnonzero(np.diff(np.log(ordered[:, column])) > gap) + 1)


class Cell:
    """The runs of one cell."""

    def __init__(self, rows: FloatArray) -> None:
        self.n_params, self.n_tokens = (math.exp(float(np.log(rows[:, at]).mean())) for at in (0, 1))
        self.logs: dict[Axis, FloatArray] = {"lr": np.log(rows[:, 2]), "batch": np.log(rows[:, 3])}
        self.loss = rows[:, 4]
        self.axes: tuple[Axis, ...] = tuple(axis for axis in AXES if self._n_values(axis) >= MIN_VALUES)

    def _n_values(self, axis: Axis) -> int:
        values = self.logs[axis]
        return len(np.unique(np.round(values, 3))) if np.isfinite(values).all() else 1

    def near(self, fraction: float) -> npt.NDArray[np.bool_]:
        """Return the runs with a loss within `fraction` of the lowest."""
        return np.asarray(self.loss <= (1 + fraction) * self.loss.min())

    def optimum(self, window: float) -> CellOptimum:
        """Return the minimum of the cell's polynomial."""
        found = self._minimum(window)
        reason = found if isinstance(found, str) else None
        values, errors, loss, n_fitted = found if not isinstance(found, str) else ({}, {}, None, 0)
        return CellOptimum(
            n_params=self.n_params,
            n_tokens=self.n_tokens,
            n_runs=len(self.loss),
            n_fitted=n_fitted,
            reason=reason,
            optimum=values,
            se=errors,
            loss=loss,
        )

    def _minimum(self, window: float) -> str | tuple[dict[Axis, float], dict[Axis, float], float, int]:
        rows = self._window(window)
        logs = np.stack([self.logs[axis] for axis in self.axes], axis=1)
        center = logs[rows].mean(axis=0)
        design = _polynomial(logs[rows] - center, interaction=self._has_interaction(rows))
        if np.linalg.matrix_rank(design, tol=1e-6) < design.shape[1]:
            return f"its runs do not determine a parabola in {words(self.axes)}: add values around the best"
        inverse = np.linalg.pinv(design)
        target = np.log(self.loss[rows])
        coefficients: FloatArray = np.asarray(inverse @ target, dtype=np.float64)
        slope, hessian = _derivatives(coefficients, len(self.axes))
        if np.linalg.eigvalsh(hessian).min() <= 0:
            return f"its losses have no minimum in {words(self.axes)}: add values further apart"
        vertex: FloatArray = np.asarray(-np.linalg.solve(hessian, slope), dtype=np.float64)
        for axis, place in zip(self.axes, center + vertex, strict=True):
            edge = self._edge(axis, float(place))
            if edge is not None:
                return edge
        variance = _variance(target - design @ coefficients, len(coefficients))
        by_run = -np.linalg.solve(hessian, _gradient(vertex, len(coefficients)) @ inverse)
        errors = np.sqrt((by_run**2).sum(axis=1) * variance)
        values = {axis: math.exp(float(center[at] + vertex[at])) for at, axis in enumerate(self.axes)}
        level = math.exp(float(coefficients[0] + 0.5 * slope @ vertex))
        known = {} if math.isnan(variance) else dict(zip(self.axes, map(float, errors), strict=True))
        return values, known, level, int(rows.sum())

    def _edge(self, axis: Axis, place: float) -> str | None:
        """Return the reason why a minimum at `place` is at an edge of the tried values; None if it is not."""
        logs = self.logs[axis]
        low, high, best = float(logs.min()), float(logs.max()), float(logs[int(self.loss.argmin())])
        alone = len(self.axes) == 1  # with two, the best run may be off by noise along a flat valley
        if place <= low or (alone and best == low):
            return f"its minimum is at the smallest {words((axis,))} ({math.exp(low):.4g}): add smaller ones"
        if place >= high or (alone and best == high):
            return f"its minimum is at the largest {words((axis,))} ({math.exp(high):.4g}): add larger ones"
        return None

    def _window(self, window: float) -> npt.NDArray[np.bool_]:
        """Return the runs within the window, and the next best where they do not determine a polynomial."""
        n_wanted = (1, 3, 6)[len(self.axes)] + MIN_SPARE
        kept = max(int(self.near(window).sum()), min(n_wanted, len(self.loss)))
        mask = np.zeros(len(self.loss), dtype=np.bool_)
        mask[np.argsort(self.loss, kind="stable")[:kept]] = True
        logs = np.stack([self.logs[axis] for axis in self.axes], axis=1)
        while not mask.all() and not _is_determined(logs[mask]):
            mask[int(np.where(mask, np.inf, self.loss).argmin())] = True
        return mask

    def _has_interaction(self, rows: npt.NDArray[np.bool_]) -> bool:
        """Return true for enough distinct pairs of both values to estimate an interaction."""
        if len(self.axes) < 2:
            return False
        pairs = np.stack([np.round(self.logs[axis][rows], 3) for axis in self.axes], axis=1)
        return len(np.unique(pairs, axis=0)) >= 6 + MIN_SPARE


def words(axes: Sequence[Axis]) -> str:
    """Return the names of axes for a message."""
    names = {"lr": "learning rate", "batch": "batch"}
    return " and ".join(names[axis] for axis in axes)


def _polynomial(x: FloatArray, *, interaction: bool) -> FloatArray:
    """Return the columns 1, x, x^2 for each variable of x (n, v), and their product with `interaction`."""
    columns = [np.ones((len(x), 1)), x, x**2]
    return np.hstack([*columns, x[:, :1] * x[:, 1:]] if interaction else columns)


def _is_determined(logs: FloatArray) -> bool:
    """Return true if values (n, v) determine a polynomial without interaction."""
    design = _polynomial(logs - logs.mean(axis=0), interaction=False)
    return bool(np.linalg.matrix_rank(design, tol=1e-6) == design.shape[1])


def _derivatives(coefficients: FloatArray, n: int) -> tuple[FloatArray, FloatArray]:
    """Return gradient (n,) and Hessian (n, n) of the polynomial at zero."""
    hessian = np.diag(2 * coefficients[1 + n : 1 + 2 * n])
    if len(coefficients) > 1 + 2 * n:
        hessian[0, 1] = hessian[1, 0] = coefficients[-1]
    return coefficients[1 : 1 + n], hessian


def _gradient(vertex: FloatArray, n_coefficients: int) -> FloatArray:
    """Return the derivative of the polynomial's gradient at the vertex by its coefficients, (n, p)."""
    n = len(vertex)
    found = np.hstack([np.zeros((n, 1)), np.eye(n), 2 * np.diag(vertex)])
    return np.hstack([found, vertex[::-1, None]]) if n_coefficients > 1 + 2 * n else found


def _variance(residual: FloatArray, n_coefficients: int) -> float:
    n_dof = len(residual) - n_coefficients
    return float((residual**2).sum()) / n_dof if n_dof > 0 else math.nan
