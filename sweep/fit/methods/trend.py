"""Method `trend`: local linear trends of ln N_opt and ln L_opt in ln C through the minima of `isoflop`.

A power law through all minima assumes one exponent for the whole range of a sweep. Measured exponents drift
with C, so the method follows the slope at the largest budgets and continues it on a straight line.

Legend: N parameters, D tokens, C training FLOPs, L loss, f(N) = C / D FLOPs per token.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from sweep.config import FitConfig
from sweep.fit.laws.base import Optimum
from sweep.fit.laws.drawn_law import DrawnLaw
from sweep.fit.methods.isoflop import CHOICE_SD_LOSS, CHOICE_SD_N, find_minima
from sweep.fit.numerics.trend import SlopePrior, fit_trend
from sweep.fit.table.observations import Observations, RunNoise

FloatArray = npt.NDArray[np.float64]

SLOPE_PRIOR = SlopePrior(mean=0.5, sd=0.3)
"""Of d ln N_opt / d ln C, near uniform on 0 to 1 (sd .29), where both N and D grow with C.

Published sweeps have slopes from .3 to .75; a narrower prior biases those far from .5.
"""
DRIFT_N = 5e-3  # variance of the slope of ln N_opt per e-fold of C; scripts/benchmarks/calibrate_answer.py
DRIFT_LOSS = 1e-5  # of ln L_opt
SCHEME = "normal, by the standard errors of the minima"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class TrendLaw(DrawnLaw):
    """N_opt = N_0 (C/C_0)^a and L_opt = L_0 (C/C_0)^-gamma from C_0 = flops_origin, the largest budget, on.

    theta = (ln N_0, a, ln L_0, -gamma). D_opt = C / f(N_opt), and b is its exponent at C_0.
    """

    COLUMNS: ClassVar[tuple[str, ...]] = ("ln N_0", "a", "ln L_0", "-gamma")

    flops_origin: float

    def named(self, theta: FloatArray) -> dict[str, FloatArray]:
        """Return a, b and gamma, for theta (..., 4)."""
        elasticity = self.flops_per_token.slope(np.exp(theta[..., 0]))
        return {"a": theta[..., 1], "b": 1.0 - theta[..., 1] * elasticity, "gamma": -theta[..., 3]}

    def with_family(self, n_params: FloatArray, flops_per_token: FloatArray) -> Self:
        """Return the law with FLOPs per token beyond the fitted sizes taken from planned sizes (N, f)."""
        curve = self.flops_per_token.extended(n_params, flops_per_token)
        return dataclasses.replace(self, flops_per_token=curve)

    def _optimum(self, theta: FloatArray, flops: FloatArray) -> Optimum:
        log_n, a, log_loss, slope = np.moveaxis(theta, -1, 0)[..., None]
        x = np.log(flops / self.flops_origin)
        n_params = np.exp(log_n + a * x)
        return Optimum(
            n_params_opt=n_params,
            n_tokens_opt=flops / self.flops_per_token(n_params),
            loss_opt=np.exp(log_loss + slope * x),
        )


def fit_trend_law(observations: Observations, config: FitConfig) -> TrendLaw:
    """Fit trends to the minima of `isoflop`, each weighted by its standard error.

    Draws are normal, with the covariance that the noise of the minima gives to the lines; the drift of the
    slopes is an error of the form, and not part of it.

    Raises:
        RefusedError: no budgets, or fewer than three valid minima.
    """
    found = find_minima(observations, config.isoflop)
    log_c, (log_n, _, loss) = found.log_c, found.table
    in_size, in_loss = found.standard_errors
    size = fit_trend(log_c, log_n, np.hypot(in_size, CHOICE_SD_N), drift=DRIFT_N, prior=SLOPE_PRIOR)
    level = fit_trend(log_c, np.log(loss), np.hypot(in_loss, CHOICE_SD_LOSS), drift=DRIFT_LOSS)
    noise = observations.replicate_noise or RunNoise(
        sd=found.residual_sd, n_dof=found.residual_dof, source="residuals"
    )
    theta = np.concatenate([size.coefficients, level.coefficients])
    spread = [
        _draws(line.noise_covariance(sd), config.n_bootstrap, config.seed + number)
        for number, (line, sd) in enumerate(((size, in_size), (level, in_loss)))
    ]
    return TrendLaw(
        theta=theta,
        draws=theta + np.concatenate(spread, axis=1),
        scheme=SCHEME,
        n_degenerate=0,
        flops_origin=math.exp(float(log_c[-1])),
        flops_per_token=observations.flops_per_token,
        confidence=config.confidence,
        noise=noise,
        warnings=(),
    )


def _draws(covariance: FloatArray, n_draws: int, seed: int) -> FloatArray:
    """Return normal deviations (n_draws, 2) with a covariance (2, 2)."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.standard_normal((n_draws, 2)) @ np.linalg.cholesky(covariance).T)
