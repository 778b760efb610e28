"""The law of repeated data L(N, D, U), stable for any number of repetitions.

Legend: N parameters, D tokens trained on, U unique tokens among them, C training FLOPs, L loss; theta =
(ln A, ln B, ln E, alpha, beta, ln R_D*, ln R_N*).

    L = E + A/N'^alpha + B/D'^beta,   D' = U + U R_D* (1 - exp(-R_D/R_D*)),   R_D = D/U - 1
    N' = U_N + U_N R_N* (1 - exp(-R_N/R_N*)),   R_N = N/U_N - 1,   U_N = min(N, N_opt(U))

N_opt(U) is the N that is compute-optimal for U tokens under the law itself. Source: Muennighoff et al. 2023,
sections 3.1 and 3.2, equations 5 to 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from sweep.fit.laws.base import Law, Optimum, Quantity
from sweep.fit.laws.drawn_law import DrawnLaw
from sweep.fit.table.observations import Observations

FloatArray = npt.NDArray[np.float64]

SURFACE = ("A", "B", "E", "alpha", "beta", "a", "b")  # constants of the surface without repetition
OPTIMUM_STEPS = 60  # golden sections in ln N
SEARCH_DECADES = 6.0  # of N on either side of the square root of C


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RepetitionProfile:
    """The profile of the objective over R_D*."""

    rows: FloatArray  # (k, 3)
    columns: tuple[str, ...] = ("R_D*", "R_N*", "objective")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class DataConstrainedLaw(DrawnLaw):
    """L(N, D, U), with optima for the unique tokens of its own table."""

    COLUMNS: ClassVar[tuple[str, ...]] = ("ln A", "ln B", "ln E", "alpha", "beta", "ln R_D*", "ln R_N*")

    base: str | None  # the published surface kept in the fit; None where it was fitted too
    n_tokens_unique: float  # U of the optima: the largest of the table
    profile: RepetitionProfile
    identified: bool  # True if the profile bounds R_D* on both sides
    objective: float
    huber_delta: float
    r_squared: float  # of L
    n_repeated: int

    @property
    def assumed(self) -> tuple[str, ...]:
        """The constants of the surface, where a published one was kept."""
        return () if self.base is None else SURFACE

    def named(self, theta: FloatArray) -> dict[str, FloatArray]:
        """Return the constants, and a = beta/(alpha+beta), b = 1 - a of the law without repetition."""
        alpha, beta = theta[..., 3], theta[..., 4]
        scales = np.exp(np.minimum(theta, 600.0))
        a = beta / (alpha + beta)
        return {
            "A": scales[..., 0],
            "B": scales[..., 1],
            "E": scales[..., 2],
            "alpha": alpha,
            "beta": beta,
            "R_D_star": scales[..., 5],
            "R_N_star": scales[..., 6],
            "a": a,
            "b": 1.0 - a,
        }

    def loss(
        self, n_params: npt.ArrayLike, n_tokens: npt.ArrayLike, n_tokens_unique: npt.ArrayLike
    ) -> FloatArray:
        """Return L(N, D, U); arguments broadcast."""
        logs = np.broadcast_arrays(*(np.log(np.atleast_1d(x)) for x in (n_params, n_tokens, n_tokens_unique)))
        return np.exp(repeated_log_loss(self.theta, *logs))

    def predicted_losses(self, observations: Observations) -> FloatArray | None:
        """Return L at each point, shape (n,); None if a point has no count of unique tokens."""
        unique = observations.n_tokens_unique
        return None if unique is None else self.loss(observations.n_params, observations.n_tokens, unique)

    def _optimum(self, theta: FloatArray, flops: FloatArray) -> Optimum:
        log_c, log_u = np.log(flops), np.log(self.n_tokens_unique)
        shape = (*theta.shape[:-1], len(flops))
        middle = np.broadcast_to(0.5 * log_c, shape)
        span = SEARCH_DECADES * np.log(10.0)
        low, high = middle - span, middle + span
        golden = (np.sqrt(5.0) - 1) / 2

        def log_loss(log_n: FloatArray) -> FloatArray:
            log_d = log_c - self.flops_per_token.log_flops(np.exp(log_n))
            return repeated_log_loss(theta, log_n, log_d, log_u)

        left, right = high - golden * (high - low), low + golden * (high - low)
        for _ in range(OPTIMUM_STEPS):
            lower = log_loss(left) < log_loss(right)
            low, high = np.where(lower, low, left), np.where(lower, right, high)
            left, right = high - golden * (high - low), low + golden * (high - low)
        log_n = 0.5 * (low + high)
        n_params = np.exp(log_n)
        return Optimum(
            n_params_opt=n_params,
            n_tokens_opt=np.exp(log_c - self.flops_per_token.log_flops(n_params)),
            loss_opt=np.exp(log_loss(log_n)),
        )

    def band(self, quantity: Quantity, flops: FloatArray) -> tuple[FloatArray, FloatArray] | None:
        """Return confidence limits; None where a published surface was kept, which has no draws."""
        return None if self.base is not None else Law.band(self, quantity, flops)

    def loss_off_optimum(self, flops: float, factor: float) -> float:
        """Return the loss at budget `flops` with `factor` times the optimal N and the table's U."""
        n_params = factor * self.n_params_opt(flops)
        n_tokens = flops / float(self.flops_per_token(n_params))
        return float(self.loss(n_params, n_tokens, min(n_tokens, self.n_tokens_unique))[0])


