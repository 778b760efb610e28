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
OUTLYING = 6.0  # robust standard deviations
NORMAL_MAD = 0.6745  # median absolute value of a standard normal variable
MAX_PASSES = 10


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BudgetCurve:
    """The runs of one budget, arrays of shape (n,)."""

    log_n: FloatArray
    loss: FloatArray

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
        found = find_outliers(curves, windows)
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


def find_outliers(curves: Sequence[BudgetCurve], windows: Sequence[Mask]) -> list[Mask]:
    """Return the runs within the windows that lie more than OUTLYING scales from the parabola of the others.

    One at a time, the worst first: t = residual / (s sqrt(1 - leverage)). s^2 blends the budget's squared
    median absolute residual with the pooled variance of all parabolas, and is at most MAX_OWN_VARIANCE times
    the latter. With fewer than five runs in a window an outlier cannot be distinguished from its neighbours.
    """
    windows = [rows.copy() for rows in windows]
    found = [np.zeros_like(rows) for rows in windows]
    for _ in range(sum(int(rows.sum()) for rows in windows)):
        fits = [_parabola(curve, rows) for curve, rows in zip(curves, windows, strict=True)]
        pooled = pooled_variance([fit for fit in fits if fit is not None])
        distances = [_distances(fit, pooled) for fit in fits]
        worst = max(range(len(curves)), key=lambda index: distances[index].max(initial=0.0))
        if distances[worst].max(initial=0.0) <= OUTLYING:
            break
        row = np.flatnonzero(windows[worst])[int(distances[worst].argmax())]
        windows[worst][row], found[worst][row] = False, True
    return found


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Step:
    """One candidate window: its runs, and the cubic through them where there are enough sizes."""

    rows: Mask
    cubic: Polynomial | None
    level: float  # mean loss


def _path(curve: BudgetCurve, valid: Mask) -> list[_Step]:
    """Return the windows from all sizes to MIN_WINDOW, each without the size farthest from the vertex."""
    rows, steps = valid, []
    while True:
        sizes = curve.sizes(rows)
        cubic = fit_polynomial(curve, rows, 3) if len(sizes) >= MIN_WINDOW else None
        steps.append(
            _Step(rows=rows, cubic=cubic, level=float(curve.loss[rows].mean()) if rows.any() else 0.0)
        )
        if len(sizes) <= MIN_WINDOW:
            return steps
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


def _distances(fit: Polynomial | None, pooled: float) -> FloatArray:
    """Deleted residuals in robust standard deviations; empty where too few runs allow none."""
    if fit is None or fit.n_dof < 2:
        return np.empty(0)
    size = np.abs(fit.residual)
    own = (float(np.median(size)) / NORMAL_MAD) ** 2 * len(size) / fit.n_dof
    blended = (fit.n_dof * own + PRIOR_DOF * pooled) / (fit.n_dof + PRIOR_DOF)
    scale = math.sqrt(min(blended, MAX_OWN_VARIANCE * pooled))
    free = np.maximum(1.0 - fit.leverage, 1e-9)
    return np.asarray(size / (scale * np.sqrt(free)), dtype=np.float64)
