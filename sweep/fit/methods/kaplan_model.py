"""Kaplan's L(N, D) in centred logarithms, and the global minimum of its objective.

Legend: N parameters, D tokens, L loss; theta = (a, b, x, g): ln L = g ln(exp(a - x u) + exp(b - v)), u and v
the centred ln N and ln D.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweep.fit.numerics.minimise import FunctionModel, minimise, polish
from sweep.fit.refusals import RefusedError

FloatArray = npt.NDArray[np.float64]

START_RATIOS = (0.4, 0.7, 1.0, 1.5)  # of alpha_N / alpha_D
START_EXPONENTS = (0.03, 0.06, 0.12, 0.25, 0.5)  # of alpha_D
RATIO_BOUNDS, EXPONENT_BOUNDS = (0.02, 50.0), (1e-3, 5.0)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class KaplanModel:
    """ln L (k, n) as a function of theta (k, 4) at fixed points."""

    u: FloatArray
    v: FloatArray
    center_n: float
    center_d: float

    @classmethod
    def of(cls, n_params: FloatArray, n_tokens: FloatArray) -> KaplanModel:
        """Return the model for points with N and D of shape (n,)."""
        log_n, log_d = np.log(n_params), np.log(n_tokens)
        center_n, center_d = float(log_n.mean()), float(log_d.mean())
        return cls(u=log_n - center_n, v=log_d - center_d, center_n=center_n, center_d=center_d)

    def _parts(self, theta: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        a, b, x, g = theta.T[:, :, None]
        first, second = np.exp(a - x * self.u), np.exp(b - self.v)
        total = first + second
        return first / total, np.log(total), g

    def __call__(self, theta: FloatArray) -> FloatArray:
        """Return ln L (k, n)."""
        _, log_total, g = self._parts(theta)
        return np.asarray(g * log_total, dtype=np.float64)

    def jacobian(self, theta: FloatArray) -> FloatArray:
        """Return the derivatives (k, n, 4) of ln L by theta."""
        share, log_total, g = self._parts(theta)
        return np.stack([g * share, g * (1 - share), -g * share * self.u, log_total], axis=2)

    def from_centred(self, theta: FloatArray) -> FloatArray:
        """Return centred theta (..., 4) with N and D in their original units."""
        a, b, x, g = np.moveaxis(theta, -1, 0)
        return np.stack([a + x * self.center_n, b + self.center_d, x, g], axis=-1)

    @staticmethod
    def usable(theta: FloatArray) -> npt.NDArray[np.bool_]:
        """Return a mask of the rows with both exponents within their bounds."""
        x, g = theta[:, 2], theta[:, 3]
        inside = (x >= RATIO_BOUNDS[0]) & (x <= RATIO_BOUNDS[1])
        return np.asarray(inside & (g >= EXPONENT_BOUNDS[0]) & (g <= EXPONENT_BOUNDS[1]))


def estimate_kaplan(model: KaplanModel, log_loss: FloatArray, delta: float) -> tuple[FloatArray, float]:
    """Return centred theta (4,) of the global minimum, and its objective.

    Raises:
        RefusedError: an exponent is at its bound, or a term vanishes.
    """
    function = FunctionModel(model, model.jacobian)
    solution = minimise(function, _starts(model, log_loss), log_loss, delta, max_iterations=300)
    best = int(np.argmin(solution.objective))
    theta, objective = polish(function, solution.theta[best], log_loss, delta)
    share = model._parts(theta[None])[0][0]
    if not model.usable(theta[None])[0] or share.max() < 1e-7 or share.min() > 1 - 1e-7:
        raise RefusedError(
            "exponent_at_bound",
            f"the fit with alpha_D={theta[3]:.4g} and alpha_N={theta[2] * theta[3]:.4g} does not depend on "
            f"both N and D as a power law: add a wider range of N and D, or more seeds",
        )
    return theta, objective


def _starts(model: KaplanModel, log_loss: FloatArray) -> FloatArray:
    """Return a start for each pair of exponents; L^(1/alpha_D) is linear in A and Dc, by least squares."""
    starts = []
    for x in START_RATIOS:
        for g in START_EXPONENTS:
            goal = np.exp((log_loss - log_loss.mean()) / g)
            design = np.stack([np.exp(-x * model.u), np.exp(-model.v)], axis=1) / goal[:, None]
            scales = np.linalg.lstsq(design, np.ones(len(goal)), rcond=None)[0]
            logs = np.log(np.maximum(scales, 1e-2)) + log_loss.mean() / g
            starts.append([logs[0], logs[1], x, g])
    return np.array(starts)
