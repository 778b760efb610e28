"""The batched minimiser against finite differences, SciPy, and planted surfaces."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from sweep.fit.centred import CentredData
from sweep.fit.numerics.estimation import estimate_surface
from sweep.fit.numerics.minimise import (
    gradient_ratio,
    huber,
    minimise,
    objective_and_gradient,
    objective_hessian,
)

DELTA = 1e-2


def scattered(seed: int, n_points: int = 40, sd: float = 0.02) -> CentredData:
    rng = np.random.default_rng(seed)
    n_params, n_tokens = np.exp(rng.uniform(10, 18, n_points)), np.exp(rng.uniform(14, 22, n_points))
    loss = 1.7 + 60 / n_params**0.35 + 300 / n_tokens**0.3
    return CentredData.of(n_params, n_tokens, loss * np.exp(sd * rng.standard_normal(n_points)))


def plain_objective(data: CentredData, theta: np.ndarray, weights: np.ndarray) -> float:
    """Written from the definition, point by point."""
    total = 0.0
    for u, v, y, weight in zip(data.u, data.v, data.y, weights, strict=True):
        a, b, e, alpha, beta = theta
        r = abs(y - np.logaddexp.reduce([a - alpha * u, b - beta * v, e]))
        total += weight * (r * r / 2 if r <= DELTA else DELTA * (r - DELTA / 2))
    return total


def random_theta(rng: np.random.Generator, k: int) -> np.ndarray:
    return np.column_stack([rng.uniform(-2, 0, (k, 3)), rng.uniform(0.1, 0.8, (k, 2))])


def test_huber_joins_a_parabola_to_lines():
    assert huber(np.array([-0.5, 0.5, 2.0, -2.0]), 1.0) == pytest.approx([0.125, 0.125, 1.5, 1.5])


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_objective_and_gradient_match_the_definition_and_its_differences(seed):
    data, rng = scattered(seed), np.random.default_rng(seed)
    theta, weights = random_theta(rng, 3), rng.integers(0, 4, (3, 40)).astype(float)
    objective, gradient = objective_and_gradient(data, theta, DELTA, weights)
    assert objective == pytest.approx(
        [plain_objective(data, t, w) for t, w in zip(theta, weights, strict=True)], rel=1e-12
    )
    step = 1e-6
    for i in range(5):
        shift = step * np.eye(5)[i]
        up, _ = objective_and_gradient(data, theta + shift, DELTA, weights)
        down, _ = objective_and_gradient(data, theta - shift, DELTA, weights)
        assert (up - down) / (2 * step) == pytest.approx(gradient[:, i], rel=1e-5, abs=1e-7)


def test_hessian_matches_differences_of_the_gradient():
    data, rng = scattered(5), np.random.default_rng(5)
    theta = random_theta(rng, 2)
    hessian = objective_hessian(data, theta, 10.0)  # a delta without kinks nearby
    for i in range(5):
        shift = 1e-6 * np.eye(5)[i]
        difference = (
            objective_and_gradient(data, theta + shift, 10.0)[1]
            - objective_and_gradient(data, theta - shift, 10.0)[1]
        )
        assert difference / 2e-6 == pytest.approx(hessian[:, i], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_minimum_is_not_above_scipy_from_many_starts(seed):
    data = scattered(seed)
    theta, objective, n_at_optimum = estimate_surface(data, DELTA)
    assert n_at_optimum > 5
    assert gradient_ratio(data, theta, DELTA) < 1e-10
    rng = np.random.default_rng(seed)

    def scaled(t):
        value, gradient = objective_and_gradient(data, t[None], DELTA)
        return value[0] / DELTA**2, gradient[0] / DELTA**2

    theirs = min(
        minimize(scaled, t, jac=True, method="BFGS", options={"gtol": 1e-9}).fun
        for t in random_theta(rng, 10)
    )
    assert objective <= theirs * DELTA**2 * (1 + 1e-9)


def test_weighted_minimum_equals_that_of_repeated_rows():
    data = scattered(1)
    rng = np.random.default_rng(1)
    weights = rng.integers(0, 3, (6, 40)).astype(float)
    start = np.repeat(estimate_surface(data, DELTA)[0][None], 6, axis=0)
    together = minimise(data, start, DELTA, weights=weights)
    assert together.converged.all()
    for row in range(6):
        rows = np.repeat(np.arange(40), weights[row].astype(int))
        loss = np.exp(data.y[rows])
        alone = CentredData.of(np.exp(data.u[rows]), np.exp(data.v[rows]), loss)
        _, objective, _ = estimate_surface(alone, DELTA)
        assert together.objective[row] == pytest.approx(objective, rel=1e-8)


def test_many_points_take_the_screened_path_to_the_same_minimum():
    few = scattered(2, n_points=30)
    many = CentredData.of(
        *(np.exp(np.tile(column, 40)) for column in (few.u, few.v, few.y)),
    )
    assert estimate_surface(many, DELTA)[0] == pytest.approx(estimate_surface(few, DELTA)[0], rel=1e-8)
