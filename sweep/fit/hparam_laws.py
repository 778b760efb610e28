"""Power laws of the best learning rate and batch: a parabola in each cell, a law through the optima.

A cell is one N and D, trained with several learning rates or batches. ln L is a second-degree polynomial of
ln lr and ln B near the minimum. The laws have the forms of Step Law (Li et al. 2025, arXiv:2503.04715,
equation 1): lr = c N^a D^b and B = c D^b.

Legend: N parameters, D tokens, B tokens per step, L loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sweep.fit.hparam_cells import AXES, MIN_VALUES, Axis, Cell, CellOptimum, cells_of, words
from sweep.fit.laws.base import BoundedEstimate, percentiles
from sweep.fit.laws.encoding import to_plain
from sweep.fit.refusals import RefusedError
from sweep.records import Point

FloatArray = npt.NDArray[np.float64]
Counting = Literal["N", "N_non_embedding"]

SCHEMA_VERSION = 1
WINDOW = 0.02
"""Runs of a cell with a loss within this fraction of its lowest determine the minimum. Beyond, the loss rises
faster than a parabola towards high rates."""
NEAR_BEST = 0.0025
"""The fraction within which Li et al. 2025 take every run as an optimum."""
MIN_CELLS = 3  # more than there are coefficients in a law: one is left to estimate the scatter
MIN_FREEDOM = 3  # more cells than coefficients, from which the cells are resampled
COLLINEAR = 0.98  # correlation of ln N and ln D from which one exponent alone is fitted
SMALLEST_SE = 0.02  # of ln lr or ln B at a minimum
MAX_LISTED = 3  # cells that a refusal lists
SETTINGS = {
    "optimizer": "optimizers",
    "schedule": "schedules",
    "parametrization": "parametrizations",
    "seq_len": "sequence lengths",
    "tokenizer": "tokenizers",
    "tokenizer_sha256": "tokenizers",
    "corpus_sha256": "corpora",
    "evaluation_sha256": "evaluation windows",
}
"""Columns in which the runs must agree, with their plural."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HparamLaw:
    """value = c N^a D^b; an exponent of None is not part of the law."""

    axis: Axis
    log_factor: float  # ln c
    n_exponent: BoundedEstimate | None
    d_exponent: BoundedEstimate | None
    scatter: float  # standard deviation of the logarithms of the optima about the law
    n_cells: int
    counting: Counting
    n_range: tuple[float, float]  # of the cells
    d_range: tuple[float, float]
    near_best: tuple[float, ...] | None  # exponents through all near-best runs, in the order N, D
    notes: tuple[str, ...]

    @property
    def rule(self) -> str:
        """The law as a rule of an experiment, such as "1.79 * N^-0.713 * D^0.307"."""
        terms = [f"{math.exp(self.log_factor):.4g}"]
        if self.n_exponent is not None:
            terms.append(f"{self.counting}^{self.n_exponent.value:.4g}")
        if self.d_exponent is not None:
            terms.append(f"D^{self.d_exponent.value:.4g}")
        return " * ".join(terms)

    def at(self, n_params: float, n_tokens: float) -> float:
        """Return the value at N and D."""
        log_value = self.log_factor
        for exponent, size in ((self.n_exponent, n_params), (self.d_exponent, n_tokens)):
            log_value += 0.0 if exponent is None else exponent.value * math.log(size)
        return math.exp(log_value)


@dataclass(frozen=True, kw_only=True, slots=True)
class HparamLaws:
    """The laws fitted to one set of runs, and their cells."""

    cells: tuple[CellOptimum, ...]  # by N, then D
    laws: dict[Axis, HparamLaw]
    refused: dict[Axis, str]  # reasons of axes that vary and have no law
    confidence: float

    @property
    def rules(self) -> dict[str, str]:
        """The rules by the key of an experiment that takes them."""
        keys: dict[Axis, str] = {"lr": "optimizer.lr", "batch": "batch_tokens"}
        return {keys[axis]: law.rule for axis, law in self.laws.items()}

    def to_json(self) -> dict[str, Any]:
        """Return the content of hparam_laws.json."""
        return {
            "schema_version": SCHEMA_VERSION,
            "rules": self.rules,
            "confidence": self.confidence,
            "laws": {axis: {**to_plain(law), "rule": law.rule} for axis, law in self.laws.items()},
            "refused": dict(self.refused),
            "cells": to_plain(self.cells),
        }


