"""Resampling: case weights, data sets simulated from a fit, multivariate-t draws of pooled linear fits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

BLOCK_ELEMENTS = 4_000_000  # resamples x points held at once: 32 MB
WARN_DEGENERATE_FRAC = 0.02
MIN_TRUNKS = 3  # one or two drawn with replacement show no spread: there are no intervals then
FEW_TRUNKS = 10  # fewer give intervals that are too narrow


def case_weights(cluster: IntArray, n_resamples: int, seed: int) -> Iterator[FloatArray]:
    """Blocks of resamples of points with replacement, as counts of shape (block, n_points).

    `cluster` (n_points,) numbers the independent units from 0: points of one trunk are drawn together.
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
    """Blocks of data sets drawn from a fit, as ln L of shape (block, n_points).

    A draw is prediction + sd sqrt(n_dof / chi2) z, one chi2 of n_dof degrees a data set, so that the doubt
    about the noise's own size is in the draws. Source: parametric bootstrap, Efron & Tibshirani 1993,
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
    """Draws of the coefficients of several linear fits that share the deviation of one unit of noise.

    Fit j has estimate (p,) and a factor F (p, p) with F F' its covariance for unit noise; a draw is
    estimate + sd sqrt(n_dof / chi2) F z, with one chi2 of n_dof degrees for all fits of a draw: the
    multivariate t of the normal linear model with pooled variance. Returns arrays (n_draws, p).
    """
    rng = np.random.default_rng(seed)
    scale = np.sqrt(n_dof / rng.chisquare(n_dof, size=n_draws))
    return [
        estimate + sd * scale[:, None] * (rng.standard_normal((n_draws, len(estimate))) @ factor.T)
        for estimate, factor in zip(estimates, factors, strict=True)
    ]


def has_too_few_trunks(cluster: IntArray) -> bool:
    """Whether all points (n,) hang on so few trunks that resampling them says nothing of their noise."""
    n_trunks = int(cluster.max()) + 1
    return n_trunks < MIN_TRUNKS and n_trunks < len(cluster)


def trunk_warning(cluster: IntArray, n_resamples: int) -> tuple[str, ...]:
    """A sentence where the points share few trunks, or too few for any interval."""
    n_trunks = int(cluster.max()) + 1
    if not n_resamples or n_trunks == len(cluster) or n_trunks >= FEW_TRUNKS:
        return ()
    told = f"the points share {n_trunks} trunk{'s' * (n_trunks > 1)}, and their noise with them: "
    if n_trunks < MIN_TRUNKS:
        return (f"{told}no interval is given below {MIN_TRUNKS}; runs of their own would help",)
    return (f"{told}intervals from fewer than {FEW_TRUNKS} are too narrow, so read them as rough",)


def degenerate_warning(n_degenerate: int, n_resamples: int) -> tuple[str, ...]:
    """A sentence where enough resamples failed to make the intervals doubtful."""
    if n_degenerate <= WARN_DEGENERATE_FRAC * n_resamples:
        return ()
    return (
        f"{n_degenerate} of {n_resamples} resamples were degenerate and are left out of the intervals, "
        f"which are therefore somewhat too narrow",
    )
