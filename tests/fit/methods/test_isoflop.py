"""Minima of budgets with few sizes, on planted surfaces."""

import math

import numpy as np
import pytest

from sweep.config import IsoflopOptions
from sweep.fit.methods.isoflop import find_minima
from sweep.fit.refusals import RefusedError
from sweep.fit.table.observations import observe
from tests.fit.planted import PlantedLaw, isoflop_points

LAW = PlantedLaw()
BUDGETS = tuple(np.geomspace(1e17, 1e19, 4))
BEYOND = 4e19


def minima(*grids):
    return find_minima(observe(tuple(point for grid in grids for point in grid)), IsoflopOptions())


def grid(budgets, *, n_sizes, span, seed=0):
    rng = np.random.default_rng(seed)
    return isoflop_points(LAW, budgets, n_sizes=n_sizes, span=span, sd=0.001, rng=rng, labelled=True)


def test_three_sizes_are_a_minimum_where_other_budgets_check_the_parabola():
    """Ten validations: the planted optimum lies within three standard errors of the minimum of each."""
    n_params, _ = LAW.optimum_6nd(BEYOND)
    for seed in range(10):
        swept = grid(BUDGETS, n_sizes=6, span=3, seed=seed)
        found = minima(swept, grid((BEYOND,), n_sizes=3, span=1.7, seed=seed + 100)).counted
        assert [budget.flops_budget for budget in found] == pytest.approx([*BUDGETS, BEYOND])
        last = found[-1]
        assert abs(math.log(last.n_params_opt / n_params)) < 3 * last.n_params_opt_se
        assert last.n_params_opt_se < 0.2
        assert abs(math.log(last.loss_opt / LAW.loss(*LAW.optimum_6nd(BEYOND)))) < 3 * last.loss_opt_se


def test_three_sizes_over_a_wider_range_than_any_checked_one_are_none():
    found = minima(grid(BUDGETS, n_sizes=6, span=3), grid((BEYOND,), n_sizes=3, span=6))
    assert found.budgets[-1].status == "too_few"
    assert len(found.counted) == len(BUDGETS)


def test_three_sizes_at_every_budget_are_refused():
    with pytest.raises(RefusedError, match="0 of 4 budgets have a valid minimum") as error:
        minima(grid(BUDGETS, n_sizes=3, span=1.7))
    assert "3 sizes" in str(error.value)
