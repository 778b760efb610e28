"""Contours of the fitted parametric loss over compute and parameters, with the efficient frontier.

Legend: N parameters, D tokens, C training FLOPs, L loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweep.fit.methods.parametric import ParametricLaw
from sweep.report.results import SweepResults

FloatArray = npt.NDArray[np.float64]

N_GRID = 121
MAX_LEVELS = 12
LEVEL_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)  # nats per token
MARGIN = 2.0  # the grid reaches this factor past the N and C of the points
BEYOND = 10.0  # and up to this multiple of the largest C


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class IsoLoss:
    """The fitted loss over C and N, its efficient frontier, and the points."""

    method: str
    flops: FloatArray  # (k,)
    n_params: FloatArray  # (m,)
    loss: FloatArray  # (m, k) nats per token
    levels: FloatArray  # at most MAX_LEVELS, round numbers
    frontier_n_params: FloatArray  # (k,) N_opt at `flops`
    point_flops: FloatArray  # (n,)
    point_n_params: FloatArray  # (n,)
    point_loss: FloatArray  # (n,)
    flops_max: float
    doubted: bool  # the points show lack of fit


def isoloss(results: SweepResults) -> tuple[IsoLoss, ...]:
    """Return the contours of the parametric surface; empty if that method refused."""
    law = results.fit.methods.get("parametric")
    if not isinstance(law, ParametricLaw):
        return ()
    observations = results.observations()
    low, high = law.flops_range
    flops = np.geomspace(low / MARGIN, high * BEYOND, N_GRID)
    frontier = law.optimum(flops).n_params_opt
    sizes = np.concatenate([observations.n_params, frontier])
    n_params = np.geomspace(sizes.min() / MARGIN, sizes.max() * MARGIN, N_GRID)
    loss = law.loss(n_params[:, None], flops[None] / law.flops_per_token(n_params)[:, None])
    lowest = float(law.optimum(flops[-1:]).loss_opt[0])
    contours = IsoLoss(
        method="parametric",
        flops=flops,
        n_params=n_params,
        loss=loss,
        levels=round_levels(lowest, float(observations.loss.max())),
        frontier_n_params=frontier,
        point_flops=observations.flops,
        point_n_params=observations.n_params,
        point_loss=observations.loss,
        flops_max=high,
        doubted=law.doubted,
    )
    return (contours,)


def round_levels(lowest: float, highest: float) -> FloatArray:
    """Return the multiples of a round step between two losses, at most MAX_LEVELS.

    >>> round_levels(3.31, 4.02).tolist()
    [3.4, 3.5, 3.6, 3.7, 3.8, 3.9, 4.0]
    """
    for step in LEVEL_STEPS:
        first, last = math.floor(lowest / step) + 1, math.floor(highest / step)
        if last - first < MAX_LEVELS:
            break
    return np.round(step * np.arange(first, last + 1), 2)
