"""Global minimum of the surface's objective, with E free or fixed and exponents free or tied.

Legend: N parameters, D tokens, L loss; theta = (ln A, ln B, ln E, alpha, beta) in centred units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from sweep.fit.numerics.centred import CentredData
from sweep.fit.numerics.identifiability import check_minimum
from sweep.fit.numerics.minimise import FunctionModel, minimise, polish
from sweep.fit.table.observations import Observations

FloatArray = npt.NDArray[np.float64]

START_EXPONENTS = (0.05, 0.1, 0.2, 0.35, 0.6, 1.0, 1.6)  # of alpha and of beta; log-spaced, all pairs
SMALLEST_START = 1e-2  # of each term, against the geometric mean loss
REFINED_STARTS = 5  # starts kept after the first iterations of a screened search
SCREENING_ITERATIONS = 8
MANY_POINTS = 1000  # from which every search is screened
SAME_OBJECTIVE = 1e-8  # relative
NO_FLOOR = 1e-300  # represents E = 0, and has a logarithm


@dataclass(frozen=True, kw_only=True, slots=True)
class SurfaceForm:
    """Constraints of the fitted surface, and the kind of its residuals."""

    floor: float | None = None  # fixed value of E; None fits it
    tied: bool = False  # alpha = beta
    residuals: Literal["log", "linear"] = "log"

    @property
    def n_free(self) -> int:
        """The number of fitted parameters."""
        return 5 - (self.floor is not None) - self.tied

    @property
    def basis(self) -> FloatArray | None:
        """The fitted directions of theta, (5, n_free); None for all five."""
        if self.n_free == 5:
            return None
        columns = np.eye(5)
        if self.tied:
            columns[:, 3] += columns[:, 4]
            columns = columns[:, :4]
        return columns if self.floor is None else np.delete(columns, 2, axis=1)


FREE = SurfaceForm()


def n_starts() -> int:
    """Return the number of starts of the global search."""
    return len(START_EXPONENTS) ** 2


@lru_cache(maxsize=16)
def centred(observations: Observations) -> CentredData:
    """Return the points in centred logarithms, the same object for the same observations."""
    return CentredData.of(observations.n_params, observations.n_tokens, observations.loss)


@lru_cache(maxsize=64)  # several methods need the surface of the same points
def estimate_surface(
    data: CentredData, huber_delta: float, form: SurfaceForm = FREE, *, screened: bool = False
) -> tuple[FloatArray, float, int]:
    """Return centred theta (5,) of the global minimum, its objective, and how many starts reached it.

    A `screened` search continues only the REFINED_STARTS best starts after a few iterations.

    Raises:
        RefusedError: the best start never moved, or stopped where the gradient is not at rounding level.
    """
    start, basis = _starts(data, form), form.basis
    if screened or len(data.u) > MANY_POINTS:
        first = minimise(data, start, data.y, huber_delta, basis=basis, max_iterations=SCREENING_ITERATIONS)
        start = first.theta[np.argsort(first.objective, kind="stable")[:REFINED_STARTS]]
    solution = minimise(data, start, data.y, huber_delta, basis=basis)
    best = int(np.argmin(solution.objective))
    theta, objective = polish(data, solution.theta[best], data.y, huber_delta, basis)
    theta.flags.writeable = False
    check_minimum(data, theta, start[best], solution, best, huber_delta, basis)
    if form.residuals == "linear":
        order = np.argsort(solution.objective, kind="stable")[:REFINED_STARTS]
        return _estimate_linear(data, np.vstack([theta, solution.theta[order]]), huber_delta, form)
    at_optimum = solution.objective <= objective * (1 + SAME_OBJECTIVE) + 1e-30 * len(start)
    return theta, objective, int(at_optimum.sum())


def _estimate_linear(
    data: CentredData, start: FloatArray, huber_delta: float, form: SurfaceForm
) -> tuple[FloatArray, float, int]:
    """Minimise the Huber loss of L itself, starting from minima of that of ln L."""
    model, loss = linear_surface(data), np.exp(data.y + data.center_l)
    solution = minimise(model, start, loss, huber_delta, basis=form.basis)
    best = int(np.argmin(solution.objective))
    theta, objective = polish(model, solution.theta[best], loss, huber_delta, form.basis)
    at_optimum = solution.objective <= objective * (1 + SAME_OBJECTIVE)
    return theta, objective, int(at_optimum.sum())


def linear_surface(data: CentredData) -> FunctionModel:
    """Return the model of L itself (not ln L) at centred theta (k, 5)."""
    scale = math.exp(data.center_l)

    def terms(theta: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        a, b, e, alpha, beta = theta.T[:, :, None]
        return scale * np.exp(a - alpha * data.u), scale * np.exp(b - beta * data.v), scale * np.exp(e)

    def predict(theta: FloatArray) -> FloatArray:
        in_n, in_d, floor = terms(theta)
        return in_n + in_d + floor

    def jacobian(theta: FloatArray) -> FloatArray:
        in_n, in_d, floor = terms(theta)
        floor = np.broadcast_to(floor, in_n.shape)
        return np.stack([in_n, in_d, floor, -data.u * in_n, -data.v * in_d], axis=2)

    return FunctionModel(predict, jacobian)


def _starts(data: CentredData, form: SurfaceForm) -> FloatArray:
    """Centred starts (49, 5): for each pair of exponents, the A, B, E of least squared relative error."""
    exponents = np.array(START_EXPONENTS)
    alpha, beta = (grid.ravel() for grid in np.meshgrid(exponents, exponents, indexing="ij"))
    if form.tied:
        alpha = beta = np.geomspace(exponents[0], exponents[-1], len(alpha))
    fixed = 0.0 if form.floor is None else form.floor / math.exp(data.center_l)
    terms = [np.exp(-alpha[:, None] * data.u), np.exp(-beta[:, None] * data.v)]
    if form.floor is None:
        terms.append(np.ones((len(alpha), len(data.u))))
    inverse = 1.0 / np.exp(data.y)
    design = np.stack(terms, axis=2) * inverse[None, :, None]
    normal, target = (
        np.einsum("kni,knj->kij", design, design),
        design.transpose(0, 2, 1) @ (1 - fixed * inverse),
    )
    size = normal.shape[1]
    normal += 1e-12 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(size)
    scales = np.linalg.solve(normal, target[:, :, None])[:, :, 0]
    if form.floor is not None:
        scales = np.column_stack([scales, np.full(len(scales), fixed)])
    logs = np.log(np.maximum(scales, SMALLEST_START))
    if form.floor is not None:
        logs[:, 2] = math.log(form.floor) - data.center_l
    return np.column_stack([logs, alpha, beta])
