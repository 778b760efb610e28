"""The parabola of L in ln N at one budget, its minimum, and the validity of that minimum.

Legend: N parameters, D tokens, C training FLOPs, L loss; t = ln N - center.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from sweep.fit.laws.base import Interval
from sweep.fit.table.budgets import BUDGET_SPREAD
from sweep.fit.table.observations import Observations

FloatArray = npt.NDArray[np.float64]
Rows = npt.NDArray[np.bool_]
BudgetStatus = Literal["ok", "edge", "not_convex", "too_few", "unequal"]

TREND = 0.1  # of ln C over a budget's sizes; it shifts the minimum by half of it or more in ln N
CHECKED_SIZES = 4  # three sizes determine a parabola; the fourth checks it
MIN_SIZES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Parabola:
    """L = c0 + c1 t + c2 t^2 by least squares, and ln C along the curve, linear in t."""

    center: float
    coefficients: tuple[float, float, float]
    log_flops_coefficients: tuple[float, float]
    n_points: int
    residual_squares: float  # of (L - parabola) / parabola

    def loss(self, n_params: npt.ArrayLike) -> FloatArray:
        """Return L at N."""
        t = np.log(np.asarray(n_params, dtype=np.float64)) - self.center
        return np.asarray(np.polynomial.polynomial.polyval(t, self.coefficients), dtype=np.float64)

    def log_flops(self, t: FloatArray) -> FloatArray:
        """Return ln C at t: runs of a budget differ in C by rounding to whole batches."""
        return self.log_flops_coefficients[0] + self.log_flops_coefficients[1] * t

    @staticmethod
    def vertex(coefficients: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return t and L at the extremum, for coefficients (..., 3)."""
        c0, c1, c2 = np.moveaxis(coefficients, -1, 0)
        t = -c1 / (2 * c2)
        return t, c0 + 0.5 * c1 * t


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetFit:
    """One budget's curve. The optimum is None unless the status is ok: a doubtful minimum is no number."""

    index: int  # of the budget in the observations
    flops_budget: float  # as planned, else the geometric mean of the group
    flops: float  # exact C at the minimum, else the geometric mean
    n_points: int
    n_sizes: int
    window: tuple[float, float] | None = None  # smallest and largest N the parabola is fitted to
    status: BudgetStatus
    reason: str | None  # why it does not count
    parabola: Parabola | None
    widest_step: float | None  # ratio of the two sizes on either side of the minimum
    n_params_opt: float | None
    n_tokens_opt: float | None  # C over the FLOPs per token at n_params_opt
    n_tokens_opt_direct: float | None  # of a parabola in ln D
    loss_opt: float | None
    n_params_opt_se: float | None = None  # standard error of ln N_opt by noise
    loss_opt_se: float | None = None  # of ln L_opt
    ci: Mapping[str, Interval]

    @property
    def counts_for_noise(self) -> bool:
        """True if the residuals of its parabola are noise, which a minimum at an edge does not prevent."""
        return self.parabola is not None and self.status != "unequal"


def fit_parabola(n_params: FloatArray, flops: FloatArray, loss: FloatArray) -> Parabola:
    """Fit a parabola to one budget's points by least squares; needs at least three distinct N."""
    design, center = _design(n_params)
    coefficients = np.linalg.lstsq(design, loss, rcond=None)[0]
    line = np.linalg.lstsq(design[:, :2], np.log(flops), rcond=None)[0]
    fitted = design @ coefficients
    c0, c1, c2 = map(float, coefficients)
    return Parabola(
        center=center,
        coefficients=(c0, c1, c2),
        log_flops_coefficients=(float(line[0]), float(line[1])),
        n_points=len(loss),
        residual_squares=float((((loss - fitted) / fitted) ** 2).sum()),
    )


def parabola_factor(observations: Observations, rows: Rows) -> FloatArray:
    """Return F (3, 3) with F F' = P diag(L^2) P' for the runs `rows` (n,), P = (X' X)^-1 X' of the design X.

    F F' is the covariance of the coefficients for unit variance of ln L: noise is proportional to the loss.
    """
    design, _ = _design(observations.n_params[rows])
    spread = np.linalg.pinv(design) * observations.loss[rows]
    return np.asarray(np.linalg.cholesky(spread @ spread.T), dtype=np.float64)


