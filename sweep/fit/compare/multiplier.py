"""The compute multiplier of one arm over another, from one model of both arms' minima.

Both arms follow L = E + K C^-gamma with one irreducible loss E. With one gamma, B needs a constant factor
less compute than A for equal loss; with two, ln k is linear in ln C. The relative difference of the exponents
has a normal prior with mean zero, so that they count as shared where the data do not show a difference.

Legend: C training FLOPs, L loss at the optimum of C, N parameters, D tokens, x = ln C less the mean over the
minima, k the multiplier: L_A(k C) = L_B(C).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweep.fit.compare.arms import PairedMinima
from sweep.fit.methods.trend import SLOPE_PRIOR
from sweep.fit.refusals import RefusedError

FloatArray = npt.NDArray[np.float64]

EXPONENT_SD = 0.05
"""Prior standard deviation of gamma_B / gamma_A - 1: one standard deviation changes the multiplier by 12 %
per decade of compute. Wen et al. 2025 (arXiv:2509.02046) report Muon over AdamW 1.4 at .1B and 1.1 at 1.2B
parameters, which is -.05."""
SIZE_EXPONENT_SD = 0.05  # of the difference of the exponents of N_opt
E_SHARES = np.linspace(0.0, 0.95, 39)  # of the lowest loss: values of E that are tried


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class JointCurves:
    """Loss and size at the optimum of both arms; every array has one entry a draw, shape (k,)."""

    center: float  # of ln C
    irreducible: FloatArray  # E
    level_a: FloatArray  # ln K at the centre
    level_b: FloatArray
    gamma_a: FloatArray
    gamma_b: FloatArray
    size_a: FloatArray  # (k, 2): ln N at the centre, and its slope
    size_b: FloatArray

    def log_multiplier(self, log_c: FloatArray) -> FloatArray:
        """Return ln k at budgets (m,); shape (k, m)."""
        x = log_c - self.center
        change = (self.gamma_b - self.gamma_a)[:, None] * x
        return ((self.level_a - self.level_b)[:, None] + change) / self.gamma_a[:, None]

    def loss(self, arm: str, log_c: FloatArray) -> FloatArray:
        """Return L of arm "a" or "b" at ln C of shape (m,) or (k, m); shape (k, m)."""
        level, gamma = (self.level_a, self.gamma_a) if arm == "a" else (self.level_b, self.gamma_b)
        return self.irreducible[:, None] + np.exp(level[:, None] - gamma[:, None] * (log_c - self.center))

    def log_size(self, arm: str, log_c: FloatArray) -> FloatArray:
        """Return ln N at the optimum of ln C of shape (m,) or (k, m); shape (k, m)."""
        line = self.size_a if arm == "a" else self.size_b
        return line[:, :1] + line[:, 1:] * (log_c - self.center)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExponentTest:
    """F test of one exponent for both arms against one for each."""

    ratio: float  # gamma_B / gamma_A, without the prior
    f: float
    n_dof: int  # of the denominator; the numerator has one
    p_value: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class JointFit:
    """The model fitted to both arms: the estimate, its draws, and the test of the exponents."""

    estimate: JointCurves  # of one entry
    draws: JointCurves
    test: ExponentTest
    lack_of_fit: float | None  # p value of the minima's scatter about both curves; None without freedom


def fit_jointly(paired: PairedMinima, *, n_draws: int, seed: int) -> JointFit:
    """Fit both arms and draw from the posterior, with Student's t for the unknown noise.

    A draw adds noise to the minima and to the mean of the priors, and fits again: for a linear model with
    normal errors this samples the posterior.

    Raises:
        RefusedError: the loss does not fall with compute.
    """
    rng = np.random.default_rng(seed)
    values, n = paired.values, len(paired.log_c)
    factor = np.linalg.cholesky(paired.covariance)
    t = np.sqrt(paired.n_dof / rng.chisquare(paired.n_dof, n_draws))[:, None]
    drawn = values + t * (rng.standard_normal((n_draws, 2 * n)) @ factor.T)
    model = _LossModel(paired)
    test, lack_of_fit = model.tests(values[None, :n])
    estimate = model.fit(values[None, :n], np.zeros(1))
    draws = model.fit(drawn[:, :n], rng.standard_normal(n_draws))
    falling = (draws.gamma_a > 0) & (draws.gamma_b > 0)
    if estimate.gamma_a[0] <= 0 or estimate.gamma_b[0] <= 0 or 2 * falling.sum() < n_draws:
        raise RefusedError(
            "no_dependence",
            "the loss at the optimum does not fall with compute within its noise: add budgets further apart, "
            "or seeds",
        )
    sizes = [
        _sizes(paired, values[None, n:], np.zeros((1, 2))),
        _sizes(paired, drawn[falling, n:], rng.standard_normal((int(falling.sum()), 2))),
    ]
    return JointFit(
        estimate=_curves(paired, estimate, sizes[0]),
        draws=_curves(paired, _select(draws, falling), sizes[1]),
        test=test,
        lack_of_fit=lack_of_fit,
    )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Losses:
    """Parameters of both loss curves by draw, arrays of shape (k,)."""

    irreducible: FloatArray
    level_a: FloatArray
    level_b: FloatArray
    gamma_a: FloatArray
    gamma_b: FloatArray


def _select(losses: _Losses, rows: npt.NDArray[np.bool_]) -> _Losses:
    """Return the draws selected by a mask."""
    return _Losses(**{name: getattr(losses, name)[rows] for name in _Losses.__dataclass_fields__})


def _curves(paired: PairedMinima, losses: _Losses, sizes: tuple[FloatArray, FloatArray]) -> JointCurves:
    fields = {name: getattr(losses, name) for name in _Losses.__dataclass_fields__}
    return JointCurves(center=float(paired.log_c.mean()), size_a=sizes[0], size_b=sizes[1], **fields)


class _LossModel:
    """ln(L - E) = ln K_i - gamma_i x by generalised least squares, for each E of a grid.

    Coefficients are (ln K_A, ln K_B, gamma, gamma_B - gamma).
    """

    def __init__(self, paired: PairedMinima) -> None:
        n = len(paired.log_c)
        x, is_b = paired.log_c - paired.log_c.mean(), paired.is_b
        self.design = np.stack([~is_b, is_b, -x, -x * is_b], axis=1).astype(np.float64)
        self.loss = np.exp(paired.values[:n])
        self.covariance = paired.covariance[:n, :n]
        self.n_dof = paired.n_dof
        self.grid = E_SHARES * self.loss.min()

    def fit(self, log_loss: FloatArray, shift: FloatArray) -> _Losses:
        """Fit with the prior, whose mean is `shift` (k,) standard deviations, to ln L (k, n)."""
        coefficients, irreducible, _ = self._best(log_loss, 4, shift)
        level_a, level_b, gamma, change = coefficients.T
        return _Losses(
            irreducible=irreducible,
            level_a=level_a,
            level_b=level_b,
            gamma_a=gamma,
            gamma_b=gamma + change,
        )

    def tests(self, log_loss: FloatArray) -> tuple[ExponentTest, float | None]:
        """Return the test of the exponents, and the p value of the residuals with separate ones."""
        from scipy.special import chdtrc, fdtrc  # scipy is slow to import

        _, _, shared = self._best(log_loss, 3, None)
        separate, _, squares = self._best(log_loss, 4, None)
        gain = max(float(shared[0] - squares[0]), 0.0)
        test = ExponentTest(
            ratio=float(1.0 + separate[0, 3] / separate[0, 2]),
            f=gain,
            n_dof=self.n_dof,
            p_value=float(fdtrc(1, self.n_dof, gain)),
        )
        freedom = log_loss.shape[1] - 5
        return test, None if freedom < 1 else float(chdtrc(freedom, float(squares[0])))

    def _best(
        self, log_loss: FloatArray, n_columns: int, shift: FloatArray | None
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return coefficients (k, n_columns), E (k,) and the squares (k,) at the best E of the grid."""
        found = [self._at(irreducible, log_loss, n_columns, shift) for irreducible in self.grid]
        squares = np.stack([one[1] for one in found])
        best = squares.argmin(axis=0)
        each = np.arange(len(log_loss))
        return np.stack([one[0] for one in found])[best, each], self.grid[best], squares[best, each]

    def _at(
        self, irreducible: float, log_loss: FloatArray, n_columns: int, shift: FloatArray | None
    ) -> tuple[FloatArray, FloatArray]:
        stretch = self.loss / (self.loss - irreducible)
        whiten = np.linalg.inv(np.linalg.cholesky(self.covariance * np.outer(stretch, stretch)))
        reducible = np.maximum(np.exp(log_loss) - irreducible, 1e-9 * self.loss)
        design, target = whiten @ self.design[:, :n_columns], np.log(reducible) @ whiten.T
        if shift is not None:
            gamma = self._shared_gamma(whiten, irreducible)
            design = np.vstack([design, np.eye(1, 4, 3) / (EXPONENT_SD * gamma)])
            target = np.hstack([target, shift[:, None]])
        coefficients = target @ np.linalg.pinv(design).T
        residual = target - coefficients @ design.T
        return coefficients, (residual**2).sum(axis=1)

    def _shared_gamma(self, whiten: FloatArray, irreducible: float) -> float:
        """Return |gamma| of the estimate with one exponent, which scales the prior."""
        target = whiten @ np.log(self.loss - irreducible)
        return max(abs(float(np.linalg.lstsq(whiten @ self.design[:, :3], target, rcond=None)[0][2])), 1e-6)


