"""Minimises the Huber objective of L = E + A/N^alpha + B/D^beta for many starts or resamples at once.

Legend: N parameters, D tokens, L loss; theta = (a, b, e, alpha, beta) with a = ln A, b = ln B, e = ln E, all
in centred units: u = ln N - mean, v = ln D - mean, y = ln L - mean. Centring makes the result independent of
the units of N, D and L, and the five directions comparable in size.

Newton's method with the exact Hessian, damped by lambda times the Hessian of the reweighted least squares
that majorises the Huber loss: a large lambda is a (safe, linear) reweighting step, a small one a Newton step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweep.fit.centred import CentredData
from sweep.fit.huber import huber

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

N_THETA = 5
CHUNK_ELEMENTS = 60_000  # resamples x points worked on at once: keeps the arrays in the processor's cache
MAX_STEP = 1.0  # in any component of theta: e-fold in A, B or E, or 1 in an exponent
RELATIVE_DECREASE = 1e-13  # converged when a Newton step promises less than this share of the objective
SQUARED_ROUNDING = 1e-31  # the objective of one point whose residual is rounding error
MAX_POLISH_STEPS = 20
LAMBDA_START, LAMBDA_RETRY, LAMBDA_ZERO = 0.3, 1e-4, 1e-9


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Solution:
    """Where `minimise` stopped, one row a start or resample."""

    theta: FloatArray  # (k, 5), centred
    objective: FloatArray  # (k,) sum of weighted Huber losses
    converged: BoolArray  # (k,) the last Newton step promised no further decrease
    n_accepted: npt.NDArray[np.int64]  # (k,) steps that lowered the objective


@dataclass(slots=True, eq=False)
class _Shares:
    """One evaluation at theta: shares of the two power laws in the prediction, residuals, objective."""

    share_n: FloatArray  # (k, n) A N^-alpha / prediction
    share_d: FloatArray  # (k, n) B D^-beta / prediction
    residual: FloatArray  # (k, n) ln L - ln prediction
    objective: FloatArray  # (k,)

    def take(self, rows: BoolArray) -> _Shares:
        return _Shares(self.share_n[rows], self.share_d[rows], self.residual[rows], self.objective[rows])

    def put(self, rows: BoolArray, other: _Shares) -> None:
        for name in ("share_n", "share_d", "residual", "objective"):
            getattr(self, name)[rows] = getattr(other, name)[rows]


def _evaluate(
    data: CentredData,
    theta: FloatArray,
    weights: FloatArray | None,
    delta: float,
    targets: FloatArray | None = None,
) -> _Shares:
    a, b, e, alpha, beta = theta.T[:, :, None]
    share_n = np.exp(a - alpha * data.u)
    share_d = np.exp(b - beta * data.v)
    prediction = share_n + share_d
    prediction += np.exp(e)
    share_n /= prediction
    share_d /= prediction
    residual = (data.y if targets is None else targets) - np.log(prediction)
    losses = huber(residual, delta)
    objective = losses.sum(axis=1) if weights is None else np.einsum("kn,kn->k", losses, weights)
    return _Shares(share_n, share_d, residual, objective)


def _derivatives(
    data: CentredData, at: _Shares, weights: FloatArray | None, delta: float, damping: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Gradient (k, 5) and Hessian plus damping times the majoriser's Hessian (k, 5, 5).

    With shares p and g = d ln prediction / d theta = (p_n, p_d, p_e, -u p_n, -v p_d), psi the Huber loss's
    derivative: gradient = -sum w psi g and, because ln prediction is a log-sum-exp of functions linear in
    theta, Hessian = sum w [(psi' + psi) g g' - psi sum_k p_k z_k z_k'], z_k the gradient of each exponent.
    The majoriser's Hessian is sum w (psi / r) g g'.
    """
    p_n, p_d = at.share_n, at.share_d
    p_e = np.maximum(1.0 - p_n - p_d, 0.0)
    size = np.abs(at.residual)
    psi = np.clip(at.residual, -delta, delta)
    ratio = delta / np.maximum(size, delta)  # psi / r
    second = (size <= delta) + damping[:, None] * ratio + psi
    if weights is not None:
        psi = psi * weights
        second *= weights
    first_n, first_d = (psi * p_n) @ data.powers_u, (psi * p_d) @ data.powers_v
    first_e = np.einsum("kn,kn->k", psi, p_e)
    gradient = -np.stack([first_n[:, 0], first_d[:, 0], first_e, -first_n[:, 1], -first_d[:, 1]], axis=1)
    hessian = _outer_products(data, second, p_n, p_d, p_e)
    for i, j, first in ((0, 3, first_n), (1, 4, first_d)):
        hessian[:, i, i] -= first[:, 0]
        hessian[:, i, j] += first[:, 1]
        hessian[:, j, i] += first[:, 1]
        hessian[:, j, j] -= first[:, 2]
    hessian[:, 2, 2] -= first_e
    return gradient, hessian


