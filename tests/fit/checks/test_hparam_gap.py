"""The hyperparameter gap: planted parabolas, lower bounds, standard errors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sweep.fit.checks.hparam_gap import hparam_gap

VALUES = (0.5, 1.0, 2.0)


def losses(best, curvature, values=VALUES, noise=0.0, n_seeds=3, rng=None):
    """Of a parabola in ln(value) with its minimum 3.0 at `best`; seeds differ by a common shift and noise."""
    x = np.log(np.asarray(values) / best)
    rng = rng or np.random.default_rng(0)
    shift = rng.normal(0, 0.05, (n_seeds, 1))
    return 3.0 + 0.5 * curvature * x**2 + shift + noise * rng.standard_normal((n_seeds, len(values)))


@pytest.mark.parametrize("best", [0.6, 1.0, 1.7])
@pytest.mark.parametrize("values", [VALUES, (0.375, 1.0, 1.75)])
def test_a_planted_parabola_comes_back(best, values):
    found = hparam_gap(values, 1.0, losses(best, 0.2, values))
    assert found.status == "ok"
    assert found.loss_left == pytest.approx(0.1 * math.log(best) ** 2, abs=1e-12)
    assert found.factor_opt == pytest.approx(best)
    assert found.curvature == pytest.approx(0.2)
    assert found.stderr == pytest.approx(0, abs=1e-9)  # the seeds' common shift is no error


def test_a_minimum_outside_or_none_is_a_lower_bound():
    outside = hparam_gap(VALUES, 1.0, losses(4.0, 0.2))
    x = math.log(4)
    gain = 0.1 * (x**2 - (x - math.log(2)) ** 2)
    assert (outside.status, outside.factor_opt) == ("outside", None)
    assert outside.loss_left == pytest.approx(gain)
    hill = hparam_gap(VALUES, 1.0, losses(1.1, -0.2))
    assert hill.status == "not_convex"
    assert hill.loss_left > 0
    assert not hill.within


def test_small_or_indistinguishable_is_within():
    assert hparam_gap(VALUES, 1.0, losses(1.3, 0.2)).within  # .0069 nats
    assert not hparam_gap(VALUES, 1.0, losses(1.9, 0.2)).within  # .041
    noisy = hparam_gap(VALUES, 1.0, np.array([[3.1, 3.0, 2.89], [3.1, 3.0, 3.1], [3.1, 3.0, 3.01]]))
    assert noisy.loss_left > 0.01
    assert noisy.within


@pytest.mark.parametrize("best", [1.0, 1.4])
def test_the_standard_error_is_the_spread_over_repetitions(best):
    """Many seeds a repetition, so that the covariance is known well: what is tested is the propagation."""
    rng = np.random.default_rng(1)
    found = [hparam_gap(VALUES, 1.0, losses(best, 0.3, noise=0.05, n_seeds=60, rng=rng)) for _ in range(400)]
    assert all(one.status == "ok" for one in found)
    spread = np.std([one.loss_left for one in found])
    assert 0.85 * spread < np.mean([one.stderr for one in found]) < 1.35 * spread


def test_too_little_is_incomplete():
    for values, table in (
        ((1.0, 2.0), losses(1.0, 0.2)[:, 1:]),
        ((1.0, 2.0, 4.0), losses(1.0, 0.2)),
        (VALUES, np.empty((0, 3))),
    ):
        found = hparam_gap(values, 1.0, table)
        assert (found.status, found.loss_left, found.within) == ("incomplete", None, False)
    one_seed = hparam_gap(VALUES, 1.0, losses(1.2, 0.2, n_seeds=1))
    assert (one_seed.status, one_seed.stderr) == ("ok", None)
