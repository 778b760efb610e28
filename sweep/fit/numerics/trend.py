"""Local linear trend: extrapolation of a curve whose slope changes slowly.

y(x) = y0 + s0 (x - x0) + w(x), where the slope is a Brownian motion of variance `drift` per unit of x,
started at the last observation x0. Observations near x0 then count more than distant ones, and the forecast
is the straight line that leaves x0 with slope s0. This is the local linear trend model of structural time
series (Harvey 1989, section 2.3), for unequally spaced observations: w is integrated Brownian motion with
covariance drift m^2 (3 M - m) / 6, where m and M are the smaller and the larger distance from x0 (Wahba
1978).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class SlopePrior:
    """Normal prior of the slope at the last observation."""

    mean: float
    sd: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Trend:
    """The line that leaves the last observation: level and slope (2,)."""

    coefficients: FloatArray
    gain: FloatArray  # (2, n), derivatives of the coefficients by the observations

    def noise_covariance(self, sd: FloatArray) -> FloatArray:
        """Return the covariance (2, 2) of the coefficients by independent errors `sd` (n,), without drift."""
        return np.asarray((self.gain * sd**2) @ self.gain.T, dtype=np.float64)


def fit_trend(
    x: FloatArray, y: FloatArray, sd: FloatArray, *, drift: float, prior: SlopePrior | None = None
) -> Trend:
    """Fit the trend to observations `y` at ascending `x`, both (n,), with independent errors `sd` (n,).

    `drift` = 0 is weighted least squares. Without a prior at least two distinct `x` are needed.
    """
    distance = x[-1] - x
    near, far = np.minimum.outer(distance, distance), np.maximum.outer(distance, distance)
    noise = drift * near**2 * (3 * far - near) / 6 + np.diag(sd**2)
    design = np.stack([np.ones_like(x), -distance], axis=1)
    weighted = np.linalg.solve(noise, design)
    precision, moment = design.T @ weighted, weighted.T @ y
    if prior is not None:
        precision = precision + np.diag([0.0, prior.sd**-2])
        moment = moment + np.array([0.0, prior.mean / prior.sd**2])
    covariance = np.asarray(np.linalg.inv(precision), dtype=np.float64)
    return Trend(coefficients=covariance @ moment, gain=covariance @ weighted.T)
