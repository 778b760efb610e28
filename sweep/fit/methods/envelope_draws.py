"""The lower convex hull of (ln C, ln L), and bootstrap draws of power laws through it.

Legend: N parameters, D tokens, C training FLOPs, L loss.

A hull selects the runs with the most favourable noise, so its law is biased, and resampling repeats the bias.
If the parametric surface can be fitted, data sets are simulated from it, and the error of their hulls against
the surface's optimum is subtracted from the law: theta - (theta* - theta_surface), the basic bootstrap
(Davison & Hinkley 1997, section 5.2.1). Otherwise points or whole trunks are resampled; the coverage of those
intervals is unproved.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweep.config import FitConfig
from sweep.fit.laws.power_law import power_laws
from sweep.fit.laws.surface import surface_loss, surface_optimum
from sweep.fit.numerics.estimation import FREE, centred, estimate_surface
from sweep.fit.numerics.identifiability import check_design
from sweep.fit.numerics.resampling import case_weights, has_too_few_trunks, simulated_targets, trunk_warning
from sweep.fit.refusals import RefusedError
from sweep.fit.table.observations import Observations, RunNoise

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

N_LOSS_GRID = 12  # values of C at which L_opt(C) is taken from the hull
SIMULATED = "simulated from the parametric surface"
ROUGH_PLACES = (
    "vertices of the hull are sizes of the grid: on coarse grids the coverage of the intervals of a, b, N "
    "and D is below nominal, down to 60 % for 90 %; treat them as approximate"
)
UNPROVED = (
    "the intervals come from resampled {}, and their coverage for a hull is unproved: treat them as "
    "approximate"
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Records:
    """Final points and curve records, by rising C and then loss; arrays of shape (n,)."""

    log_c: FloatArray
    log_n: FloatArray
    log_d: FloatArray
    log_loss: FloatArray
    cluster: IntArray


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EnvelopeDraws:
    """Usable draws of the law (n_draws, 7), the resampling scheme, and the noise of one run."""

    draws: FloatArray
    scheme: str
    noise: RunNoise | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Traits:
    """Statistics of hulls: level and slope of ln N and ln D at the centre (k, 4), ln L on the grid (k, g)."""

    slopes: FloatArray
    log_loss: FloatArray


def efficient_points(log_c: FloatArray, log_loss: FloatArray) -> IntArray:
    """Return the indices of the vertices of the lower convex hull along which the loss falls, by rising C.

    The hull ends at the lowest loss: vertices of larger C and higher loss do not count. Source: McLeish et
    al. 2025 (Gemstones), section 4.1, in place of the binned minimum of Hoffmann et
    al. 2022, section 3.1. `log_c` and `log_loss` are (n,).

    >>> efficient_points(np.array([0.0, 1.0, 2.0, 3.0]), np.array([3.0, 2.9, 1.0, 1.5])).tolist()
    [0, 2]
    """
    order = np.lexsort((log_loss, log_c))
    lowest = np.minimum.accumulate(log_loss[order])
    falling = np.ones(len(order), bool)
    falling[1:] = log_loss[order][1:] < lowest[:-1]
    rows = order[falling]
    return rows[lower_chain(log_c[rows].tolist(), log_loss[rows].tolist())]


def lower_chain(x: list[float], y: list[float]) -> list[int]:
    """Return the indices of the lower convex hull of points with rising x and falling y (Andrew 1979)."""
    hull: list[int] = []
    for i in range(len(x)):
        while len(hull) >= 2:
            first, second = hull[-2], hull[-1]
            turn = (x[second] - x[first]) * (y[i] - y[first]) - (y[second] - y[first]) * (x[i] - x[first])
            if turn > 0:
                break
            hull.pop()
        hull.append(i)
    return hull


def laws_through(records: Records, hull: IntArray, center: float) -> FloatArray:
    """Return theta (7,) of the power laws through one hull."""
    grid = _grid(records, hull)
    traits = _traits(records, [hull], records.log_loss[None], grid, center)
    coefficients: FloatArray = _coefficients(traits, grid - center)[0]
    return coefficients


def draw_laws(
    observations: Observations, records: Records, hull: IntArray, center: float, config: FitConfig
) -> EnvelopeDraws:
    """Return draws of the law through `hull`; none if config.n_bootstrap is 0.

    Raises:
        RefusedError: most resamples leave too few efficient points.
    """
    if not config.n_bootstrap:
        return EnvelopeDraws(draws=np.empty((0, 7)), scheme="none", noise=None, warnings=())
    if not observations.has_trunks and not observations.curves:
        try:
            return _simulated(observations, records, hull, center, config)
        except RefusedError as refused:
            if refused.refusal.kind == "degenerate_resamples":
                raise
    what = "whole trunks" if observations.has_trunks else "points"
    few = trunk_warning(observations.cluster, config.n_bootstrap)
    if has_too_few_trunks(observations.cluster):
        return EnvelopeDraws(draws=np.empty((0, 7)), scheme=what, noise=None, warnings=few)
    hulls, losses = _cases(records, config)
    _check(len(hulls), config)
    traits = _traits(records, hulls, losses, _grid(records, hull), center)
    return EnvelopeDraws(
        draws=_coefficients(traits, _grid(records, hull) - center),
        scheme=what,
        noise=None,
        warnings=(UNPROVED.format(what), *few),
    )


def _simulated(
    observations: Observations, records: Records, hull: IntArray, center: float, config: FitConfig
) -> EnvelopeDraws:
    check_design(observations)
    data = centred(observations)
    theta = data.from_centred(estimate_surface(data, config.huber_delta)[0])
    predicted = np.log(surface_loss(theta, np.exp(records.log_n), np.exp(records.log_d)))
    n_dof = max(1, len(predicted) - FREE.n_free)
    sd = math.sqrt(float(((records.log_loss - predicted) ** 2).sum()) / n_dof)
    hulls, rows = [], []
    for targets in simulated_targets(predicted, sd, n_dof, config.n_bootstrap, config.seed):
        found = list(_hulls(records, targets))
        kept = [i for i, one in enumerate(found) if _usable(records, one)]
        hulls += [found[i] for i in kept]
        rows.append(targets[kept])
    _check(len(hulls), config)
    grid = _grid(records, hull)
    estimate = _traits(records, [hull], records.log_loss[None], grid, center)
    drawn = _traits(records, hulls, np.concatenate(rows), grid, center)
    truth = _surface_traits(observations, theta, grid, center)
    about = _Traits(
        slopes=estimate.slopes - (drawn.slopes - truth.slopes),
        log_loss=estimate.log_loss - (drawn.log_loss - truth.log_loss),
    )
    return EnvelopeDraws(
        draws=_coefficients(about, grid - center),
        scheme=SIMULATED,
        noise=RunNoise(sd=sd, n_dof=n_dof, source="residuals"),
        warnings=(ROUGH_PLACES,),
    )


def _surface_traits(
    observations: Observations, theta: FloatArray, grid: FloatArray, center: float
) -> _Traits:
    """Return the same statistics of the surface's optimum, the hull of a dense grid without noise."""
    optimum = surface_optimum(theta, np.exp(grid), observations.flops_per_token)
    lines = [np.polyfit(grid - center, np.log(x), 1) for x in (optimum.n_params_opt, optimum.n_tokens_opt)]
    return _Traits(
        slopes=np.array([[lines[0][1], lines[0][0], lines[1][1], lines[1][0]]]),
        log_loss=np.log(optimum.loss_opt)[None],
    )


