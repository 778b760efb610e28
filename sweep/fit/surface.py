"""The loss surface L(N, D) = E + A/N^alpha + B/D^beta and its optimum under a FLOP constraint.

Legend: N parameters, D tokens, C training FLOPs, L loss, f(N) = C / D FLOPs per token; theta = (a, b, e,
alpha, beta) with a = ln A, b = ln B, e = ln E, on a last axis of 5. Source of the form: Hoffmann et al. 2022,
eq. 2.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sweep.fit.laws.base import Optimum
from sweep.fit.table.constraint import FlopsPerToken

FloatArray = npt.NDArray[np.float64]

MAX_NEWTON_STEPS = 100
MAX_LOG_STEP = 3.0  # in ln N
LOG_N_TOLERANCE = 1e-12


def surface_loss(theta: FloatArray, n_params: npt.ArrayLike, n_tokens: npt.ArrayLike) -> FloatArray:
    """L at N and D (broadcast together, shape S) for theta of shape (..., 5); result (..., *S)."""
    log_n, log_d = np.broadcast_arrays(np.log(n_params), np.log(n_tokens))
    a, b, e, alpha, beta = _parts(theta, log_n.ndim)
    loss: FloatArray = np.exp(e) + np.exp(a - alpha * log_n) + np.exp(b - beta * log_d)
    return loss


def surface_optimum(theta: FloatArray, flops: FloatArray, curve: FlopsPerToken) -> Optimum:
    """The N, D of least loss with D f(N) = C; `flops` (k,) and theta (..., 5) give arrays (..., k).

    At the minimum over x = ln N, with s = d ln f / d x:  alpha A N^-alpha = beta B D^-beta s. The difference
    of the two sides' logarithms falls steadily in x; Newton from the answer for f = 6 N, where s = 1 and
    N = G (C/6)^(beta/(alpha+beta)), G = (alpha A / (beta B))^(1/(alpha+beta)) (Hoffmann et al. 2022, eq. 4).
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
    """a and b of N_opt ∝ C^a, D_opt ∝ C^b: mean slopes over `flops_range`; theta (..., 5) gives (...).

    With f = 6 N they are beta/(alpha+beta) and alpha/(alpha+beta) at any C; under the exact constraint the
    slopes vary a little, so the range of the points is what they describe.
    """
    if curve.kind == "6nd":
        alpha, beta = theta[..., 3], theta[..., 4]
        return beta / (alpha + beta), alpha / (alpha + beta)
    ends = surface_optimum(theta, np.array(flops_range), curve)
    span = math.log(flops_range[1] / flops_range[0])
    log_n, log_d = np.log(ends.n_params_opt), np.log(ends.n_tokens_opt)
    return (log_n[..., 1] - log_n[..., 0]) / span, (log_d[..., 1] - log_d[..., 0]) / span


def _parts(theta: FloatArray, n_axes: int) -> FloatArray:
    """The five components first, each ready to broadcast against `n_axes` trailing axes."""
    parts: FloatArray = np.moveaxis(theta, -1, 0)
    return parts.reshape(parts.shape + (1,) * n_axes)