def fit_hparam_laws(
    points: Sequence[Point],
    *,
    window: float = WINDOW,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> HparamLaws:
    """Fit the laws to finished runs with `lr_peak` and `batch_tokens`, by a bootstrap over cells.

    N is counted without embeddings if every run has that count. A cell with its minimum at an edge of the
    tried values is not used.

    Raises:
        RefusedError: runs that differ in other settings, no cell with several values, or no law at all.
    """
    runs = [point for point in points if point.status == "done" and point.loss]
    if not runs:
        raise RefusedError("no_points", "no finished run with a loss: give a sweep with runs, or a table")
    _check_settings(runs)
    counting: Counting = "N_non_embedding" if all(run.n_params_non_embedding for run in runs) else "N"
    cells = cells_of(_table(runs, counting))
    varied = [axis for axis in AXES if any(axis in cell.axes for cell in cells)]
    if not varied:
        raise RefusedError(
            "too_few_points",
            f"no cell of equal N and D has {MIN_VALUES} learning rates or batches: train some, as with "
            f"arms={{optimizer.lr_multiplier: [0.5, 1, 2]}}",
        )
    found = [cell.optimum(window) for cell in cells if cell.axes]
    rng = np.random.default_rng(seed)
    laws: dict[Axis, HparamLaw] = {}
    refused: dict[Axis, str] = {}
    for axis in varied:
        used = [(cell, one) for cell, one in zip((c for c in cells if c.axes), found, strict=True)]
        try:
            laws[axis] = _fit_law(axis, used, counting, n_bootstrap, confidence, rng)
        except RefusedError as error:
            refused[axis] = error.refusal.reason
    if not laws:
        raise RefusedError("too_few_points", refused[varied[0]])
    return HparamLaws(cells=tuple(found), laws=laws, refused=refused, confidence=confidence)


def _check_settings(runs: Sequence[Point]) -> None:
    for field, plural in SETTINGS.items():
        values = {value for run in runs if (value := getattr(run, field)) is not None}
        if len(values) > 1:
            shown = ", ".join(sorted(str(value)[:12] for value in values))
            raise RefusedError(
                "mixed_data",
                f"the runs have {len(values)} {plural} ({field} {shown}), which have laws of their own: "
                f"select one in the table of points with --where '{field} == \"{min(map(str, values))}\"'",
            )


def _table(runs: Sequence[Point], counting: Counting) -> FloatArray:
    """Return N, D, lr, B and L of the runs that have all of them, (n, 5)."""
    sizes = [run.n_params if counting == "N" else run.n_params_non_embedding for run in runs]
    rows = [
        (size, run.n_tokens, run.lr_peak, run.batch_tokens or math.nan, run.loss)
        for size, run in zip(sizes, runs, strict=True)
        if size and run.n_tokens and run.lr_peak
    ]
    return np.array(rows, dtype=np.float64).reshape(-1, 5)


def _fit_law(
    axis: Axis,
    cells: Sequence[tuple[Cell, CellOptimum]],
    counting: Counting,
    n_bootstrap: int,
    confidence: float,
    rng: np.random.Generator,
) -> HparamLaw:
    """Fit the law of one axis through the optima of the cells that have one."""
    used = [(cell, one) for cell, one in cells if axis in one.optimum]
    sizes = np.log([[one.n_params, one.n_tokens] for _, one in used]).reshape(-1, 2)
    columns, notes = _columns(axis, sizes)
    if len(used) < MIN_CELLS or len(used) < 2 + len(columns):
        left_out = [one for cell, one in cells if axis in cell.axes and axis not in one.optimum]
        listed = "; ".join(f"{one.name}: {one.reason}" for one in left_out[:MAX_LISTED])
        raise RefusedError(
            "too_few_points",
            f"{len(used)} cells have a minimum in {words((axis,))}, and "
            f"{max(MIN_CELLS, 2 + len(columns))} are needed"
            + (f" ({listed})" if listed else "")
            + ": add values, or cells of other N and D",
        )
    target = np.log([one.optimum[axis] for _, one in used])
    known = np.array([one.se.get(axis, math.nan) for _, one in used])
    errors = np.maximum(np.where(np.isnan(known), np.nanmax([*known, SMALLEST_SE]), known), SMALLEST_SE)
    design = np.column_stack([np.ones(len(used)), sizes[:, columns]])
    line = _through(design, target, errors)
    draws = _draws(design, target, errors, n_bootstrap, rng)
    exponents: list[BoundedEstimate | None] = [None, None]
    for at, column in enumerate(columns):
        low, high = percentiles(draws[:, 1 + at], confidence)
        exponents[column] = BoundedEstimate(
            value=float(line.coefficients[1 + at]), interval=(float(low), float(high))
        )
    return HparamLaw(
        axis=axis,
        log_factor=float(line.coefficients[0]),
        n_exponent=exponents[0],
        d_exponent=exponents[1],
        scatter=line.scatter,
        n_cells=len(used),
        counting=counting,
        n_range=_range(sizes[:, 0]),
        d_range=_range(sizes[:, 1]),
        near_best=_near_best(axis, [cell for cell, _ in used], columns),
        notes=notes,
    )


def _range(logs: FloatArray) -> tuple[float, float]:
    return math.exp(float(logs.min())), math.exp(float(logs.max()))


def _columns(axis: Axis, sizes: FloatArray) -> tuple[list[int], tuple[str, ...]]:
    """Return the columns of (ln N, ln D) in the law, and notes about those left out."""
    varies = [len(np.unique(np.round(sizes[:, at], 2))) > 1 for at in (0, 1)]
    if axis == "batch" and varies[1]:
        return [1], ()
    columns = [at for at in (0, 1) if varies[at]]
    if len(columns) == 2:
        correlation = float(np.asarray(np.corrcoef(sizes.T))[0, 1])
        if abs(correlation) > COLLINEAR:
            return [0], ("N and D grow together in these cells, so the exponent of N holds for both",)
    names = [f"all cells have one {name}" for name, has in zip("ND", varies, strict=True) if not has]
    return columns, tuple(f"{name}: the law does not cover its effect" for name in names)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Line:
    """A law fitted by weighted least squares, in logarithms."""

    coefficients: FloatArray  # (p,)
    covariance: FloatArray  # (p, p)
    between: float  # variance between cells that noise does not explain
    scatter: float  # standard deviation about the law


def _through(design: FloatArray, target: FloatArray, errors: FloatArray) -> _Line:
    """Fit by weighted least squares.

    Weights are inverse variances by noise plus the scatter between cells that noise does not explain, by the
    method of moments (DerSimonian & Laird 1986).
    """
    plain = np.linalg.lstsq(design, target, rcond=None)[0]
    n_dof = max(len(target) - design.shape[1], 1)
    observed = float(((target - design @ plain) ** 2).sum()) / n_dof
    between = max(observed - float((errors**2).mean()), 0.0)
    weights = 1 / np.sqrt(errors**2 + between)
    inverse = np.linalg.pinv(design * weights[:, None])
    coefficients = inverse @ (target * weights)
    scatter = math.sqrt(float(((target - design @ coefficients) ** 2).sum()) / n_dof)
    return _Line(coefficients=coefficients, covariance=inverse @ inverse.T, between=between, scatter=scatter)


def _draws(
    design: FloatArray, target: FloatArray, errors: FloatArray, n_draws: int, rng: np.random.Generator
) -> FloatArray:
    """Return coefficients (k, p) over resamples of the cells, deviations scaled by sqrt(n / chi^2_(n-p)).

    Residuals of few cells are too small by sqrt(n / (n - p)), and their scale is uncertain: Student's t.
    With fewer than MIN_FREEDOM more cells than coefficients, resamples do not determine the law, and draws
    come from its covariance: normal where noise explains the scatter, else Student's t.
    """
    n, p = design.shape
    line = _through(design, target, errors)
    if n - p < MIN_FREEDOM:
        normal = rng.standard_normal((n_draws, p)) @ np.linalg.cholesky(line.covariance).T
        t = np.sqrt((n - p) / rng.chisquare(n - p, n_draws)) if line.between > 0 else np.ones(n_draws)
        return np.asarray(line.coefficients + normal * t[:, None])
    found = []
    for _ in range(n_draws):
        rows = rng.integers(0, n, n)
        if np.linalg.matrix_rank(design[rows], tol=1e-6) == p and len(np.unique(rows)) > p:
            found.append(_through(design[rows], target[rows], errors[rows]).coefficients)
    draws = np.array(found).reshape(-1, p) if found else line.coefficients[None]
    scale = np.sqrt(n / rng.chisquare(n - p, len(draws)))
    return np.asarray(line.coefficients + (draws - line.coefficients) * scale[:, None])


def _near_best(axis: Axis, cells: Sequence[Cell], columns: Sequence[int]) -> tuple[float, ...] | None:
    """Return exponents by least squares through all runs within NEAR_BEST of their cell's lowest loss."""
    rows, values = [], []
    for cell in cells:
        near = cell.logs[axis][cell.near(NEAR_BEST)]
        values += near.tolist()
        rows += [[1.0, *(math.log((cell.n_params, cell.n_tokens)[at]) for at in columns)]] * len(near)
    design = np.array(rows)
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return None
    return tuple(np.linalg.lstsq(design, np.array(values), rcond=None)[0][1:].tolist())