def repeated_log_loss(
    theta: FloatArray, log_n: FloatArray, log_d: FloatArray, log_u: FloatArray
) -> FloatArray:
    """Return ln L for theta (..., 7); ln N, ln D and ln U of shape (n,) give (..., n)."""
    a, b, e, alpha, beta, log_rd, log_rn = np.moveaxis(theta, -1, 0)[..., None]
    log_effective_d = effective_log(log_d, np.minimum(log_u, log_d), log_rd)
    log_unique_n = np.minimum(log_n, log_n_for_tokens(theta, log_u))
    log_effective_n = effective_log(log_n, log_unique_n, log_rn)
    terms = np.logaddexp(a - alpha * log_effective_n, b - beta * log_effective_d)
    return np.asarray(np.logaddexp(terms, e), dtype=np.float64)


def repeated_slopes(theta: FloatArray, log_n: FloatArray, log_d: FloatArray, log_u: FloatArray) -> FloatArray:
    """Return the derivatives (k, n, 7) of `repeated_log_loss` by theta (k, 7), for logs of shape (n,).

    With p the shares of the terms: d ln L = p_N d(ln A - alpha ln N') + p_D d(ln B - beta ln D') + p_E de.
    Where N exceeds N_opt(U), N' depends on ln A, ln B, alpha and beta through U_N.
    """
    a, b, e, alpha, beta, log_rd, log_rn = theta.T[:, :, None]
    log_opt = log_n_for_tokens(theta, log_u)
    eff_d, eff_n = (
        effective_log(log_d, np.minimum(log_u, log_d), log_rd),
        effective_log(log_n, np.minimum(log_n, log_opt), log_rn),
    )
    parts = np.stack(np.broadcast_arrays(a - alpha * eff_n, b - beta * eff_d, e))
    shares = np.exp(parts - np.logaddexp(np.logaddexp(parts[0], parts[1]), parts[2]))
    d_by_r, _ = _effective_slopes(log_d, np.minimum(log_u, log_d), log_rd)
    n_by_r, n_by_unique = _effective_slopes(log_n, np.minimum(log_n, log_opt), log_rn)
    through = -alpha * n_by_unique * (log_opt < log_n)  # of ln A - alpha ln N' by ln U_N
    log_g = (np.log(alpha) + a - np.log(beta) - b) / (alpha + beta)
    steep = 1.0 + beta / alpha
    opt_by_alpha = steep * (1 / alpha - log_g) / (alpha + beta) - beta / alpha**2 * (log_u + log_g)
    opt_by_beta = -steep * (1 / beta + log_g) / (alpha + beta) + (log_u + log_g) / alpha
    p_n, p_d, p_e = shares
    columns = (
        p_n * (1.0 + through / alpha),
        p_d - p_n * through / alpha,
        p_e,
        p_n * (through * opt_by_alpha - eff_n),
        p_n * through * opt_by_beta - p_d * eff_d,
        -p_d * beta * d_by_r,
        -p_n * alpha * n_by_r,
    )
    return np.stack(np.broadcast_arrays(*columns), axis=2)


def _effective_slopes(
    log_x: FloatArray, log_unique: FloatArray, log_r_star: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the derivatives of `effective_log` by ln R* and by ln U."""
    ratio = np.exp(np.minimum(log_x - log_unique, 700.0))
    r_star = np.exp(np.clip(log_r_star, -300.0, 300.0))
    left = np.maximum(ratio - 1.0, 0.0) / r_star
    decay, gone = np.exp(-left), -np.expm1(-left)
    total = 1.0 + r_star * gone
    return r_star * (gone - left * decay) / total, 1.0 - decay * ratio / total


def effective_log(log_x: FloatArray, log_unique: FloatArray, log_r_star: FloatArray) -> FloatArray:
    """Return ln(U + U R* (1 - exp(-R/R*))), R = x/U - 1, without cancellation for large or small R*.

    >>> round(float(np.exp(effective_log(np.log(8.0), np.log(4.0), np.log(1e12)))), 6)  # R* = 1e12: no decay
    8.0
    """
    repeats = np.maximum(np.expm1(np.minimum(log_x - log_unique, 700.0)), 0.0)
    r_star = np.exp(np.clip(log_r_star, -300.0, 300.0))
    return np.asarray(log_unique + np.log1p(-r_star * np.expm1(-repeats / r_star)), dtype=np.float64)


def log_n_for_tokens(theta: FloatArray, log_tokens: FloatArray) -> FloatArray:
    """Return ln N for which D tokens are compute-optimal with C = 6 N D: N = G (G D)^(beta/alpha)."""
    a, b, _, alpha, beta = np.moveaxis(theta[..., :5], -1, 0)[..., None]
    log_g = (np.log(alpha) + a - np.log(beta) - b) / (alpha + beta)
    return np.asarray(log_g + (beta / alpha) * (log_tokens + log_g), dtype=np.float64)
