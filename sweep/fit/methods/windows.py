"""Selection of the runs that determine the minimum of each IsoFLOP curve: windows and outliers.

A parabola in ln N approximates a loss curve only near its minimum. A window holds the sizes around the
minimum within which a cubic term is not significant; sizes outside it would bend the parabola and move its
vertex (Hoffmann et al. 2022, figure 3; Porian et al. 2024 fit seven sizes around each minimum).

Legend: N parameters, L loss; x = ln N less its mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from sweep.config.fitting import Window
from sweep.fit.table.observations import Observations

FloatArray = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

MIN_WINDOW = 5  # sizes a window keeps: with four, one residual is left
SIGNIFICANT = 2.0  # standard errors of the cubic term
PRIOR_DOF = 4  # degrees of freedom that the pooled variance counts for next to a budget's own residuals
SMALLEST_SD = 7e-4  # of ln L; seeds of small decoders differ by .001 to .01, digitised losses by about this
MAX_OWN_VARIANCE = (
    2.0  # times the pooled one: noise may differ between budgets, and an outlier must not hide in it
)
SUSPECT = 3.0  # times the pooled variance: budgets below it, with all sizes in their window, have no outlier
OUTLYING = 6.0  # robust standard deviations
NORMAL_MAD = 0.6745  # median absolute value of a standard normal variable
MAX_PASSES = 10


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BudgetCurve:
    """The runs of one budget, arrays of shape (n,); curves of equal content are equal."""

    log_n: FloatArray
    loss: FloatArray

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BudgetCurve) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)

    @property
    def _content(self) -> tuple[bytes, bytes]:
        return self.log_n.tobytes(), self.loss.tobytes()

    def sizes(self, rows: Mask) -> FloatArray:
        """Return the distinct ln N among `rows`, ascending."""
        return np.unique(self.log_n[rows])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Polynomial:
    """Least-squares polynomial of L in x over some runs of a budget.

    `coefficients` are lowest order first; `leverage` is the diagonal of the projection, one per fitted run.
    """

    center: float
    coefficients: FloatArray
    covariance: FloatArray  # of the coefficients per unit variance of L
    residual: FloatArray  # relative: (L - fit) / fit
    leverage: FloatArray

    @property
    def n_dof(self) -> int:
        """Residual degrees of freedom."""
        return len(self.residual) - len(self.coefficients)

    @property
    def squares(self) -> float:
        """Sum of squared relative residuals."""
        return float(self.residual @ self.residual)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RunSelection:
    """The runs that each budget's parabola is fitted to, masks of shape (n,) over the points."""

    windows: tuple[Mask, ...]  # one for each budget, without the outliers
    outliers: Mask

    def of_budget(self, observations: Observations, index: int) -> Mask:
        """Return the runs of budget `index` that are not outliers."""
        return np.asarray((observations.budget == index) & ~self.outliers)


