"""Two arms of a comparison: their minima by budget, and the noise that matching runs share.

Legend: N parameters, D tokens, C training FLOPs, L loss.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweep.config import FitConfig
from sweep.fit.methods.isoflop import CHOICE_SD_LOSS, CHOICE_SD_N, Minima, budget_sd, find_minima
from sweep.fit.methods.parabola import Parabola
from sweep.fit.methods.windows import SMALLEST_SD, Outlier, name_outliers
from sweep.fit.refusals import RefusedError
from sweep.fit.table.observations import Observations, observe
from sweep.fit.table.points import Table
from sweep.records import Point

FloatArray = npt.NDArray[np.float64]

SHARED_SD_LOSS, OWN_SD_LOSS = 1e-3, 2e-4
"""Of ln L at a minimum, by the choice of its sizes and the form of its curve, where the other arm has one
at the same budget: the part that both arms share, and that of each. Elsewhere it is CHOICE_SD_LOSS. Chosen by
coverage and width, scripts/benchmarks/compare_coverage.py."""
SAME_BUDGET = 0.02  # largest difference in ln C of two minima, or runs, at one budget
SAME_SIZE = 0.1  # largest difference in ln N of two matching runs: arms of other shapes have other sizes
MIN_RUNS = 7  # of each budget, from which outliers are left out: of five, noise makes one in many sweeps
MIN_PAIRS = 6  # with fewer, the noise of matching runs counts as independent
PRIOR_PAIRS = 1  # pairs without correlation that count next to those observed
MAX_CORRELATION = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """The runs of one side of a comparison."""

    name: str
    points: Sequence[Point]
    excluded: Mapping[str, str] = dataclasses.field(default_factory=dict)  # run key or name → reason


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ArmMinima:
    """The minima of an arm's m budgets, and their sensitivity to the noise of its n runs."""

    name: str
    observations: Observations
    seeds: tuple[int | None, ...]  # of the n runs
    log_c: FloatArray  # (m,) ascending
    log_loss: FloatArray  # (m,)
    log_n: FloatArray  # (m,)
    by_loss: FloatArray  # (m, n) derivative of ln L at a minimum by ln L of a run
    by_size: FloatArray  # (m, n) derivative of ln N at a minimum by ln L of a run
    residual: FloatArray  # (n,) of ln L about the parabola; nan outside of the windows
    sd: FloatArray  # (n,) of ln L of a run; 0 outside of the windows
    n_dof: int  # of the residuals
    outliers: tuple[Outlier, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PairedMinima:
    """The minima of both arms, A first, with one covariance by noise and choice of sizes."""

    a: ArmMinima
    b: ArmMinima
    n_pairs: int  # runs of A with a match in B: equal budget, size and seed
    correlation: float  # of the noise of matching runs
    covariance: FloatArray  # (2 (ma + mb),) squared: of ln L at all minima, then of ln N
    n_dof: int  # of the estimate of noise

    @property
    def log_c(self) -> FloatArray:
        """Ln C of all minima, (ma + mb,)."""
        return np.concatenate([self.a.log_c, self.b.log_c])

    @property
    def is_b(self) -> npt.NDArray[np.bool_]:
        """True for the minima of B, (ma + mb,)."""
        return np.arange(len(self.log_c)) >= len(self.a.log_c)

    @property
    def values(self) -> FloatArray:
        """Ln L at all minima, then ln N, (2 (ma + mb),)."""
        return np.concatenate([self.a.log_loss, self.b.log_loss, self.a.log_n, self.b.log_n])


def arm_minima(arm: Arm, config: FitConfig) -> ArmMinima:
    """Find the minimum of each budget of an arm, without outliers where every budget has MIN_RUNS runs.

    Raises:
        InputError: the points are not a usable table.
        RefusedError: the points cannot be fitted together, or fewer than three budgets have a minimum.
    """
    observations = observe(
        arm.points,
        arm.excluded,
        filters=config.filters,
        allow_mixed_schedules=config.allow_mixed_schedules,
    )
    if observations.refusal is not None:
        raise RefusedError(observations.refusal.kind, observations.refusal.reason)
    robust = config.isoflop.robust or _shows_outliers(observations)
    found = find_minima(observations, dataclasses.replace(config.isoflop, robust=robust))
    by_loss, by_size, residual, sd = _sensitivities(observations, found)
    left_out = [budget for budget in found.budgets if budget.status != "ok"]
    points = by_label(arm.points)
    log_n, _, loss = found.table
    return ArmMinima(
        name=arm.name,
        observations=observations,
        seeds=tuple(points[label].seed for label in observations.labels),
        log_c=found.log_c,
        log_loss=np.log(loss),
        log_n=log_n,
        by_loss=by_loss,
        by_size=by_size,
        residual=residual,
        sd=sd,
        n_dof=found.residual_dof,
        outliers=name_outliers(observations, found.selection.outliers),
        warnings=tuple(f"budget {budget.flops:.3g} is not used: {budget.reason}" for budget in left_out),
    )


def _shows_outliers(observations: Observations) -> bool:
    """Return true if every budget has enough runs to tell an outlier from noise."""
    counts = np.bincount(observations.budget[observations.budget >= 0])
    return bool(len(counts) and counts.min() >= MIN_RUNS)


def pair(a: ArmMinima, b: ArmMinima, *, paired: bool = True) -> PairedMinima:
    """Return the minima of both arms with their covariance; without `paired`, all noise is independent."""
    match = _matches(a, b)
    correlation = _correlation(a, b, match) if paired else 0.0
    shared = correlation * match * np.outer(a.sd, b.sd)
    by_a, by_b = np.concatenate([a.by_loss, a.by_size]), np.concatenate([b.by_loss, b.by_size])
    own_a, own_b, cross = by_a * a.sd @ (by_a * a.sd).T, by_b * b.sd @ (by_b * b.sd).T, by_a @ shared @ by_b.T
    n_a, n_b = len(a.log_c), len(b.log_c)
    order = np.r_[0:n_a, 2 * n_a : 2 * n_a + n_b, n_a : 2 * n_a, 2 * n_a + n_b : 2 * (n_a + n_b)]
    by_noise = np.block([[own_a, cross], [cross.T, own_b]])[np.ix_(order, order)]
    return PairedMinima(
        a=a,
        b=b,
        n_pairs=int(match.sum()),
        correlation=correlation,
        covariance=by_noise + _choice(a, b, paired=paired),
        n_dof=a.n_dof + b.n_dof,
    )


def _sensitivities(
    observations: Observations, found: Minima
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return `by_loss`, `by_size`, `residual` and `sd` of `ArmMinima`."""
    n, counted = len(observations), found.counted
    by_loss, by_size = np.zeros((len(counted), n)), np.zeros((len(counted), n))
    residual, sd = np.full(n, np.nan), np.zeros(n)
    for row, budget in enumerate(counted):
        rows, parabola = found.selection.windows[budget.index], budget.parabola
        assert parabola is not None
        t = np.log(observations.n_params[rows]) - parabola.center
        inverse = np.linalg.pinv(np.vander(t, 3, increasing=True)) * observations.loss[rows]
        _, c1, c2 = parabola.coefficients
        vertex, level = (float(x) for x in Parabola.vertex(np.array(parabola.coefficients)))
        by_loss[row, rows] = np.array([1.0, vertex, vertex**2]) @ inverse / level
        by_size[row, rows] = np.array([0.0, -1 / (2 * c2), c1 / (2 * c2**2)]) @ inverse
        residual[rows] = np.log(observations.loss[rows] / parabola.loss(observations.n_params[rows]))
        sd[rows] = max(budget_sd(parabola, found.residual_sd), SMALLEST_SD)
    return by_loss, by_size, residual, sd


def by_label(points: Sequence[Point]) -> dict[str, Point]:
    """Return the points by the labels that observations give them."""
    rows = points.rows if isinstance(points, Table) else [f"row {row}" for row in range(1, len(points) + 1)]
    return {point.run_key or point.name or row: point for point, row in zip(points, rows, strict=True)}


def _matches(a: ArmMinima, b: ArmMinima) -> FloatArray:
    """Return 1 for each pair of runs, one of each arm, with equal budget, size and seed; (na, nb).

    A run has at most one match.
    """
    match = np.zeros((len(a.sd), len(b.sd)))
    used: set[int] = set()
    log_c, log_n = np.log(b.observations.flops), np.log(b.observations.n_params)
    for row in np.flatnonzero(a.sd).tolist():
        distance_c = np.abs(log_c - math.log(a.observations.flops[row]))
        distance_n = np.abs(log_n - math.log(a.observations.n_params[row]))
        near = np.flatnonzero((distance_c <= SAME_BUDGET) & (distance_n <= SAME_SIZE) & (b.sd > 0))
        same = [at for at in near.tolist() if b.seeds[at] == a.seeds[row] and at not in used]
        if same:
            best = min(same, key=lambda at: float(distance_n[at]))
            match[row, best] = 1.0
            used.add(best)
    return match


def _correlation(a: ArmMinima, b: ArmMinima, match: FloatArray) -> float:
    """Return the correlation of the residuals of matching runs, shrunk to 0 and not below it."""
    rows_a, rows_b = np.nonzero(match)
    n_pairs = len(rows_a)
    if n_pairs < MIN_PAIRS:
        return 0.0
    one, other = a.residual[rows_a] / a.sd[rows_a], b.residual[rows_b] / b.sd[rows_b]
    norm = math.sqrt(float(one @ one) * float(other @ other))
    if norm == 0.0:
        return 0.0
    found = float(one @ other) / norm * n_pairs / (n_pairs + PRIOR_PAIRS)
    return float(np.clip(found, 0.0, MAX_CORRELATION))


def _choice(a: ArmMinima, b: ArmMinima, *, paired: bool) -> FloatArray:
    """Return the covariance of the minima by the choice of sizes and the form of the curves."""
    log_c = np.concatenate([a.log_c, b.log_c])
    n, n_a = len(log_c), len(a.log_c)
    loss = np.diag(np.full(n, CHOICE_SD_LOSS**2))
    if paired:
        side = np.arange(n) < n_a
        same = np.abs(np.subtract.outer(log_c, log_c)) <= SAME_BUDGET
        shared = same & (side[:, None] != side)
        loss[shared] = SHARED_SD_LOSS**2
        matched = np.flatnonzero(shared.any(axis=1))
        loss[matched, matched] = SHARED_SD_LOSS**2 + OWN_SD_LOSS**2
    return np.block([[loss, np.zeros((n, n))], [np.zeros((n, n)), np.diag(np.full(n, CHOICE_SD_N**2))]])
