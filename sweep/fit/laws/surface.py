"""The loss surface L(N, D) = E + A/N^alpha + B/D^beta, its optimum under a FLOP constraint, and its laws.

Legend: N parameters, D tokens, C training FLOPs, L loss, f(N) = C / D FLOPs per token; theta = (a, b, e,
alpha, beta) with a = ln A, b = ln B, e = ln E, on a last axis of 5. Source of the form: Hoffmann et al. 2022,
eq. 2.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from sweep.fit.laws.base import Optimum
from sweep.fit.laws.drawn_law import DrawnLaw
from sweep.fit.table.constraint import FlopsPerToken
from sweep.fit.table.observations import Observations

FloatArray = npt.NDArray[np.float64]

MAX_NEWTON_STEPS = 100
MAX_LOG_STEP = 3.0  # in ln N
LOG_N_TOLERANCE = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class SurfaceLaw(DrawnLaw):
    """A fitted loss surface; optima obey the FLOP constraint of its table."""

    COLUMNS: ClassVar[tuple[str, ...]] = ("ln A", "ln B", "ln E", "alpha", "beta")

    flops_range: tuple[float, float]  # of the fitted points; the exponents a and b are taken over it
    objective: float  # sum of Huber losses
    huber_delta: float

    @abc.abstractmethod
    def _constants(self, theta: FloatArray) -> dict[str, FloatArray]:
        """Return the constants of the surface by name, for theta (..., 5)."""

    def named(self, theta: FloatArray) -> dict[str, FloatArray]:
        """Return the constants of the surface, and the exponents a and b, for theta (..., 5)."""
        a, b = optimum_exponents(theta, self.flops_per_token, self.flops_range)
        return {**self._constants(theta), "a": a, "b": b}

    def loss(self, n_params: npt.ArrayLike, n_tokens: npt.ArrayLike) -> FloatArray:
        """Return L(N, D) of the estimate; arguments broadcast."""
        return surface_loss(self.theta, n_params, n_tokens)

    def predicted_losses(self, observations: Observations) -> FloatArray:
        """Return L at each point, shape (n,)."""
        return self.loss(observations.n_params, observations.n_tokens)

    def _optimum(self, theta: FloatArray, flops: FloatArray) -> Optimum:
        return surface_optimum(theta, flops, self.flops_per_token)

    @property
    def surface_theta(self) -> FloatArray:
        """The estimate (5,)."""
        return self.theta

    def with_family(self, n_params: FloatArray, flops_per_token: FloatArray) -> Self:
        """Return the law with FLOPs per token beyond the fitted sizes taken from planned sizes (N, f)."""
        curve = self.flops_per_token.extended(n_params, flops_per_token)
        return dataclasses.replace(self, flops_per_token=curve)

    def loss_off_optimum(self, flops: float, factor: float) -> float:
        """Return the loss at budget `flops` with `factor` times the optimal N."""
        n_params = factor * self.n_params_opt(flops)
        return float(self.loss(n_params, flops / float(self.flops_per_token(n_params))))


def surface_loss(theta: FloatArray, n_params: npt.ArrayLike, n_tokens: npt.ArrayLike) -> FloatArray:
    """Return L at N and D (broadcast to shape S) for theta of shape (..., 5); result (..., *S)."""
    log_n, log_d = np.broadcast_arrays(np.log(n_params), np.log(n_tokens))
    a, b, e, alpha, beta = _parts(theta, log_n.ndim)
    loss: FloatArray = np.exp(e) + np.exp(a - alpha * log_n) + np.exp(b - beta * log_d)
    return loss


def surface_optimum(theta: FloatArray, flops: FloatArray, curve: FlopsPerToken) -> Optimum:
    """Return N, D of least loss with D f(N) = C; `flops` (k,) and theta (..., 5) give arrays (..., k).

    At the minimum over x = ln N, with s = d ln f / d x:  alpha A N^-alpha = beta B D^-beta s. The difference
    of the two sides' logarithms decreases in x. Newton's method starts from the solution for f = 6 N, where
    s = 1 and N = G (C/6)^(beta/(alpha+beta)), G = (alpha A / (beta B))^(1/(alpha+beta)) (Hoffmann et al.
    2022, eq. 4).
    """
    a, b, _, alpha, beta = _parts(theta, 1)
    log_c = np.log(flops)
    balance = a + np.log(alpha) - b - np.log(beta)
    x: FloatArray = (balance + beta * (log_c - math.log(6.0))) / (alpha + beta)
    for _ in range(0 if curve.kind == "6nd" else MAX_NEWTON_STEPS):
        n_params = np.exp(x)
        slope = curve.slope(n_params)
        excess = balance - alpha * x + beta * (log_c - curve.log_flops(n_params)) - np.log(slope)
        fall = alpha + beta * slope + curve.curvature(n_params) / slope
        step = excess / np.maximum(fall, 0.25 * (alpha + beta * slope))
        x = x + np.clip(step, -MAX_LOG_STEP, MAX_LOG_STEP)
        if np.abs(step).max(initial=0.0) < LOG_N_TOLERANCE:
            break
    n_params = np.exp(x)
    n_tokens = np.exp(log_c - curve.log_flops(n_params))
    a, b, e, alpha, beta = _parts(theta, 1)
    loss = np.exp(e) + np.exp(a - alpha * x) + np.exp(b - beta * np.log(n_tokens))
    return Optimum(n_params_opt=n_params, n_tokens_opt=n_tokens, loss_opt=loss)


def optimum_exponents(
    theta: FloatArray, curve: FlopsPerToken, flops_range: tuple[float, float]
) -> tuple[FloatArray, FloatArray]:
    """Return a and b of N_opt ∝ C^a, D_opt ∝ C^b, each of shape (...) for theta (..., 5).

    With f = 6 N they are beta/(alpha+beta) and alpha/(alpha+beta) at any C. Under the exact constraint the
    local exponents vary a little with C, and a and b are the mean slopes over `flops_range`.
    """
    if curve.kind == "6nd":
        alpha, beta = theta[..., 3], theta[..., 4]
        return beta / (alpha + beta), alpha / (alpha + beta)
    ends = surface_optimum(theta, np.array(flops_range), curve)
    span = math.log(flops_range[1] / flops_range[0])
    log_n, log_d = np.log(ends.n_params_opt), np.log(ends.n_tokens_opt)
    return (log_n[..., 1] - log_n[..., 0]) / span, (log_d[..., 1] - log_d[..., 0]) / span


def _parts(theta: FloatArray, n_axes: int) -> FloatArray:
    """Return the five components on the first axis, broadcastable against `n_axes` trailing axes."""
    parts: FloatArray = np.moveaxis(theta, -1, 0)
    return parts.reshape(parts.shape + (1,) * n_axes)
