"""Resampling of points, and refits of a fitted model to each resample.

Three schemes. Points that share trunks: whole trunks with replacement. From FEW_POINTS on: points with
replacement. Fewer: data sets simulated from the fit, because resamples of few points hold too few distinct
ones, and intervals come out half as wide again as they should be (docs/science_fit.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweep.config import FitConfig
from sweep.fit.numerics.centred import CentredData
from sweep.fit.numerics.estimation import FREE, SurfaceForm, linear_surface
from sweep.fit.numerics.identifiability import EXPONENT_BOUNDS
from sweep.fit.numerics.minimise import SQUARES, Model, Solution, minimise
from sweep.fit.refusals import RefusedError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

FEW_POINTS = 60
BLOCK_ELEMENTS = 4_000_000  # resamples x points held at once: 32 MB
WARN_DEGENERATE_FRAC = 0.02
MIN_TRUNKS = 3  # resamples of one or two trunks show no spread, so there are no intervals
FEW_TRUNKS = 10  # fewer give intervals that are too narrow


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Resampled:
    """Parameters refitted to resamples, with the scheme that drew them."""

    draws: FloatArray  # (n_draws, p) usable, centred
    n_degenerate: int
    scheme: str
    residual_sd: float  # of ln L, over the degrees of freedom left


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Block:
    """A block of resamples: either case weights or simulated ln L, the other is None."""

    n_rows: int
    weights: FloatArray | None = None
    targets: FloatArray | None = None

    def __len__(self) -> int:
        return self.n_rows


def case_weights(cluster: IntArray, n_resamples: int, seed: int) -> Iterator[FloatArray]:
    """Yield blocks of resamples of points with replacement, as counts of shape (block, n_points).

    `cluster` (n_points,) numbers the independent units from 0: points of one trunk are resampled together.
    Source: Efron 1979; for clusters Davison & Hinkley 1997, section 3.8.
    """
    n_units = int(cluster.max()) + 1
    rng = np.random.default_rng(seed)
    block = max(1, BLOCK_ELEMENTS // max(n_units, len(cluster)))
    for low in range(0, n_resamples, block):
        rows = min(block, n_resamples - low)
        picks = rng.integers(0, n_units, size=(rows, n_units))
        picks += n_units * np.arange(rows)[:, None]
        counts = np.bincount(picks.ravel(), minlength=rows * n_units)
        yield counts.reshape(rows, n_units).astype(np.float64)[:, cluster]


def simulated_targets(
    prediction: FloatArray, sd: float, n_dof: int, n_resamples: int, seed: int
) -> Iterator[FloatArray]:
    """Yield blocks of data sets simulated from a fit, as ln L of shape (block, n_points).

    A data set is prediction + sd sqrt(n_dof / chi2) z, with one chi2 of n_dof degrees each, so that the draws
    include the uncertainty of the noise's own size. Source: parametric bootstrap, Efron & Tibshirani 1993,
    section 6.5.
    """
    rng = np.random.default_rng(seed)
    block = max(1, BLOCK_ELEMENTS // len(prediction))
    for low in range(0, n_resamples, block):
        rows = min(block, n_resamples - low)
        scale = sd * np.sqrt(n_dof / rng.chisquare(n_dof, size=rows))
        yield prediction + scale[:, None] * rng.standard_normal((rows, len(prediction)))


def pooled_t_draws(
    estimates: list[FloatArray],
    factors: list[FloatArray],
    *,
    sd: float,
    n_dof: int,
    n_draws: int,
    seed: int,
) -> list[FloatArray]:
    """Return draws (n_draws, p) of the coefficients of several linear fits with a common noise deviation.

    Fit j has estimate (p,) and a factor F (p, p) with F F' its covariance for unit noise; a draw is
    estimate + sd sqrt(n_dof / chi2) F z, with one chi2 of n_dof degrees for all fits of a draw: the
    multivariate t of the normal linear model with pooled variance.
    """
    rng = np.random.default_rng(seed)
    scale = np.sqrt(n_dof / rng.chisquare(n_dof, size=n_draws))
    return [
        estimate + sd * scale[:, None] * (rng.standard_normal((n_draws, len(estimate))) @ factor.T)
        for estimate, factor in zip(estimates, factors, strict=True)
    ]


def blocks(
    prediction: FloatArray, sd: float, n_dof: int, cluster: IntArray, config: FitConfig
) -> tuple[str, Iterator[Block]]:
    """Return the scheme for points with fitted ln L `prediction` (n,), and its resamples in blocks."""
    n, seed = _n_resamples(cluster, config), config.seed
    shared = int(cluster.max()) + 1 < len(prediction)
    if shared or len(prediction) >= FEW_POINTS:
        cases = case_weights(cluster, n, seed)
        return "trunks" if shared else "cases", (Block(n_rows=len(w), weights=w) for w in cases)
    simulated = simulated_targets(prediction, sd, n_dof, n, seed)
    return "simulated from the fit", (Block(n_rows=len(t), targets=t) for t in simulated)


def _n_resamples(cluster: IntArray, config: FitConfig) -> int:
    return 0 if has_too_few_trunks(cluster) else config.n_bootstrap


def resample_surface(
    data: CentredData, theta: FloatArray, cluster: IntArray, config: FitConfig, form: SurfaceForm = FREE
) -> Resampled:
    """Resample and refit the surface from centred theta (5,).

    Raises:
        RefusedError: most resamples have no usable minimum.
    """
    prediction = data.evaluate(theta[None])[0][0]
    n_dof = max(1, len(data.y) - form.n_free)
    sd = math.sqrt(float(((data.y - prediction) ** 2).sum()) / n_dof)
    scheme, resamples = blocks(prediction, sd, n_dof, cluster, config)
    is_linear = form.residuals == "linear"
    model = linear_surface(data) if is_linear else data

    def to_target(log_loss: FloatArray) -> FloatArray:
        return np.exp(log_loss + data.center_l) if is_linear else log_loss

    parts = [
        found.theta[found.converged & _within_bounds(found.theta[:, 3:])]
        for found in _refits(model, theta, data.y, resamples, config.huber_delta, form.basis, to_target)
    ]
    return _resampled(parts, theta, scheme, sd, _n_resamples(cluster, config))


def _within_bounds(exponents: FloatArray) -> BoolArray:
    low, high = EXPONENT_BOUNDS
    return np.asarray(((exponents >= low) & (exponents <= high)).all(axis=1))


def resample_model(
    model: Model,
    theta: FloatArray,
    log_loss: FloatArray,
    cluster: IntArray,
    config: FitConfig,
    usable: Callable[[FloatArray], BoolArray],
) -> Resampled:
    """Resample and refit any model of ln L from theta (p,); `usable` masks the valid rows of draws (k, p).

    The noise's deviation is that about the least-squares fit: about Huber's fit, which does not minimise
    squares, it is too large, and intervals of few points come out too wide (docs/science_fit.md).

    Raises:
        RefusedError: most resamples have no usable minimum.
    """
    prediction = model.evaluate(theta[None])[0][0]
    n_dof = max(1, len(log_loss) - len(theta))
    nearest = minimise(model, theta[None], log_loss, SQUARES)
    sd = math.sqrt(2.0 * float(nearest.objective[0]) / n_dof)
    scheme, resamples = blocks(prediction, sd, n_dof, cluster, config)
    parts = [
        found.theta[np.isfinite(found.objective) & usable(found.theta)]
        for found in _refits(model, theta, log_loss, resamples, config.huber_delta)
    ]
    return _resampled(parts, theta, scheme, sd, _n_resamples(cluster, config))


def _refits(
    model: Model,
    theta: FloatArray,
    log_loss: FloatArray,
    resamples: Iterator[Block],
    delta: float,
    basis: FloatArray | None = None,
    to_target: Callable[[FloatArray], FloatArray] = np.asarray,
) -> Iterator[Solution]:
    """Yield the minima of each block of resamples, all started at theta (p,).

    `to_target` converts ln L to the quantity that the model predicts.
    """
    for block in resamples:
        start = np.broadcast_to(theta, (len(block), len(theta)))
        target = to_target(log_loss if block.targets is None else block.targets)
        yield minimise(model, start, target, delta, weights=block.weights, basis=basis)


def _resampled(
    parts: list[FloatArray], theta: FloatArray, scheme: str, sd: float, n_resamples: int
) -> Resampled:
    draws = np.concatenate([np.empty((0, len(theta))), *parts])
    check_draws(len(draws), n_resamples)
    return Resampled(draws=draws, n_degenerate=n_resamples - len(draws), scheme=scheme, residual_sd=sd)


def check_draws(n_usable: int, n_resamples: int) -> None:
    """Raise RefusedError when most resamples were degenerate."""
    n_degenerate = n_resamples - n_usable
    if 2 * n_degenerate > n_resamples:
        raise RefusedError(
            "degenerate_resamples",
            f"{n_degenerate} of {n_resamples} resamples have no usable minimum, so the law depends on single "
            f"points: add points, or widen the range of N and D",
        )


def has_too_few_trunks(cluster: IntArray) -> bool:
    """Return true when the points (n,) share so few trunks that resampling them shows no spread."""
    n_trunks = int(cluster.max()) + 1
    return n_trunks < MIN_TRUNKS and n_trunks < len(cluster)


def resampling_warnings(cluster: IntArray, n_degenerate: int, n_resamples: int) -> tuple[str, ...]:
    """Return the warnings about shared trunks and about degenerate resamples."""
    return (*trunk_warning(cluster, n_resamples), *degenerate_warning(n_degenerate, n_resamples))


def trunk_warning(cluster: IntArray, n_resamples: int) -> tuple[str, ...]:
    """Return a warning when the points share too few trunks for an interval, or for an exact one."""
    n_trunks = int(cluster.max()) + 1
    if not n_resamples or n_trunks == len(cluster) or n_trunks >= FEW_TRUNKS:
        return ()
    shared = f"the points share {n_trunks} trunk{'s' * (n_trunks > 1)} and therefore their noise: "
    if n_trunks < MIN_TRUNKS:
        return (f"{shared}below {MIN_TRUNKS} trunks there is no interval; add runs that share no trunk",)
    return (f"{shared}intervals from fewer than {FEW_TRUNKS} trunks are too narrow",)


def degenerate_warning(n_degenerate: int, n_resamples: int) -> tuple[str, ...]:
    """Return a warning when enough resamples failed to make the intervals doubtful."""
    if n_degenerate <= WARN_DEGENERATE_FRAC * n_resamples:
        return ()
    return (
        f"{n_degenerate} of {n_resamples} resamples were degenerate and are left out of the intervals, "
        f"which are therefore somewhat too narrow",
    )
