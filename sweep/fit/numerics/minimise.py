"""Minimisation of Huber objectives of ln L or L for many starts or resamples at once.

One damped Newton loop serves every model. A model gives predictions, gradients and a curvature matrix H:
`FunctionModel` the Gauss-Newton matrix of any function, `CentredData` (centred.py) the exact Hessian of a
surface. Steps solve (H + lambda M) step = -gradient. M is the Hessian of the reweighted least squares
that majorises the Huber loss, so a large lambda is a safe, linear reweighting step and a small one a Newton
step.

Shapes: k starts or resamples, n points, p parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

CHUNK_ELEMENTS = 60_000  # resamples x points worked on at once: keeps the arrays in the processor's cache
MAX_STEP = 1.0  # in any parameter: they are logarithms and exponents
SQUARED_ROUNDING = 1e-31  # the objective of one point whose residual is rounding error
LAMBDA_START, LAMBDA_RETRY, LAMBDA_ZERO, LAMBDA_STUCK = 0.3, 1e-4, 1e-9, 1e12
MAX_POLISH_STEPS = 20
HESSIAN_STEP = 1e-6  # small against the region within which no residual crosses delta
DIFFERENCE_STEP = 6e-6  # of central differences of predictions: the cube root of the rounding of a double
SQUARES = 1e6  # a Huber delta that no residual reaches: least squares
NO_NOISE = 1e-24  # a mean squared residual of ln L that is rounding error


class Model(Protocol):
    """Predictions of n points, and the derivatives of a sum over them."""

    is_exact: ClassVar[bool]  # `derivatives` returns the Hessian, not an approximation of it
    least_damping: ClassVar[float]  # share of the majoriser that stays in the matrix at lambda = 0
    relative_decrease: ClassVar[float]  # converged when a step promises less than this share of the objective
    max_iterations: ClassVar[int]  # unless `minimise` is given another number

    def evaluate(self, theta: FloatArray) -> tuple[FloatArray, ...]:
        """Return predictions (k, n) at theta (k, p), then arrays (k, n) that `derivatives` reuses."""

    def derivatives(
        self, theta: FloatArray, reused: tuple[FloatArray, ...], psi: FloatArray, second: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return the gradient (k, p) and curvature matrix (k, p, p) of a weighted loss of the residuals.

        `psi` (k, n) holds the loss's first derivatives by the residuals, `second` (k, n) the second ones.
        """


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Solution:
    """Result of `minimise`, one row a start or resample."""

    theta: FloatArray  # (k, p)
    objective: FloatArray  # (k,) sum of weighted Huber losses; infinite where it is not finite
    converged: BoolArray  # (k,) the last step promised no further decrease
    n_accepted: IntArray  # (k,) steps that lowered the objective


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Derivatives:
    """Objective of each row, with its first and second derivatives by the parameters."""

    objective: FloatArray  # (k,)
    gradient: FloatArray  # (k, p)
    hessian: FloatArray  # (k, p, p); Gauss-Newton's where the model is not exact


def huber(residual: FloatArray, delta: float) -> FloatArray:
    """Return r^2/2 inside delta, delta (|r| - delta/2) outside.

    Source: Huber 1964; Hoffmann et al. 2022, eq. 3.
    """
    size = np.abs(residual)
    inside = np.minimum(size, delta)
    return inside * (size - 0.5 * inside)


