"""Tests for lack of fit: warnings, a wider scatter for new runs, and another method's run to train."""

import dataclasses
import math

import numpy as np
import pytest

from sweep.config import FitConfig
from sweep.fit import fit
from sweep.fit.fit import METHODS
from sweep.fit.laws.base import coverage_warning
from sweep.fit.numerics.lack_of_fit import judged_noise, misfit_warning
from sweep.fit.predict import Question, predict
from sweep.fit.table.observations import RunNoise, observe
from tests.fit.one_method import answer
from tests.fit.planted import TINY, isoflop_points

QUICK = FitConfig(n_bootstrap=50)
BUDGETS = (1e11, 4e11, 1.6e12, 6.4e12)
LACK = "lack of fit: "


def grid(sd=0.002, n_seeds=2, bend=0.0, seed=1):
    """Return points of a planted surface; `bend` adds a term outside that form, largest at the middle C."""
    rng = np.random.default_rng(seed)
    points = isoflop_points(TINY, BUDGETS, n_sizes=5, span=3, n_seeds=n_seeds, labelled=True)
    middle = math.log(BUDGETS[0] * BUDGETS[-1]) / 2
    return [
        dataclasses.replace(
            point,
            loss=point.loss
            * math.exp(sd * rng.standard_normal() + bend * math.cos(math.log(point.flops) - middle)),
        )
        for point in points
    ]


def lack_of_fit(law):
    return [warning for warning in law.warnings if warning.startswith(LACK)]


@pytest.mark.parametrize("method", ["isoflop", "parametric"])
def test_the_planted_form_is_not_doubted(method):
    """One in a hundred is doubted by chance."""
    config = dataclasses.replace(QUICK, n_bootstrap=0)
    laws = [METHODS[method].fit(observe(grid(seed=seed)), config) for seed in range(10)]
    assert sum(law.doubted for law in laws) <= 1
    for law in laws:
        assert law.doubted == bool(lack_of_fit(law)) == (law.noise.source == "misfit")


def test_a_surface_of_another_shape_is_doubted_and_new_runs_scatter_more():
    config = dataclasses.replace(QUICK, methods=("isoflop", "parametric"))
    found = fit(grid(bend=0.02), config)
    parametric, isoflop = found.laws["parametric"], found.laws["isoflop"]
    (sentence,) = lack_of_fit(parametric)
    assert "F = " in sentence
    assert parametric.noise.source == "misfit"
    assert parametric.noise.sd > 2 * isoflop.noise.sd
    assert not lack_of_fit(isoflop)  # each budget has a parabola of its own
    question = Question(shape=lambda n, d: {"n": n})
    (answered,) = predict(found, [BUDGETS[-1]], question)
    assert answered.shape["method"] == "answer"
    assert sentence in answered.to_json()["methods"]["parametric"]["warnings"]
    sound = fit(grid(), config)
    assert sound.answer.weights["loss"]["parametric"] > found.answer.weights["loss"]["parametric"]


def test_kaplans_law_is_doubted_if_the_loss_has_a_floor_and_not_on_its_own_data():
    for n_seeds in (1, 2):
        law = answer(grid(n_seeds=n_seeds), "kaplan", QUICK)
        assert lack_of_fit(law)
        assert law.doubted
    rng = np.random.default_rng(1)
    own = [
        dataclasses.replace(
            point, loss=(((8.8e13 / point.n_params) ** 0.8 + 5.4e13 / point.n_tokens) ** 0.095)
            * math.exp(0.002 * rng.standard_normal()),
        )
        for point in grid(n_seeds=1)
    ]  # fmt: skip
    assert not lack_of_fit(answer(own, "kaplan", QUICK))


def test_equal_exponents_are_doubted_on_points_without_noise_too():
    law = answer(grid(sd=0.0, n_seeds=1), "overtraining", QUICK)
    assert any("reject alpha = beta" in warning for warning in law.warnings)