def _outer_products(
    data: CentredData, second: FloatArray, p_n: FloatArray, p_d: FloatArray, p_e: FloatArray
) -> FloatArray:
    """Sum over points of second * g g', as matrix products with the powers of u and v; shape (k, 5, 5)."""
    s_n, s_d = second * p_n, second * p_d
    nn, nd, ne = (s_n * p_n) @ data.powers_u, (s_n * p_d) @ data.cross, (s_n * p_e) @ data.powers_u[:, :2]
    dd, de = (s_d * p_d) @ data.powers_v, (s_d * p_e) @ data.powers_v[:, :2]
    ee = np.einsum("kn,kn->k", second, p_e * p_e)
    hessian = np.empty((len(second), N_THETA, N_THETA))
    upper = {
        (0, 0): nn[:, 0], (0, 3): -nn[:, 1], (3, 3): nn[:, 2],
        (0, 1): nd[:, 0], (1, 3): -nd[:, 1], (0, 4): -nd[:, 2], (3, 4): nd[:, 3],
        (0, 2): ne[:, 0], (2, 3): -ne[:, 1],
        (1, 1): dd[:, 0], (1, 4): -dd[:, 1], (4, 4): dd[:, 2],
        (1, 2): de[:, 0], (2, 4): -de[:, 1], (2, 2): ee,
    }  # fmt: skip
    for (i, j), values in upper.items():
        hessian[:, i, j] = hessian[:, j, i] = values
    return hessian