def minimise(
    model: Model,
    start: FloatArray,
    target: FloatArray,
    delta: float,
    *,
    weights: FloatArray | None = None,
    basis: FloatArray | None = None,
    max_iterations: int | None = None,
) -> Solution:
    """Minimise sum w Huber_delta(target - prediction) from each row of `start` (k, p).

    `target` is (n,) or (k, n). `weights` is (k, n), the integer counts of a resample, or None for ones.
    `basis` (p, q) or (k, p, q) spans the directions in which the start may move: without a parameter's row it
    stays fixed, with one column for two parameters they move together; None for all directions.
    """
    rows = max(1, CHUNK_ELEMENTS // target.shape[-1])
    problem = _Problem(model=model, target=target, delta=delta, weights=weights, basis=basis)
    cuts = [slice(low, low + rows) for low in range(0, len(start), rows)]
    limit = max_iterations or model.max_iterations
    parts = [_minimise_chunk(problem.take(cut), start[cut], limit) for cut in cuts]
    return Solution(
        theta=np.concatenate([part.theta for part in parts]),
        objective=np.concatenate([part.objective for part in parts]),
        converged=np.concatenate([part.converged for part in parts]),
        n_accepted=np.concatenate([part.n_accepted for part in parts]),
    )


@dataclass(slots=True, eq=False)
class _Evaluation:
    """Objective, residuals and the model's reusable arrays at one theta for each row."""

    objective: FloatArray  # (k,)
    residual: FloatArray  # (k, n)
    reused: tuple[FloatArray, ...]  # each (k, n)

    def take(self, rows: BoolArray) -> _Evaluation:
        return _Evaluation(self.objective[rows], self.residual[rows], tuple(a[rows] for a in self.reused))

    def put(self, rows: BoolArray, other: _Evaluation) -> None:
        self.objective[rows], self.residual[rows] = other.objective[rows], other.residual[rows]
        for mine, theirs in zip(self.reused, other.reused, strict=True):
            mine[rows] = theirs[rows]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Problem:
    """The objective of some rows: model, targets, weights, and the directions in which they may move."""

    model: Model
    target: FloatArray
    delta: float
    weights: FloatArray | None = None
    basis: FloatArray | None = None

    def take(self, rows: BoolArray | slice) -> _Problem:
        return _Problem(
            model=self.model,
            target=self.target[rows] if self.target.ndim == 2 else self.target,
            delta=self.delta,
            weights=None if self.weights is None else self.weights[rows],
            basis=self.basis[rows] if self.basis is not None and self.basis.ndim == 3 else self.basis,
        )

    def evaluate(self, theta: FloatArray) -> _Evaluation:
        prediction, *reused = self.model.evaluate(theta)
        residual = self.target - prediction
        losses = huber(residual, self.delta)
        objective = losses.sum(axis=1)
        if self.weights is not None:
            objective = np.einsum("kn,kn->k", losses, self.weights)
        return _Evaluation(np.fmin(objective, np.inf), residual, tuple(reused))  # infinite for nan

    def derivatives(
        self, theta: FloatArray, at: _Evaluation, damping: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Gradient (k, p), and curvature matrix plus damping times the majoriser's Hessian (k, p, p).

        With psi the Huber loss's derivative and g the prediction's: gradient = -sum w psi g, and the
        majoriser's Hessian is sum w (psi / r) g g'.
        """
        size = np.abs(at.residual)
        psi = np.clip(at.residual, -self.delta, self.delta)
        ratio = self.delta / np.maximum(size, self.delta)  # psi / r
        second = (size <= self.delta) + (damping[:, None] + self.model.least_damping) * ratio
        if self.weights is not None:
            psi *= self.weights
            second *= self.weights
        return self.model.derivatives(theta, at.reused, psi, second)


def _minimise_chunk(problem: _Problem, start: FloatArray, max_iterations: int) -> Solution:
    out = Solution(
        theta=start.copy(),
        objective=np.empty(len(start)),
        converged=np.zeros(len(start), bool),
        n_accepted=np.zeros(len(start), np.int64),
    )
    live, theta, damping = np.arange(len(start)), start.copy(), np.full(len(start), LAMBDA_START)
    done = np.zeros(len(start), bool)  # a finished row moves no more, so that no row depends on the others
    rounding, share = SQUARED_ROUNDING * problem.target.shape[-1], problem.model.relative_decrease
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        at = problem.evaluate(theta)
        for _ in range(max_iterations):
            gradient, matrix = problem.derivatives(theta, at, damping)
            step = _descent_steps(gradient, matrix, problem.basis)
            slope = np.einsum("ki,ki->k", gradient, step)  # negative when the step descends
            small = (slope <= 0) & (-slope <= share * at.objective + rounding)
            step /= np.maximum(1.0, np.abs(step).max(axis=1) / MAX_STEP)[:, None]
            trial = problem.evaluate(theta + step)
            better = ~done & (slope <= 0) & (trial.objective <= at.objective)
            done |= small & ((damping == 0) | ~better)
            theta[better] += step[better]
            out.n_accepted[live] += better & (trial.objective < at.objective)
            at.put(better, trial)
            damping = _next_damping(damping, better)
            done |= damping > LAMBDA_STUCK
            if done.sum() > len(live) // 4 or done.all():
                _write(out, live, theta, at.objective, done)
                keep = ~done
                live, theta, damping, done = live[keep], theta[keep], damping[keep], done[keep]
                problem, at = problem.take(keep), at.take(keep)
            if not len(live):
                break
    _write(out, live, theta, at.objective, done)
    return out


def _write(out: Solution, live: IntArray, theta: FloatArray, objective: FloatArray, done: BoolArray) -> None:
    """Copy the state of the rows numbered `live` into the solution."""
    out.theta[live], out.objective[live] = theta, objective
    out.converged[live] = done & np.isfinite(objective)


def _next_damping(damping: FloatArray, better: BoolArray) -> FloatArray:
    lower = np.where(damping * 0.1 < LAMBDA_ZERO, 0.0, damping * 0.1)
    return np.where(better, lower, np.maximum(damping * 8.0, LAMBDA_RETRY))


def _descent_steps(gradient: FloatArray, matrix: FloatArray, basis: FloatArray | None = None) -> FloatArray:
    """Solve matrix step = -gradient row by row within `basis`, with a ridge at rounding level."""
    if basis is not None:
        transposed = np.swapaxes(basis, -1, -2)
        inside = _descent_steps((transposed @ gradient[:, :, None])[:, :, 0], transposed @ matrix @ basis)
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


def differentiate(
    model: Model, theta: FloatArray, target: FloatArray, delta: float, weights: FloatArray | None = None
) -> Derivatives:
    """Return the objective at theta (k, p) with its derivatives; arguments as in `minimise`."""
    problem = _Problem(model=model, target=target, delta=delta, weights=weights)
    at = problem.evaluate(theta)
    gradient, hessian = problem.derivatives(theta, at, np.zeros(len(theta)))
    return Derivatives(objective=at.objective, gradient=gradient, hessian=hessian)


def polish(
    model: Model, theta: FloatArray, target: FloatArray, delta: float, basis: FloatArray | None = None
) -> tuple[FloatArray, float]:
    """Take pure Newton steps from theta (p,) while the gradient shrinks: theta and its objective.

    Near a minimum the objective is flat to rounding while the gradient still resolves the parameters. The
    Hessian of a model that has none is that of central differences of its gradient, which must be exact.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        at = differentiate(model, theta[None], target, delta)
        for _ in range(MAX_POLISH_STEPS):
            hessian = at.hessian if model.is_exact else _hessian(model, theta, target, delta)
            step = _descent_steps(at.gradient, hessian, basis)
            new = differentiate(model, theta[None] + step, target, delta)
            rounding = 1e-12 * at.objective + SQUARED_ROUNDING * len(target)
            smaller = _within(new.gradient, basis).max() < _within(at.gradient, basis).max()
            if not smaller or (new.objective > at.objective + rounding).any():
                break
            theta, at = theta + step[0], new
    return theta, float(at.objective[0])


def _hessian(model: Model, theta: FloatArray, target: FloatArray, delta: float) -> FloatArray:
    """Central differences of the gradient at theta (p,), (1, p, p)."""
    shifts = HESSIAN_STEP * np.eye(len(theta))
    up, down = (differentiate(model, theta + sign * shifts, target, delta).gradient for sign in (1, -1))
    hessian = (up - down) / (2 * HESSIAN_STEP)
    return np.asarray(0.5 * (hessian + hessian.T)[None], dtype=np.float64)


def _within(gradient: FloatArray, basis: FloatArray | None) -> FloatArray:
    """Sizes of the gradient's components along the directions of the basis."""
    return np.abs(gradient if basis is None else gradient @ basis)


@dataclass(frozen=True, slots=True, eq=False)
class FunctionModel:
    """A model given as a function, minimised with Gauss-Newton matrices."""

    predict: Callable[[FloatArray], FloatArray]  # predictions (k, n) at theta (k, p)
    jacobian: Callable[[FloatArray], FloatArray] | None = None  # (k, n, p); None for central differences

    is_exact: ClassVar[bool] = False
    least_damping: ClassVar[float] = 1e-3  # points beyond delta alone would leave no curvature
    relative_decrease: ClassVar[float] = 1e-12
    max_iterations: ClassVar[int] = 150

    def evaluate(self, theta: FloatArray) -> tuple[FloatArray, ...]:
        """Return the predictions (k, n)."""
        return (self.predict(theta),)

    def derivatives(
        self, theta: FloatArray, reused: tuple[FloatArray, ...], psi: FloatArray, second: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return the gradient (k, p) and the Gauss-Newton matrix (k, p, p)."""
        slopes = self._differences(theta) if self.jacobian is None else self.jacobian(theta)
        gradient = -np.einsum("kn,kni->ki", psi, slopes)
        return gradient, np.swapaxes(slopes * second[:, :, None], 1, 2) @ slopes

    def _differences(self, theta: FloatArray) -> FloatArray:
        shifts = DIFFERENCE_STEP * np.eye(theta.shape[1])
        columns = [self.predict(theta + shift) - self.predict(theta - shift) for shift in shifts]
        return np.nan_to_num(np.stack(columns, axis=2) / (2 * DIFFERENCE_STEP))