def fit_budget(
    observations: Observations,
    index: int,
    window: Rows | None = None,
    *,
    valid: Rows | None = None,
    min_sizes: int = CHECKED_SIZES,
) -> BudgetFit:
    """Fit budget `index` and check its minimum; `status` says why it is not valid.

    The parabola is fitted to the runs of `window` (n,); the minimum is checked against the sizes of `valid`
    (n,). Both are subsets of the budget's runs, and all of them by default. not_convex: curvature <= 0. edge:
    the minimum, or the best size, is not strictly between the smallest and the largest size. too_few: under
    `min_sizes` sizes. unequal: its points' C are too far apart for one budget.
    """
    rows = observations.budget == index if valid is None else valid
    near = rows if window is None else window
    n_params, flops, loss = observations.n_params[rows], observations.flops[rows], observations.loss[rows]
    sizes, size = np.unique(n_params, return_inverse=True)
    curve = observations.n_params[near], observations.flops[near], observations.loss[near]
    parabola = fit_parabola(*curve) if len(sizes) >= min_sizes else None
    means = np.bincount(size, weights=loss) / np.bincount(size)
    unequal = _unequal(n_params, flops) if observations.budgets_as_planned else None
    status, reason = unequal or _judge(parabola, sizes, means)
    optimum: dict[str, float | None] = dict.fromkeys(
        ("n_params_opt", "n_tokens_opt", "n_tokens_opt_direct", "loss_opt")
    )
    flops_there = math.exp(float(np.log(flops).mean()))
    if parabola is not None and status == "ok":
        t, loss_opt = (float(value) for value in Parabola.vertex(np.array(parabola.coefficients)))
        n_opt = math.exp(parabola.center + t)
        flops_there = math.exp(float(parabola.log_flops(np.array(t))))
        n_tokens_opt = flops_there / float(observations.flops_per_token(n_opt))
        optimum = {"n_params_opt": n_opt, "n_tokens_opt": n_tokens_opt, "loss_opt": loss_opt}
        in_tokens = fit_parabola(observations.n_tokens[near], *curve[1:])
        if in_tokens.coefficients[2] > 0:
            direct = Parabola.vertex(np.array(in_tokens.coefficients))[0]
            optimum["n_tokens_opt_direct"] = math.exp(in_tokens.center + float(direct))
    return BudgetFit(
        index=index,
        flops_budget=float(observations.budgets[index]),
        flops=flops_there,
        n_points=len(loss),
        n_sizes=len(sizes),
        window=(float(curve[0].min()), float(curve[0].max())),
        status=status,
        reason=reason,
        parabola=parabola,
        widest_step=_widest_step(sizes, optimum["n_params_opt"]),
        ci={},
        **optimum,
    )


def _widest_step(sizes: FloatArray, n_params_opt: float | None) -> float | None:
    if n_params_opt is None:
        return None
    above = int(np.searchsorted(sizes, n_params_opt))
    return float(sizes[above] / sizes[above - 1]) if 0 < above < len(sizes) else None


def _unequal(n_params: FloatArray, flops: FloatArray) -> tuple[BudgetStatus, str] | None:
    log_n, log_c = np.log(n_params), np.log(flops)
    trend = np.polyfit(log_n, log_c, 1)[0] * np.ptp(log_n) if np.ptp(log_n) > 0 else 0.0
    if abs(trend) <= TREND and np.ptp(log_c) <= BUDGET_SPREAD:
        return None
    factor = float(flops.max() / flops.min())
    return "unequal", (
        f"the FLOPs of its points differ by a factor {factor:.3g}, but the runs of a budget should cost the "
        f"same: check that flops_budget and flops count the same operations"
    )


def _judge(
    parabola: Parabola | None, sizes: FloatArray, means: FloatArray
) -> tuple[BudgetStatus, str | None]:
    if parabola is None:
        return "too_few", f"it has {len(sizes)} size{'s' * (len(sizes) > 1)} and {CHECKED_SIZES} are needed"
    if parabola.coefficients[2] <= 0:
        return "not_convex", "its curve has no minimum (curvature <= 0)"
    best = int(np.argmin(means))
    n_opt = math.exp(parabola.center - parabola.coefficients[1] / (2 * parabola.coefficients[2]))
    if best == len(sizes) - 1 or n_opt >= sizes[-1]:
        return "edge", f"its minimum is at the largest size ({sizes[-1]:.4g} parameters): add larger sizes"
    if best == 0 or n_opt <= sizes[0]:
        return "edge", f"its minimum is at the smallest size ({sizes[0]:.4g} parameters): add smaller sizes"
    return "ok", None


def _design(n_params: FloatArray) -> tuple[FloatArray, float]:
    log_n = np.log(n_params)
    center = float(log_n.mean())
    t = log_n - center
    return np.stack([np.ones_like(t), t, t * t], axis=1), center