def _grid(records: Records, hull: IntArray) -> FloatArray:
    return np.linspace(records.log_c[hull[0]], records.log_c[hull[-1]], N_LOSS_GRID)


def _traits(
    records: Records, hulls: list[IntArray], losses: FloatArray, grid: FloatArray, center: float
) -> _Traits:
    """Return the statistics of each hull; row i of `losses` (k, n) holds ln L of the records for hull i."""
    slopes, read = np.empty((len(hulls), 4)), np.empty((len(hulls), len(grid)))
    for row, hull in enumerate(hulls):
        x = records.log_c[hull] - center
        mean = x.mean()
        for column, values in ((0, records.log_n[hull]), (2, records.log_d[hull])):
            slope = float((x - mean) @ values) / float((x - mean) @ (x - mean))
            slopes[row, column : column + 2] = values.mean() - slope * mean, slope
        read[row] = np.interp(grid, records.log_c[hull], losses[row, hull])
    return _Traits(slopes=slopes, log_loss=read)


def _coefficients(traits: _Traits, x: FloatArray) -> FloatArray:
    """Return theta (k, 7): the slopes, and the law of the loss fitted at ln C less the centre, `x` (g,)."""
    losses = np.exp(traits.log_loss)[:, None, :]
    flat = np.zeros_like(losses)
    laws = power_laws(np.broadcast_to(x, losses[:, 0].shape), np.concatenate([flat, flat, losses], axis=1))
    return np.concatenate([traits.slopes, laws[:, 4:]], axis=1)


def _cases(records: Records, config: FitConfig) -> tuple[list[IntArray], FloatArray]:
    """Return usable hulls of resampled points or trunks, and ln L of the records, one row a hull."""
    hulls: list[IntArray] = []
    for weights in case_weights(records.cluster, config.n_bootstrap, config.seed):
        losses = np.where(weights > 0, records.log_loss, np.inf)
        hulls += [hull for hull in _hulls(records, losses) if _usable(records, hull)]
    return hulls, np.broadcast_to(records.log_loss, (len(hulls), len(records.log_loss)))


def _hulls(records: Records, losses: FloatArray) -> Iterator[IntArray]:
    """Yield the efficient points of each row of ln L (k, n), infinite where a record is absent."""
    lowest = np.minimum.accumulate(losses, axis=1)
    falling = np.isfinite(losses)
    falling[:, 1:] &= losses[:, 1:] < lowest[:, :-1]
    for mask, row in zip(falling, losses, strict=True):
        kept = np.flatnonzero(mask)
        yield kept[lower_chain(records.log_c[kept].tolist(), row[kept].tolist())]


def _usable(records: Records, hull: IntArray) -> bool:
    spans = len(hull) >= 3 and float(np.ptp(records.log_c[hull])) > 1.0
    return spans and len(np.unique(records.log_n[hull])) >= 2


def _check(n_usable: int, config: FitConfig) -> None:
    if 2 * n_usable < config.n_bootstrap:
        raise RefusedError(
            "degenerate_resamples",
            f"{config.n_bootstrap - n_usable} of {config.n_bootstrap} resamples have too few efficient "
            f"points for a law: add sizes at each budget",
        )
