"""Tests of the batched minimiser against finite differences, SciPy and planted surfaces."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from sweep.fit.numerics.centred import CentredData
from sweep.fit.numerics.estimation import estimate_surface
from sweep.fit.numerics.identifiability import gradient_ratio
from sweep.fit.numerics.minimise import FunctionModel, differentiate, huber, minimise

DELTA = 1e-2


def scattered(seed: int, n_points: int = 40, sd: float = 0.02) -> CentredData:
    rng = np.random.default_rng(seed)
    n_params, n_tokens = np.exp(rng.uniform(10, 18, n_points)), np.exp(rng.uniform(14, 22, n_points))
    loss = 1.7 + 60 / n_params**0.35 + 300 / n_tokens**0.3
    return CentredData.of(n_params, n_tokens, loss * np.exp(sd * rng.standard_normal(n_points)))


def plain_objective(data: CentredData, theta: np.ndarray, weights: np.ndarray) -> float:
    """Sum the weighted Huber losses point by point, from the definition."""
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
    at = differentiate(data, theta, data.y, DELTA, weights)
    assert at.objective == pytest.approx(
        [plain_objective(data, t, w) for t, w in zip(theta, weights, strict=True)], rel=1e-12
    )
    step = 1e-6
    for i in range(5):
        shift = step * np.eye(5)[i]
        up = differentiate(data, theta + shift, data.y, DELTA, weights).objective
        down = differentiate(data, theta - shift, data.y, DELTA, weights).objective
        assert (up - down) / (2 * step) == pytest.approx(at.gradient[:, i], rel=1e-5, abs=1e-7)


def test_hessian_matches_differences_of_the_gradient():
    data, rng = scattered(5), np.random.default_rng(5)
    theta = random_theta(rng, 2)
    delta = 10.0  # without kinks nearby
    hessian = differentiate(data, theta, data.y, delta).hessian
    for i in range(5):
        shift = 1e-6 * np.eye(5)[i]
        difference = (
            differentiate(data, theta + shift, data.y, delta).gradient
            - differentiate(data, theta - shift, data.y, delta).gradient
        )
        assert difference / 2e-6 == pytest.approx(hessian[:, i], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("seed", range(2))
def test_minimum_is_not_above_scipy_from_many_starts(seed):
    data = scattered(seed)
    theta, objective, n_at_optimum = estimate_surface(data, DELTA)
    assert n_at_optimum > 5
    assert gradient_ratio(data, theta, DELTA) < 1e-10
    rng = np.random.default_rng(seed)

    def scaled(t):
        at = differentiate(data, t[None], data.y, DELTA)
        return at.objective[0] / DELTA**2, at.gradient[0] / DELTA**2

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
    together = minimise(data, start, data.y, DELTA, weights=weights)
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


def test_every_model_and_basis_goes_through_the_same_loop():
    """Gauss-Newton steps with central differences end where exact Newton steps end."""
    data = scattered(3)
    theta = np.array([[-1.0, -1.0, -0.5, 0.35, 0.35]])
    function = FunctionModel(lambda values: data.evaluate(values)[0])
    tied = np.eye(5)[:, :4]
    tied[4, 3] = 1.0
    fixed_floor = np.delete(np.eye(5), 2, axis=1)
    for basis in (None, tied, fixed_floor):
        exact = minimise(data, theta, data.y, DELTA, basis=basis)
        approximate = minimise(function, theta, data.y, DELTA, basis=basis)
        assert exact.converged.all()
        assert approximate.converged.all()
        assert approximate.objective == pytest.approx(exact.objective, rel=1e-9)
    assert exact.theta[0, 2] == -0.5


def test_a_row_does_not_depend_on_the_rows_minimised_with_it():
    data, rng = scattered(4), np.random.default_rng(4)
    start = random_theta(rng, 20)
    together = minimise(data, start, data.y, DELTA)
    for row in (0, 7, 19):
        alone = minimise(data, start[row : row + 1], data.y, DELTA)
        assert alone.theta[0] == pytest.approx(together.theta[row], rel=1e-9)


def test_starts_without_a_finite_objective_are_not_converged():
    data = scattered(4)
    start = np.array([[np.nan] * 5, [800.0, 0.0, 0.0, 0.3, 0.3], [-1.0, -1.0, 0.0, 0.35, 0.35]])
    solution = minimise(data, start, data.y, DELTA)
    assert solution.converged.tolist() == [False, False, True]
    assert np.isinf(solution.objective[:2]).all()
