"""Tests of exclusions, budgets, the FLOP constraint and run noise."""

import dataclasses

import numpy as np
import pytest

from sweep.errors import InputError
from sweep.fit.table.constraint import FlopsPerToken
from sweep.fit.table.observations import observe
from sweep.records import Point
from tests.fit.planted import TINY, isoflop_points, tiny_flops_per_token

BUDGETS = (1e11, 4e11, 1.6e12)


def grid(**changes):
    return isoflop_points(TINY, BUDGETS, **{"n_sizes": 5, "span": 3, **changes})


def test_budgets_form_by_gaps_in_flops():
    seen = observe(grid())
    assert seen.budgets == pytest.approx(BUDGETS)
    assert np.bincount(seen.budget).tolist() == [5, 5, 5]


def test_planned_budgets_take_precedence_and_points_without_one_stay_outside():
    points = [dataclasses.replace(point, flops_budget=1e11) for point in grid()[:5]] + list(grid()[5:])
    seen = observe(points)
    assert seen.budgets.tolist() == [1e11]
    assert (seen.budget == -1).sum() == 10


def test_evenly_spread_flops_form_no_budget():
    points = [
        dataclasses.replace(grid()[0], flops=flops, n_params=1e4 + flops / 1e8, n_tokens=1e7)
        for flops in np.geomspace(1e11, 1e12, 60)
    ]
    assert len(observe(points).budgets) == 0


def test_tokens_or_flops_follow_from_six_n_d():
    point = Point(n_params=1e6, n_tokens=2e9, loss=3.0)
    seen = observe([point])
    assert (seen.flops[0], seen.flops_per_token.kind) == (1.2e16, "6nd")
    seen = observe([Point(n_params=1e6, flops=1.2e16, loss=3.0)])
    assert (seen.n_tokens[0], seen.flops_per_token.kind) == (2e9, "6nd")
    assert observe([dataclasses.replace(point, flops=1.3e16)]).flops_per_token.kind == "exact"


def test_a_column_given_for_some_points_only_is_an_error():
    with pytest.raises(InputError, match="lacks n_tokens or flops"):
        observe([Point(n_params=1e6, n_tokens=2e9, loss=3.0), Point(n_params=1e6, flops=1e16, loss=3.0)])
    with pytest.raises(InputError, match="has loss=nan"):
        observe([Point(n_params=1e6, n_tokens=2e9, loss=float("nan"))])
    with pytest.raises(InputError, match="no points"):
        observe([])


def test_diverged_and_excluded_points_are_listed_and_not_fitted():
    points = [dataclasses.replace(point, run_key=f"{i:016x}") for i, point in enumerate(grid())]
    points[2] = dataclasses.replace(points[2], status="diverged", loss=None)
    seen = observe(points, {points[4].run_key: "wrong corpus"})
    assert len(seen) == 13
    assert [(point.run_key, point.reason) for point in seen.excluded] == [
        (points[2].run_key, "diverged"),
        (points[4].run_key, "wrong corpus"),
    ]


def test_noise_comes_from_replicates_where_there_are_enough():
    rng = np.random.default_rng(0)
    noise = observe(grid(n_seeds=40, sd=0.01, rng=rng)).replicate_noise
    assert noise is not None
    assert (noise.n_dof, noise.source) == (15 * 39, "replicates")
    assert noise.sd == pytest.approx(0.01, rel=0.1)
    assert observe(grid()).replicate_noise is None
    assert observe(grid() + grid()).replicate_noise is None  # the same rows twice are not replicates


def test_flops_per_token_follow_the_models_inside_and_their_tangent_beyond():
    n_params = np.geomspace(1e4, 3e5, 12)
    truth = np.array([tiny_flops_per_token(n) for n in n_params])
    curve = FlopsPerToken.through(n_params, truth)
    assert curve(n_params) == pytest.approx(truth, rel=2e-4)
    assert curve(1e6) == pytest.approx(tiny_flops_per_token(1e6), rel=0.02)
    step = 1e-5
    for n in (5e3, 1e5, 2e6):
        rise = np.log(curve(n * np.exp(step)) / curve(n * np.exp(-step))) / (2 * step)
        assert curve.slope(np.array(n)) == pytest.approx(rise, rel=1e-8)
    assert FlopsPerToken.from_json(curve.to_json()) == curve


def test_flops_per_token_of_one_size_or_of_six_n():
    assert FlopsPerToken.through(np.array([1e6]), np.array([7e6]))(2e6) == pytest.approx(14e6)
    assert FlopsPerToken.six_nd()(np.array([1e6, 2e9])) == pytest.approx([6e6, 12e9])


def test_the_error_of_the_level_is_the_median_of_the_losses_errors_and_needs_all_of_them():
    points = [dataclasses.replace(point, loss_stderr=0.01 * i) for i, point in enumerate(grid()[:5])]
    assert observe(points).level_se == 0.02
    assert observe([*points, grid()[5]]).level_se is None
    assert observe(grid()).level_se is None