def test_the_test_for_lack_of_fit_by_hand():
    """RSS .0012 on 30 degrees, .0002 of it within cells on 10: F = (.001 / 20) / .00002 = 2.5, p = .068."""
    residuals = RunNoise(sd=math.sqrt(0.0012 / 30), n_dof=30, source="residuals")
    replicates = RunNoise(sd=math.sqrt(0.0002 / 10), n_dof=10, source="replicates")
    assert judged_noise(residuals, replicates) == (replicates, ())
    worse = dataclasses.replace(residuals, sd=math.sqrt(0.0032 / 30))  # F = (.003 / 20) / .00002 = 7.5
    noise, (sentence,) = judged_noise(worse, replicates)
    assert (noise.sd, noise.source) == (worse.sd, "misfit")
    assert "F = 7.5 on 20 and 10 degrees of freedom" in sentence
    assert judged_noise(residuals, None) == (residuals, ())


def test_a_form_as_good_as_the_free_surface_is_not_doubted():
    free = RunNoise(sd=0.002, n_dof=15, source="residuals")
    assert misfit_warning(dataclasses.replace(free, sd=0.0021), free) == ()
    assert misfit_warning(dataclasses.replace(free, sd=0.02), free)
    exact = dataclasses.replace(free, sd=0.0)
    assert misfit_warning(dataclasses.replace(free, sd=0.01), exact)
    assert misfit_warning(exact, exact) == ()


def test_an_interval_without_its_estimate_is_warned_of():
    law = answer(grid(n_seeds=1), "isoflop", QUICK)
    assert coverage_warning(law, BUDGETS[-1]) == ()
    shifted = dataclasses.replace(law, theta=law.theta + np.array([3.0, 0, 0, 0, 0, 0, 0]))
    (sentence,) = coverage_warning(shifted, BUDGETS[-1])
    assert "the interval of N_opt and D_opt and D/N does not contain the estimate" in sentence


def test_budgets_below_the_data_are_warned_of():
    found = fit(grid(n_seeds=1), dataclasses.replace(QUICK, methods=("parametric",)))
    (low, inside) = predict(found, [1e9, 1e12])
    assert any("100 times below the smallest" in warning for warning in low.methods["parametric"].warnings)
    assert inside.methods["parametric"].warnings == ()


def test_parabolas_are_judged_by_the_replicates_among_their_own_runs():
    """Replicates outside all budgets would dominate the test by their degrees of freedom."""
    rng = np.random.default_rng(3)
    outside = [
        dataclasses.replace(
            point, flops=1.9 * point.flops, n_tokens=1.9 * point.n_tokens, flops_budget=None, seed=seed,
            loss=TINY.loss(point.n_params, 1.9 * point.n_tokens) * math.exp(0.002 * rng.standard_normal()),
        )
        for point in grid(n_seeds=1)[:8]
        for seed in range(3)
    ]  # fmt: skip
    wavy = [
        dataclasses.replace(point, loss=point.loss * (1 + 0.02 * (-1) ** row))
        for row, point in enumerate(grid(n_seeds=1))
    ]
    twice = [
        dataclasses.replace(point, seed=seed, loss=point.loss * math.exp(0.002 * rng.standard_normal()))
        for point in wavy
        for seed in (0, 1)
    ]
    assert not lack_of_fit(answer([*grid(), *outside], "isoflop", QUICK))
    (sentence,) = lack_of_fit(answer([*twice, *outside], "isoflop", QUICK))
    assert "on 8 and 20 degrees of freedom" in sentence


def test_an_envelope_warns_if_only_its_loss_lies_outside_its_interval():
    points = list(isoflop_points(TINY, (1e11, 3e11, 1e12, 3e12, 1e13), n_sizes=8, span=3))
    points[3] = dataclasses.replace(points[3], loss=1.3 * points[3].loss)
    law = answer(points, "envelope", QUICK)
    found = [warning for warning in law.warnings if "not contain the estimate" in warning]
    assert found == [
        "at 1e+13 FLOPs the interval of the loss does not contain the estimate: use neither there"
    ]
    low, high = law.interval("loss_opt", 1e13)
    assert not low <= law.loss_opt(1e13) <= high
