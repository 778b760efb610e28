"""Kaplan's L(N, D) in centred logarithms, and the global minimum of its objective.

Legend: N parameters, D tokens, L loss; theta = (a, b, x, g): ln L = g T, T = ln(exp(a - x u) + exp(b - v)), u
and v the centred ln N and ln D; s = exp(a - x u - T) is the share of the first term.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from sweep.fit.numerics.minimise import minimise, polish
from sweep.fit.refusals import RefusedError

FloatArray = npt.NDArray[np.float64]

START_RATIOS = (0.4, 0.7, 1.0, 1.5)  # of alpha_N / alpha_D
START_EXPONENTS = (0.03, 0.06, 0.12, 0.25, 0.5)  # of alpha_D
SCREENING_ITERATIONS, REFINED_STARTS = 15, 4
RATIO_BOUNDS, EXPONENT_BOUNDS = (0.02, 50.0), (1e-3, 5.0)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class KaplanModel:
    """ln L (k, n) as a function of theta (k, 4) at fixed points, with exact derivatives."""

    u: FloatArray
    v: FloatArray
    center_n: float
    center_d: float

    is_exact: ClassVar[bool] = True
    least_damping: ClassVar[float] = 0.0
    relative_decrease: ClassVar[float] = 1e-12
    max_iterations: ClassVar[int] = 300

    @classmethod
    def of(cls, n_params: FloatArray, n_tokens: FloatArray) -> KaplanModel:
        """Return the model for points with N and D of shape (n,)."""
        log_n, log_d = np.log(n_params), np.log(n_tokens)
        center_n, center_d = float(log_n.mean()), float(log_d.mean())
        return cls(u=log_n - center_n, v=log_d - center_d, center_n=center_n, center_d=center_d)

    def evaluate(self, theta: FloatArray) -> tuple[FloatArray, ...]:
        """Return ln L, s and T, each (k, n)."""
        a, b, x, g = theta.T[:, :, None]
        first = np.exp(a - x * self.u)
        total = first + np.exp(b - self.v)
        first /= total
        log_total = np.log(total)
        return g * log_total, first, log_total

    def derivatives(
        self, theta: FloatArray, reused: tuple[FloatArray, ...], psi: FloatArray, second: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return the gradient (k, 4) and exact Hessian (k, 4, 4).

        With z = (s, 1 - s, -u s) the gradient of T by (a, b, x), that of ln L is (g z, T). T is a log-sum-exp
        of functions linear in (a, b, x), with the Hessian s (1 - s) w w', w = (1, -1, -u).
        """
        (share, log_total), g = reused, theta[:, 3]
        other, ones = 1.0 - share, np.ones_like(self.u)
        powers = np.stack([ones, self.u, self.u * self.u], axis=1)
        s_psi, s_second = share * psi, share * second
        psi_n, psi_d = s_psi @ powers[:, :2], (psi * other).sum(axis=1)
        psi_nd = (s_psi * other) @ powers
        nn, nd = (s_second * share) @ powers, (s_second * other) @ powers[:, :2]
        dd = np.einsum("kn,kn->k", second * other, other)
        total = second * log_total
        nt, dt = (total * share) @ powers[:, :2], np.einsum("kn,kn->k", total, other)
        g2, curved = g * g, g[:, None] * psi_nd
        gradient = np.stack(
            [-g * psi_n[:, 0], -g * psi_d, g * psi_n[:, 1], -np.einsum("kn,kn->k", psi, log_total)], axis=1
        )
        hessian = np.empty((len(theta), 4, 4))
        upper = {
            (0, 0): g2 * nn[:, 0] - curved[:, 0],
            (0, 1): g2 * nd[:, 0] + curved[:, 0],
            (0, 2): -g2 * nn[:, 1] + curved[:, 1],
            (0, 3): g * nt[:, 0] - psi_n[:, 0],
            (1, 1): g2 * dd - curved[:, 0],
            (1, 2): -g2 * nd[:, 1] - curved[:, 1],
            (1, 3): g * dt - psi_d,
            (2, 2): g2 * nn[:, 2] - curved[:, 2],
            (2, 3): -g * nt[:, 1] + psi_n[:, 1],
            (3, 3): np.einsum("kn,kn->k", total, log_total),
        }
        for (i, j), values in upper.items():
            hessian[:, i, j] = hessian[:, j, i] = values
        return gradient, hessian

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


def estimate_kaplan(
    model: KaplanModel, log_loss: FloatArray, delta: float, *, screened: bool = False
) -> tuple[FloatArray, float]:
    """Return centred theta (4,) of the global minimum, and its objective.

    A `screened` search continues only the REFINED_STARTS best starts after a few iterations.

    Raises:
        RefusedError: an exponent is at its bound, or a term vanishes.
    """
    start = _starts(model, log_loss)
    if screened:
        first = minimise(model, start, log_loss, delta, max_iterations=SCREENING_ITERATIONS)
        start = first.theta[np.argsort(first.objective, kind="stable")[:REFINED_STARTS]]
    solution = minimise(model, start, log_loss, delta, max_iterations=100 if screened else None)
    best = int(np.argmin(solution.objective))
    theta, objective = polish(model, solution.theta[best], log_loss, delta)
    share = model.evaluate(theta[None])[1][0]
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
