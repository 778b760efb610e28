"""The numbers of the figures of a fit's quality: contours of loss, residuals, bootstrap clouds, the backtest.

Legend: N parameters, D tokens, C training FLOPs, L loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweep.fit.checks.backtest import Backtest
from sweep.fit.fit import Fit
from sweep.fit.methods.overtraining import OvertrainingLaw
from sweep.fit.methods.parametric import ParametricLaw
from sweep.fit.refusals import Refusal
from sweep.fit.table.observations import Observations, observe
from sweep.records import Point

FloatArray = npt.NDArray[np.float64]

N_GRID = 121
MARGIN = 2.0  # drawn past the points' N and C, a factor
BEYOND = 10.0  # past the largest C
N_LEVELS = 12
MAX_CLOUD = 1000  # draws shown


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class IsoLoss:
    """The fitted loss over C and N, its efficient frontier, and the points."""

    method: str
    flops: FloatArray  # (k,)
    n_params: FloatArray  # (m,)
    loss: FloatArray  # (m, k)
    levels: FloatArray
    frontier_n_params: FloatArray  # (k,) N_opt at `flops`
    point_flops: FloatArray
    point_n_params: FloatArray
    point_loss: FloatArray
    flops_max: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Residuals:
    """ln L less its prediction at each fitted point."""

    method: str
    flops: FloatArray
    residual: FloatArray
    huber_delta: float
    sd: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Cloud:
    """Bootstrap draws of a method's exponent and D/N at the largest budget."""

    method: str
    flops: float
    exponent: FloatArray
    tokens_per_param: FloatArray
    exponent_estimate: float
    tokens_per_param_estimate: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BacktestMarks:
    """One method's signed relative errors of the optimal loss on the budgets left out."""

    method: str
    flops: FloatArray
    loss_error: FloatArray
    n_params_error: FloatArray  # nan where the budget's own minimum does not count
    largest_fitted_flops: float


def isoloss(fit: Fit, points: Sequence[Point]) -> IsoLoss | None:
    """Contours of the parametric surface with its efficient frontier; None where the method refused."""
    law = fit.methods.get("parametric")
    if not isinstance(law, ParametricLaw):
        return None
    seen = _observations(fit, points)
    low, high = law.flops_range
    flops = np.geomspace(low / MARGIN, high * BEYOND, N_GRID)
    frontier = law.optimum(flops).n_params_opt
    sizes = np.concatenate([seen.n_params, frontier])
    n_params = np.geomspace(sizes.min() / MARGIN, sizes.max() * MARGIN, N_GRID)
    loss = law.loss(n_params[:, None], flops[None] / law.flops_per_token(n_params)[:, None])
    lowest = float(law.optimum(flops[-1:]).loss_opt[0])
    return IsoLoss(
        method="parametric",
        flops=flops,
        n_params=n_params,
        loss=loss,
        levels=np.geomspace(lowest * 1.002, float(seen.loss.max()), N_LEVELS),
        frontier_n_params=frontier,
        point_flops=seen.flops,
        point_n_params=seen.n_params,
        point_loss=seen.loss,
        flops_max=high,
    )


def residuals(fit: Fit, points: Sequence[Point]) -> tuple[Residuals, ...]:
    """ln L less the prediction of every surface in (total N, D) that was fitted."""
    found = []
    for name, law in fit.laws.items():
        if isinstance(law, (ParametricLaw, OvertrainingLaw)):
            seen = _observations(fit, points)
            residual = np.log(seen.loss) - np.log(law.loss(seen.n_params, seen.n_tokens))
            found.append(
                Residuals(
                    method=name,
                    flops=seen.flops,
                    residual=residual,
                    huber_delta=law.huber_delta,
                    sd=float(np.sqrt((residual**2).mean())),
                )
            )
    return tuple(found)


def clouds(fit: Fit) -> tuple[Cloud, ...]:
    """Draws of (a, D/N) at the largest fitted C by every method that has draws."""
    if fit.flops_range is None:
        return ()
    low, high = fit.flops_range
    ends, span = np.array([low, high]), math.log(high / low)
    found = []
    for name, law in fit.laws.items():
        if law.n_draws and span > 0:
            drawn, told = law.optimum_draws(ends), law.optimum(ends)
            logs, estimate = np.log(drawn.n_params_opt), np.log(told.n_params_opt)
            found.append(
                Cloud(
                    method=name,
                    flops=high,
                    exponent=((logs[:, 1] - logs[:, 0]) / span)[:MAX_CLOUD],
                    tokens_per_param=drawn.tokens_per_param_opt[:MAX_CLOUD, 1],
                    exponent_estimate=float((estimate[1] - estimate[0]) / span),
                    tokens_per_param_estimate=float(told.tokens_per_param_opt[1]),
                )
            )
    return tuple(found)


def backtest_marks(fit: Fit) -> tuple[BacktestMarks, ...]:
    """Each method's errors on the budgets left out; nothing where there was no backtest."""
    found = []
    if not isinstance(fit.backtest, Backtest):
        return ()
    for name, tested in fit.backtest.methods.items():
        budgets = () if isinstance(tested, Refusal) else tested.budgets
        if budgets:
            found.append(
                BacktestMarks(
                    method=name,
                    flops=np.array([budget.flops for budget in budgets]),
                    loss_error=np.array([budget.loss_opt_error for budget in budgets]),
                    n_params_error=np.array(
                        [
                            math.nan if budget.n_params_opt_error is None else budget.n_params_opt_error
                            for budget in budgets
                        ]
                    ),
                    largest_fitted_flops=fit.backtest.largest_fitted_flops,
                )
            )
    return tuple(found)


def _observations(fit: Fit, points: Sequence[Point]) -> Observations:
    return observe(points, {point.run_key: point.reason for point in fit.excluded})
