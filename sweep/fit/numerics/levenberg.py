"""Minimises a Huber objective of any small model, for many starts or resamples at once.

For models whose derivatives are not worth a formula of their own: Gauss-Newton steps, damped by the
reweighted least squares that majorises the Huber loss, as in `solver`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweep.fit.huber import huber
from sweep.fit.numerics.minimise import descent_steps

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Model = Callable[[FloatArray], FloatArray]
"""Predictions (k, n) for parameters (k, p)."""
Jacobian = Callable[[FloatArray], FloatArray]
"""Their derivatives (k, n, p)."""

CHUNK_ELEMENTS = 60_000
HESSIAN_STEP = 1e-6  # small against the region within which no residual crosses delta
MAX_POLISH_STEPS = 10
STEP = 6e-6  # of the central differences: the cube root of the rounding of a double
MAX_STEP = 1.0  # in any parameter: they are logarithms and exponents
RELATIVE_DECREASE = 1e-12
SQUARED_ROUNDING = 1e-31
LAMBDA_START, LAMBDA_RETRY, LAMBDA_ZERO = 0.3, 1e-4, 1e-9


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ModelSolution:
    """Where `minimise_model` stopped, one row a start or resample."""

    theta: FloatArray  # (k, p)
    objective: FloatArray  # (k,)
    converged: BoolArray  # (k,)


def minimise_model(
    model: Model,
    start: FloatArray,
    target: FloatArray,
    delta: float,
    *,
    weights: FloatArray | None = None,
    jacobian: Jacobian | None = None,
    max_iterations: int = 150,
) -> ModelSolution:
    """Minimise sum w Huber_delta(target - model(theta)) from each row of `start` (k, p).

    `target` is (n,) or (k, n); `weights` is (k, n), the integer counts of a resample, or None for ones.
    Without a `jacobian` central differences stand for it.
    """
    slopes = _differences(model) if jacobian is None else jacobian
    rows = max(1, CHUNK_ELEMENTS // target.shape[-1])
    parts = []
    for low in range(0, len(start), rows):
        cut = slice(low, low + rows)
        goal = np.broadcast_to(
            target[cut] if target.ndim == 2 else target, (len(start[cut]), target.shape[-1])
        )
        counts = np.ones_like(goal) if weights is None else weights[cut]
        parts.append(_minimise_chunk(model, slopes, start[cut].copy(), goal, counts, delta, max_iterations))
    return ModelSolution(
        theta=np.concatenate([part.theta for part in parts]),
        objective=np.concatenate([part.objective for part in parts]),
        converged=np.concatenate([part.converged for part in parts]),
    )


def _minimise_chunk(
    model: Model,
    jacobian: Jacobian,
    theta: FloatArray,
    target: FloatArray,
    weights: FloatArray,
    delta: float,
    max_iterations: int,
) -> ModelSolution:
    out = ModelSolution(
        theta=theta.copy(), objective=np.empty(len(theta)), converged=np.zeros(len(theta), bool)
    )
    live, damping = np.arange(len(theta)), np.full(len(theta), LAMBDA_START)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
        residual = target - model(theta)
        objective = _objective(residual, weights, delta)
        for _ in range(max_iterations):
            gradient, matrix = _derivatives(jacobian(theta), residual, weights, delta, damping)
            step = descent_steps(gradient, matrix)
            promise = -np.einsum("ki,ki->k", gradient, step)
            small = promise <= RELATIVE_DECREASE * objective + SQUARED_ROUNDING * target.shape[1]
            step /= np.maximum(1.0, np.abs(step).max(axis=1) / MAX_STEP)[:, None]
            trial = target - model(theta + step)
            trial_objective = _objective(trial, weights, delta)
            better = trial_objective <= objective
            done = small & ((damping == 0) | ~better)
            theta[better] += step[better]
            residual[better], objective[better] = trial[better], trial_objective[better]
            lower = np.where(damping * 0.1 < LAMBDA_ZERO, 0.0, damping * 0.1)
            damping = np.where(better, lower, np.maximum(damping * 8.0, LAMBDA_RETRY))
            done |= damping > 1e12
            if done.any():
                out.theta[live[done]], out.objective[live[done]] = theta[done], objective[done]
                out.converged[live[done]] = np.isfinite(objective[done])
                keep = ~done
                live, theta, damping = live[keep], theta[keep], damping[keep]
                residual, objective = residual[keep], objective[keep]
                target, weights = target[keep], weights[keep]
            if not len(live):
                break
    out.theta[live], out.objective[live] = theta, objective
    return out


def polish_model(
    model: Model, jacobian: Jacobian, theta: FloatArray, target: FloatArray, delta: float
) -> tuple[FloatArray, float]:
    """Newton steps from theta (p,) while the gradient shrinks: theta, and its objective over `target` (n,).

    Gauss-Newton stops where the objective is flat to rounding; the gradient still resolves the parameters.
    The Hessian is that of central differences of the exact gradient, so `jacobian` must be exact.
    """

    def gradient(at: FloatArray) -> FloatArray:
        psi = np.clip(target - model(at), -delta, delta)
        return np.asarray(-np.einsum("kn,kni->ki", psi, jacobian(at)), dtype=np.float64)

    shifts = HESSIAN_STEP * np.eye(len(theta))
    with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
        slope = gradient(theta[None])
        for _ in range(MAX_POLISH_STEPS):
            hessian = (gradient(theta + shifts) - gradient(theta - shifts)) / (2 * HESSIAN_STEP)
            new = theta + descent_steps(slope, 0.5 * (hessian + hessian.T)[None])[0]
            new_slope = gradient(new[None])
            if not np.abs(new_slope).max() < np.abs(slope).max():
                break
            theta, slope = new, new_slope
        objective = float(huber(target - model(theta[None]), delta).sum())
    return theta, objective


def _objective(residual: FloatArray, weights: FloatArray, delta: float) -> FloatArray:
    objective = np.einsum("kn,kn->k", weights, huber(residual, delta))
    return np.where(np.isfinite(objective), objective, np.inf)


def _differences(model: Model) -> Jacobian:
    def jacobian(theta: FloatArray) -> FloatArray:
        columns = []
        for i in range(theta.shape[1]):
            shift = np.zeros(theta.shape[1])
            shift[i] = STEP
            columns.append((model(theta + shift) - model(theta - shift)) / (2 * STEP))
        return np.nan_to_num(np.stack(columns, axis=2))

    return jacobian


def _derivatives(
    jacobian: FloatArray, residual: FloatArray, weights: FloatArray, delta: float, damping: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Gradient (k, p) and Gauss-Newton matrix plus damping times the majoriser's (k, p, p)."""
    size = np.abs(residual)
    psi = np.clip(residual, -delta, delta) * weights
    ratio = delta / np.maximum(size, delta)
    second = ((size <= delta) + (damping[:, None] + 1e-3) * ratio) * weights
    gradient = -np.einsum("kn,kni->ki", psi, jacobian)
    return gradient, np.swapaxes(jacobian * second[:, :, None], 1, 2) @ jacobian
