"""Refusals of points that cannot determine the parametric surface, and of fits that are no minimum.

Legend: N parameters, D tokens, C training FLOPs; theta = (ln A, ln B, ln E, alpha, beta).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sweep.fit.numerics.centred import CentredData
from sweep.fit.numerics.minimise import Solution, differentiate
from sweep.fit.refusals import RefusedError
from sweep.fit.table.observations import Observations

FloatArray = npt.NDArray[np.float64]

EXPONENT_BOUNDS = (0.01, 5.0)  # outside, a term is a constant or a step, not a power law
N_SURFACE = 5  # constants of L = E + A/N^alpha + B/D^beta
MIN_SIZES, MIN_LEVELS = 3, 3  # values of N and D, and of C
LEVEL_WIDTH = 0.25  # of ln C; points closer than this are one level
MIN_SPREAD = 0.1  # standard deviation of the points about their best line in the (ln N, ln D) plane
NO_SHARE = 1e-7  # a term has vanished when its largest share of the loss is below
ROUNDING_GRADIENT = 1e-7  # against the sum of the absolute contributions


def check_design(observations: Observations, n_constants: int = N_SURFACE) -> None:
    """Raise RefusedError for points that cannot determine a surface of `n_constants` constants."""
    if len(observations) <= n_constants:
        raise RefusedError(
            "too_few_points",
            f"{len(observations)} points for {n_constants} constants: at least {n_constants + 1} are needed, "
            f"{3 * n_constants} or more help",
        )
    levels = max(len(observations.budgets), _n_levels(observations.flops))
    if levels < MIN_LEVELS:
        raise RefusedError(
            "too_few_budgets",
            f"the points cover {levels} compute budget{'s' * (levels > 1)} and {MIN_LEVELS} are needed: "
            f"add budgets, spread over a factor of 10 or more",
        )
    for values, symbol in ((observations.n_params, "N"), (observations.n_tokens, "D")):
        n_distinct = len(np.unique(values))
        if n_distinct < MIN_SIZES:
            raise RefusedError(
                "too_few_points",
                f"{symbol} takes {n_distinct} distinct value{'s' * (n_distinct > 1)} and {MIN_SIZES} are "
                f"needed to fit a power law in it: add more",
            )
    check_spread(np.log(observations.n_params), np.log(observations.n_tokens))


def check_spread(log_n: FloatArray, log_d: FloatArray) -> None:
    """Raise RefusedError for points along one line of ln N and ln D, such as runs at a single D/N."""
    spread = float(np.sqrt(max(np.linalg.eigvalsh(np.cov(np.stack([log_n, log_d]), bias=True))[0], 0.0)))
    if spread < MIN_SPREAD:
        raise RefusedError(
            "collinear",
            f"N and D are collinear (the points lie within {100 * spread:.2g} % of one line in ln N, ln D): "
            f"their effects cannot be separated; train several sizes at each budget, or several D/N",
        )


def _n_levels(flops: FloatArray) -> int:
    """Return the number of disjoint intervals of LEVEL_WIDTH that the points' ln C occupy."""
    n_levels, start = 0, -np.inf
    for log_c in np.sort(np.log(flops)):
        if log_c > start + LEVEL_WIDTH:
            n_levels, start = n_levels + 1, float(log_c)
    return n_levels


def check_minimum(
    data: CentredData,
    theta: FloatArray,
    start: FloatArray,
    solution: Solution,
    best: int,
    huber_delta: float,
    basis: FloatArray | None = None,
) -> None:
    """Raise RefusedError for a fit with a vanished term, at its own initial guess, or at no minimum."""
    share_n = np.exp(theta[0] - theta[3] * data.u - data.y).max()
    share_d = np.exp(theta[1] - theta[4] * data.v - data.y).max()
    for share, symbol, name in ((share_n, "N", "model sizes"), (share_d, "D", "token counts")):
        if share < NO_SHARE or np.ptp(data.y) == 0:
            raise RefusedError(
                "no_dependence",
                f"the loss does not depend on {symbol}: the fitted term vanished; widen the range of {name}",
            )
    ratio = gradient_ratio(data, theta, huber_delta, basis)
    if ratio > ROUNDING_GRADIENT:
        if solution.n_accepted[best] == 0 or np.array_equal(theta, start):
            raise RefusedError(
                "initial_guess",
                "the fit returned its own initial guess: no step lowered the objective; check the losses for "
                "constant or corrupt values",
            )
        raise RefusedError(
            "not_converged",
            f"the fit did not converge: the gradient is still {ratio:.1g} of its parts; add points, or widen "
            f"the range of N and D",
        )
    low, high = EXPONENT_BOUNDS
    for value, symbol in ((theta[3], "alpha"), (theta[4], "beta")):
        if not low <= value <= high:
            raise RefusedError(
                "exponent_at_bound",
                f"the fitted {symbol}={value:.4g} lies outside {low:g}..{high:g}, so its term is not a power "
                f"law: use a wider range of {'N' if symbol == 'alpha' else 'D'}, or reduce the noise",
            )


def gradient_ratio(
    data: CentredData, theta: FloatArray, huber_delta: float, basis: FloatArray | None = None
) -> float:
    """Return the largest component of the gradient at theta (5,) over the sum of the sizes of its parts."""
    gradient = differentiate(data, theta[None], data.y, huber_delta).gradient
    residual = data.y - data.evaluate(theta[None])[0]
    reach = max(1.0, float(np.abs(data.u).max()), float(np.abs(data.v).max()))
    parts = reach * (np.minimum(np.abs(residual), huber_delta).sum() + 1e-9 * len(data.y))
    within = gradient if basis is None else gradient @ basis
    return float(np.abs(within).max() / parts)
