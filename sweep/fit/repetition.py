"""The loss of repeated data: L(N, D, U) of Muennighoff et al., safe for any number of repetitions.

Legend: N parameters, D tokens trained on, U unique tokens among them, L loss; theta = (ln A, ln B, ln E,
alpha, beta, ln R_D*, ln R_N*).

    L = E + A/N'^alpha + B/D'^beta,   D' = U + U R_D* (1 - exp(-R_D/R_D*)),   R_D = D/U - 1
    N' = U_N + U_N R_N* (1 - exp(-R_N/R_N*)),   R_N = N/U_N - 1,   U_N = min(N, N_opt(U))

N_opt(U) is the N that is compute-optimal for U tokens under the law itself. Source: Muennighoff et al. 2023,
sections 3.1 and 3.2, equations 5 to 7.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def repeated_log_loss(
    theta: FloatArray, log_n: FloatArray, log_d: FloatArray, log_u: FloatArray
) -> FloatArray:
    """ln L for theta (..., 7); ln N, ln D and ln U broadcast with its leading axes and one more."""
    a, b, e, alpha, beta, log_rd, log_rn = np.moveaxis(theta, -1, 0)[..., None]
    log_effective_d = effective_log(log_d, np.minimum(log_u, log_d), log_rd)
    log_unique_n = np.minimum(log_n, log_n_for_tokens(theta, log_u))
    log_effective_n = effective_log(log_n, log_unique_n, log_rn)
    terms = np.logaddexp(a - alpha * log_effective_n, b - beta * log_effective_d)
    return np.asarray(np.logaddexp(terms, e), dtype=np.float64)


def repeated_slopes(theta: FloatArray, log_n: FloatArray, log_d: FloatArray, log_u: FloatArray) -> FloatArray:
    """Derivatives (k, n, 7) of `repeated_log_loss` by theta (k, 7), for ln N, ln D and ln U of shape (n,).

    With p the shares of the terms: d ln L = p_N d(ln A - alpha ln N') + p_D d(ln B - beta ln D') + p_E de;
    N' depends on all of the first five through U_N, where N is above N_opt(U).
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
    """Derivatives of `effective_log` by ln R* and by ln U."""
    ratio = np.exp(np.minimum(log_x - log_unique, 700.0))
    r_star = np.exp(np.clip(log_r_star, -300.0, 300.0))
    left = np.maximum(ratio - 1.0, 0.0) / r_star
    decay, gone = np.exp(-left), -np.expm1(-left)
    total = 1.0 + r_star * gone
    return r_star * (gone - left * decay) / total, 1.0 - decay * ratio / total


def effective_log(log_x: FloatArray, log_unique: FloatArray, log_r_star: FloatArray) -> FloatArray:
    """ln of U + U R* (1 - exp(-R/R*)), R = x/U - 1, without cancellation for large or small R*.

    >>> float(np.exp(effective_log(np.log(8.0), np.log(4.0), np.log(1e12))))  # no decay: all 8 count
    8.0
    """
    repeats = np.maximum(np.expm1(np.minimum(log_x - log_unique, 700.0)), 0.0)
    r_star = np.exp(np.clip(log_r_star, -300.0, 300.0))
    return np.asarray(log_unique + np.log1p(-r_star * np.expm1(-repeats / r_star)), dtype=np.float64)


def log_n_for_tokens(theta: FloatArray, log_tokens: FloatArray) -> FloatArray:
    """ln N_opt for which `log_tokens` are compute-optimal with C = 6 N D: N = G (G D)^(beta/alpha)."""
    a, b, _, alpha, beta = np.moveaxis(theta[..., :5], -1, 0)[..., None]
    log_g = (np.log(alpha) + a - np.log(beta) - b) / (alpha + beta)
    return np.asarray(log_g + (beta / alpha) * (log_tokens + log_g), dtype=np.float64)