def _sizes(paired: PairedMinima, log_n: FloatArray, shift: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return ln N and its slope at the centre for A and B, (k, 2) each, from ln N of the minima (k, n).

    Priors: the slope by `SLOPE_PRIOR`, and the difference of the slopes by SIZE_EXPONENT_SD; `shift` (k, 2)
    moves their means by so many standard deviations.
    """
    n = len(paired.log_c)
    x, is_b = paired.log_c - paired.log_c.mean(), paired.is_b
    whiten = np.linalg.inv(np.linalg.cholesky(paired.covariance[n:, n:]))
    design = whiten @ np.stack([~is_b, is_b, x, x * is_b], axis=1).astype(np.float64)
    prior_sd = np.array([SLOPE_PRIOR.sd, SIZE_EXPONENT_SD])
    prior = np.eye(2, 4, 2) / prior_sd[:, None]
    mean = np.array([SLOPE_PRIOR.mean, 0.0]) / prior_sd
    target = np.hstack([log_n @ whiten.T, mean + shift])
    size_a, size_b, slope, change = (target @ np.linalg.pinv(np.vstack([design, prior])).T).T
    return np.stack([size_a, slope], axis=1), np.stack([size_b, slope + change], axis=1)


def crossing_share(curves: JointCurves, low: float, high: float) -> float:
    """Return the share of draws in which the better arm changes between budgets `low` and `high`."""
    ends = curves.log_multiplier(np.log(np.array([low, high])))
    return float((ends[:, 0] * ends[:, 1] < 0).mean())


def crossing(curves: JointCurves) -> float:
    """Return the budget at which the first draw's multiplier is 1; inf where it is 1 nowhere."""
    change = float(curves.gamma_b[0] - curves.gamma_a[0])
    if change == 0.0:
        return math.inf
    x = float(curves.level_b[0] - curves.level_a[0]) / change
    return math.exp(x + curves.center) if abs(x) < 200 else math.inf