@lru_cache(maxsize=32)
def select_runs(observations: Observations, window: Window, *, drop_outliers: bool) -> RunSelection:
    """Choose the window of each budget and, with `drop_outliers`, leave outliers out.

    `window` is "auto" (`choose_windows`), "all", or a number of sizes (`nearest_sizes`).
    """
    budgets = [observations.budget == index for index in range(len(observations.budgets))]
    curves = [
        BudgetCurve(log_n=np.log(observations.n_params[rows]), loss=observations.loss[rows])
        for rows in budgets
    ]
    valid = [np.ones(len(curve.loss), dtype=np.bool_) for curve in curves]
    windows = _windows(curves, valid, window)
    outliers = np.zeros(len(observations), dtype=np.bool_)
    if drop_outliers:
        found = find_outliers(curves, valid)
        valid = [rows & ~out for rows, out in zip(valid, found, strict=True)]
        windows = _windows(curves, valid, window)
        for rows, out in zip(budgets, found, strict=True):
            outliers[rows] = out
    return RunSelection(
        windows=tuple(_scatter(rows, chosen) for rows, chosen in zip(budgets, windows, strict=True)),
        outliers=outliers,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlier:
    """A run that is far from the parabola of the other runs of its budget."""

    run_key: str  # or its name, or its row
    n_params: float
    n_tokens: float
    loss: float  # nats per token


def name_outliers(observations: Observations, outliers: Mask) -> tuple[Outlier, ...]:
    """Return the runs of a mask (n,)."""
    return tuple(
        Outlier(
            run_key=observations.labels[row],
            n_params=float(observations.n_params[row]),
            n_tokens=float(observations.n_tokens[row]),
            loss=float(observations.loss[row]),
        )
        for row in np.flatnonzero(outliers).tolist()
    )


def _windows(curves: Sequence[BudgetCurve], valid: Sequence[Mask], window: Window) -> list[Mask]:
    if window == "all":
        return list(valid)
    if window == "auto":
        return choose_windows(curves, valid)
    return [nearest_sizes(curve, rows, window) for curve, rows in zip(curves, valid, strict=True)]


def _scatter(rows: Mask, chosen: Mask) -> Mask:
    """Return a mask over all points from one over the points of `rows`."""
    mask = np.zeros(len(rows), dtype=np.bool_)
    mask[rows] = chosen
    return mask


def fit_polynomial(curve: BudgetCurve, rows: Mask, degree: int) -> Polynomial:
    """Fit a polynomial of `degree` to the runs `rows`, which hold more than `degree` distinct sizes."""
    log_n, loss = curve.log_n[rows], curve.loss[rows]
    center = float(log_n.mean())
    design = np.vander(log_n - center, degree + 1, increasing=True)
    q, r = np.linalg.qr(design)
    inverse = np.linalg.inv(r)
    coefficients = inverse @ (q.T @ loss)
    fitted = design @ coefficients
    return Polynomial(
        center=center,
        coefficients=coefficients,
        covariance=inverse @ inverse.T,
        residual=(loss - fitted) / fitted,
        leverage=(q * q).sum(axis=1),
    )


def pooled_variance(fits: Sequence[Polynomial]) -> float:
    """Return the median relative residual variance over budgets, weighted by degrees of freedom.

    A median, so that one budget with an outlier does not set the scale of all. At least SMALLEST_SD squared.
    """
    pairs = sorted((fit.squares / fit.n_dof, fit.n_dof) for fit in fits if fit.n_dof > 0)
    if not pairs:
        return SMALLEST_SD**2
    variances, dof = np.array(pairs).T
    middle = int(np.searchsorted(np.cumsum(dof), dof.sum() / 2))
    return max(float(variances[middle]), SMALLEST_SD**2)


def shrunk_variance(fit: Polynomial, pooled: float) -> float:
    """Return the relative residual variance of a budget, shrunk to the pooled one."""
    return (fit.squares + PRIOR_DOF * pooled) / (fit.n_dof + PRIOR_DOF)


def choose_windows(curves: Sequence[BudgetCurve], valid: Sequence[Mask]) -> list[Mask]:
    """Return the runs of each budget within the window around its minimum, a subset of `valid`.

    From all sizes, the one farthest from the vertex (in ln N) is left out until the cubic term of a cubic fit
    is within SIGNIFICANT standard errors of zero, or MIN_WINDOW sizes are left. The noise is pooled over
    budgets, from cubic fits within the windows, so the choice is repeated until it stands.
    """
    paths = [_path(curve, rows) for curve, rows in zip(curves, valid, strict=True)]
    chosen = [0] * len(paths)
    for _ in range(MAX_PASSES):
        cubics = [path[step].cubic for path, step in zip(paths, chosen, strict=True)]
        pooled = pooled_variance([cubic for cubic in cubics if cubic is not None])
        steps = [_first_acceptable(path, pooled) for path in paths]
        if steps == chosen:
            break
        chosen = steps
    return [path[step].rows for path, step in zip(paths, chosen, strict=True)]


def nearest_sizes(curve: BudgetCurve, valid: Mask, n_sizes: int) -> Mask:
    """Return the runs of the `n_sizes` sizes nearest to the best one, in ln N."""
    sizes = curve.sizes(valid)
    means = np.array([curve.loss[valid & (curve.log_n == size)].mean() for size in sizes])
    order = np.argsort(np.abs(sizes - sizes[int(means.argmin())]), kind="stable")
    return valid & np.isin(curve.log_n, sizes[order[:n_sizes]])


def find_outliers(curves: Sequence[BudgetCurve], valid: Sequence[Mask]) -> list[Mask]:
    """Return the runs that lie more than OUTLYING robust standard deviations from the curve of the others.

    One at a time, the worst first. A run is compared with the parabola of its budget's other runs, in the
    window that they choose without it, and only if it lies within that window, or next to one with all other
    sizes. Among the runs of a budget that qualify, the one whose removal leaves the smallest residuals is
    taken: an outlier also moves the parabola away from its neighbours. With fewer than five other runs it
    cannot be distinguished.
    """
    valid = [rows.copy() for rows in valid]
    found = [np.zeros_like(rows) for rows in valid]
    for _ in range(sum(int(rows.sum()) for rows in valid)):
        windows = choose_windows(curves, valid)
        fits = [_parabola(curve, rows) for curve, rows in zip(curves, windows, strict=True)]
        pooled = pooled_variance([fit for fit in fits if fit is not None])
        worst = [
            _worst_run(curve, rows, window, fit, pooled)
            for curve, rows, window, fit in zip(curves, valid, windows, fits, strict=True)
        ]
        budget = max(range(len(curves)), key=lambda index: worst[index][0])
        distance, row = worst[budget]
        if distance <= OUTLYING:
            break
        valid[budget][row], found[budget][row] = False, True
    return found


def _worst_run(
    curve: BudgetCurve, valid: Mask, window: Mask, fit: Polynomial | None, pooled: float
) -> tuple[float, int]:
    """Return the distance and the row of the best candidate for an outlier; (0, -1) if there is none."""
    narrowed = int(window.sum()) < int(valid.sum())
    if fit is None or fit.n_dof < 2 or (not narrowed and fit.squares / fit.n_dof <= SUSPECT * pooled):
        return 0.0, -1
    best = (math.inf, 0.0, -1)
    for row in np.flatnonzero(valid).tolist():
        others = valid.copy()
        others[row] = False
        if len(curve.sizes(others)) < MIN_WINDOW - 1:
            continue
        path = _path(curve, others)
        rows = path[_first_acceptable(path, pooled)].rows
        without = fit_polynomial(curve, rows, 2)
        distance = _distance(curve, row, rows, without, pooled, beyond=np.array_equal(rows, others))
        if distance > OUTLYING:
            best = min(best, (without.squares / without.n_dof, distance, row))
    return best[1], best[2]


def _distance(
    curve: BudgetCurve, row: int, rows: Mask, fit: Polynomial, pooled: float, *, beyond: bool
) -> float:
    """Return the distance of a run from the parabola of others; 0 outside their window.

    `beyond` allows runs one size beyond the window.
    """
    sizes = curve.sizes(rows)
    margin = 1.5 * float(np.diff(sizes).max()) if beyond else 0.0
    if not sizes[0] - margin <= curve.log_n[row] <= sizes[-1] + margin:
        return 0.0
    powers = (curve.log_n[row] - fit.center) ** np.arange(3)
    fitted = float(powers @ fit.coefficients)
    own = (float(np.median(np.abs(fit.residual))) / NORMAL_MAD) ** 2 * len(fit.residual) / fit.n_dof
    blended = (fit.n_dof * own + PRIOR_DOF * pooled) / (fit.n_dof + PRIOR_DOF)
    scale = math.sqrt(min(blended, MAX_OWN_VARIANCE * pooled))
    spread = math.sqrt(1.0 + float(powers @ fit.covariance @ powers))
    return abs(float(curve.loss[row]) / fitted - 1.0) / (scale * spread)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Step:
    """One candidate window: its runs, and the cubic through them where there are enough sizes."""

    rows: Mask
    cubic: Polynomial | None
    level: float  # mean loss


def _path(curve: BudgetCurve, valid: Mask) -> tuple[_Step, ...]:
    """Return the windows from all sizes to MIN_WINDOW, each without the size farthest from the vertex."""
    return _path_from(curve, valid.tobytes())


@lru_cache(maxsize=512)  # a budget has the same path in every cut of a backtest
def _path_from(curve: BudgetCurve, valid: bytes) -> tuple[_Step, ...]:
    rows, steps = np.frombuffer(valid, dtype=np.bool_), []
    while True:
        sizes = curve.sizes(rows)
        cubic = fit_polynomial(curve, rows, 3) if len(sizes) >= MIN_WINDOW else None
        steps.append(
            _Step(rows=rows, cubic=cubic, level=float(curve.loss[rows].mean()) if rows.any() else 0.0)
        )
        if len(sizes) <= MIN_WINDOW:
            return tuple(steps)
        vertex = _vertex(curve, rows, sizes)
        farthest = sizes[0] if vertex - sizes[0] > sizes[-1] - vertex else sizes[-1]
        rows = rows & (curve.log_n != farthest)


def _first_acceptable(path: Sequence[_Step], pooled: float) -> int:
    """Return the index of the widest window with a cubic term within SIGNIFICANT standard errors of zero."""
    for index, step in enumerate(path[:-1]):
        assert step.cubic is not None
        error = step.level * math.sqrt(shrunk_variance(step.cubic, pooled) * step.cubic.covariance[3, 3])
        if abs(step.cubic.coefficients[3]) <= SIGNIFICANT * error:
            return index
    return len(path) - 1


def _vertex(curve: BudgetCurve, rows: Mask, sizes: FloatArray) -> float:
    """ln N at the parabola's minimum, within the sizes; that of the best run where it has none."""
    fit = fit_polynomial(curve, rows, 2)
    _, slope, curvature = fit.coefficients
    if curvature <= 0:
        return float(curve.log_n[rows][int(curve.loss[rows].argmin())])
    return float(np.clip(fit.center - slope / (2 * curvature), sizes[0], sizes[-1]))


def _parabola(curve: BudgetCurve, rows: Mask) -> Polynomial | None:
    return fit_polynomial(curve, rows, 2) if len(curve.sizes(rows)) >= 4 else None