def objective_and_gradient(
    data: CentredData, theta: FloatArray, delta: float, weights: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Objective (k,) and gradient (k, 5) at centred theta (k, 5); `weights` is (k, n) or None for ones."""
    at = _evaluate(data, theta, weights, delta)
    gradient, _ = _derivatives(data, at, weights, delta, np.zeros(len(theta)))
    return at.objective, gradient


def objective_hessian(data: CentredData, theta: FloatArray, delta: float) -> FloatArray:
    """Exact Hessian (k, 5, 5) of the unweighted objective at centred theta (k, 5)."""
    at = _evaluate(data, theta, None, delta)
    return _derivatives(data, at, None, delta, np.zeros(len(theta)))[1]


def minimise(
    data: CentredData,
    start: FloatArray,
    delta: float,
    *,
    weights: FloatArray | None = None,
    targets: FloatArray | None = None,
    basis: FloatArray | None = None,
    max_iterations: int = 200,
) -> Solution:
    """Minimise sum w Huber_delta(ln L - ln prediction) from each row of `start` (k, 5), in centred units.

    `weights` is (k, n): the integer counts of a resample, or None for ones. `targets` is (k, n): each row's
    own centred ln L, or None for the data's. `basis` (5, p) or (k, 5, p) spans the directions that may be
    taken from the start: without the third row E stays as it is, with one column for both exponents they
    move together; None for all five.
    """
    rows = max(1, CHUNK_ELEMENTS // len(data.u))
    parts = []
    for low in range(0, len(start), rows):
        cut = slice(low, low + rows)
        part = _Problem(
            weights=None if weights is None else weights[cut],
            targets=None if targets is None else targets[cut],
            basis=basis[cut] if basis is not None and basis.ndim == 3 else basis,
        )
        parts.append(_minimise_chunk(data, start[cut], delta, part, max_iterations))
    return Solution(
        theta=np.concatenate([part.theta for part in parts]),
        objective=np.concatenate([part.objective for part in parts]),
        converged=np.concatenate([part.converged for part in parts]),
        n_accepted=np.concatenate([part.n_accepted for part in parts]),
    )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Problem:
    """What the rows of one chunk minimise: their weights, their ln L, and where they may move."""

    weights: FloatArray | None
    targets: FloatArray | None
    basis: FloatArray | None

    def take(self, rows: BoolArray) -> _Problem:
        return _Problem(
            weights=None if self.weights is None else self.weights[rows],
            targets=None if self.targets is None else self.targets[rows],
            basis=self.basis[rows] if self.basis is not None and self.basis.ndim == 3 else self.basis,
        )


def _minimise_chunk(
    data: CentredData, start: FloatArray, delta: float, problem: _Problem, max_iterations: int
) -> Solution:
    theta_out, objective_out = start.copy(), np.empty(len(start))
    converged_out, accepted_out = np.zeros(len(start), bool), np.zeros(len(start), np.int64)
    live = np.arange(len(start))
    theta, damping = start.copy(), np.full(len(start), LAMBDA_START)
    n_accepted, done = np.zeros(len(start), np.int64), np.zeros(len(start), bool)
    floor = SQUARED_ROUNDING * len(data.y)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        at = _evaluate(data, theta, problem.weights, delta, problem.targets)
        for _ in range(max_iterations):
            gradient, matrix = _derivatives(data, at, problem.weights, delta, damping)
            step = descent_steps(gradient, matrix, problem.basis)
            slope = np.einsum("ki,ki->k", gradient, step)  # negative when the step descends
            done = (damping == 0) & (slope <= 0) & (-slope <= RELATIVE_DECREASE * at.objective + floor)
            step /= np.maximum(1.0, np.abs(step).max(axis=1) / MAX_STEP)[:, None]
            trial = _evaluate(data, theta + step, problem.weights, delta, problem.targets)
            better = (slope <= 0) & (trial.objective <= at.objective)
            stuck = ~better & (-slope <= RELATIVE_DECREASE * at.objective + floor) & (slope <= 0)
            theta[better] += step[better]
            n_accepted += better & (trial.objective < at.objective)
            at.put(better, trial)
            damping = _next_damping(damping, better)
            done |= stuck
            if done.sum() > len(live) // 4 or done.all():
                keep = ~done
                finished = live[done]
                theta_out[finished], objective_out[finished] = theta[done], at.objective[done]
                converged_out[finished], accepted_out[finished] = True, n_accepted[done]
                live, theta, damping, n_accepted = live[keep], theta[keep], damping[keep], n_accepted[keep]
                problem, at = problem.take(keep), at.take(keep)
                done = done[keep]
            if not len(live):
                break
    theta_out[live], objective_out[live] = theta, at.objective
    converged_out[live], accepted_out[live] = done, n_accepted
    return Solution(
        theta=theta_out, objective=objective_out, converged=converged_out, n_accepted=accepted_out
    )


def _next_damping(damping: FloatArray, better: BoolArray) -> FloatArray:
    lower = np.where(damping * 0.1 < LAMBDA_ZERO, 0.0, damping * 0.1)
    return np.where(better, lower, np.maximum(damping * 8.0, LAMBDA_RETRY))


def descent_steps(gradient: FloatArray, matrix: FloatArray, basis: FloatArray | None = None) -> FloatArray:
    """Solve matrix step = -gradient row by row within `basis`, with a ridge at rounding level."""
    if basis is not None:
        transposed = np.swapaxes(basis, -1, -2)
        inside = descent_steps((transposed @ gradient[:, :, None])[:, :, 0], transposed @ matrix @ basis)
        return (basis @ inside[:, :, None])[:, :, 0]
    n_directions = gradient.shape[1]
    ridge = 1e-14 * np.trace(matrix, axis1=1, axis2=2) + np.finfo(float).tiny
    matrix = matrix + np.abs(ridge)[:, None, None] * np.eye(n_directions)
    bad = ~np.isfinite(matrix).all(axis=(1, 2))
    matrix[bad] = np.eye(n_directions)
    try:
        steps = -np.linalg.solve(matrix, gradient[:, :, None])[:, :, 0]
    except np.linalg.LinAlgError:
        steps = -np.einsum("kij,kj->ki", np.linalg.pinv(matrix), gradient)
    return steps.astype(np.float64, copy=False)


def polish(
    data: CentredData, theta: FloatArray, delta: float, basis: FloatArray | None = None
) -> tuple[FloatArray, float]:
    """Pure Newton steps from centred theta (5,) while the gradient shrinks: theta and its objective.

    Near a minimum the objective is flat to rounding while the gradient still resolves the parameters.
    """
    objective, gradient = objective_and_gradient(data, theta[None], delta)
    for _ in range(MAX_POLISH_STEPS):
        step = descent_steps(gradient, objective_hessian(data, theta[None], delta), basis)
        new_objective, new_gradient = objective_and_gradient(data, theta[None] + step, delta)
        rounding = 1e-12 * objective + SQUARED_ROUNDING * len(data.y)
        smaller = _within(new_gradient, basis).max() < _within(gradient, basis).max()
        if not smaller or (new_objective > objective + rounding).any():
            break
        theta, objective, gradient = theta + step[0], new_objective, new_gradient
    return theta, float(objective[0])


def _within(gradient: FloatArray, basis: FloatArray | None) -> FloatArray:
    """Sizes of the gradient's components along the directions that may be taken."""
    return np.abs(gradient if basis is None else gradient @ basis)


def gradient_ratio(
    data: CentredData, theta: FloatArray, delta: float, basis: FloatArray | None = None
) -> float:
    """Largest component of the gradient at theta (5,) against the sum of the sizes of its parts."""
    at = _evaluate(data, theta[None], None, delta)
    gradient, _ = _derivatives(data, at, None, delta, np.zeros(1))
    reach = max(1.0, float(np.abs(data.u).max()), float(np.abs(data.v).max()))
    parts = reach * (np.minimum(np.abs(at.residual), delta).sum() + 1e-9 * len(data.y))
    return float(_within(gradient, basis).max() / parts)
