"""The combined answer, on planted sweeps with and without form error."""

import dataclasses
import math

import numpy as np
import pytest

from sweep.config import FitConfig
from sweep.fit import Fit, Refusal, fit
from sweep.fit.answer import AnswerLaw
from sweep.fit.predict import predict_run
from sweep.records import Point
from tests.fit.planted import PlantedLaw, isoflop_points
from tests.fit.reference_data import reference_path

LAW = PlantedLaw()
SIX = tuple(np.geomspace(1e17, 1e17 * 3**5, 6))
QUICK = FitConfig(methods=("isoflop", "trend", "parametric", "overtraining"), n_bootstrap=100, confidence=0.9)


def planted(budgets=SIX, *, sd=0.002, seed=0, n_sizes=7, law=LAW):
    rng = np.random.default_rng(seed)
    return list(isoflop_points(law, budgets, n_sizes=n_sizes, span=3, sd=sd, rng=rng))


def truth(flops):
    n_params, n_tokens = LAW.optimum_6nd(flops)[:2]
    return n_params, LAW.loss(n_params, n_tokens)


@pytest.fixture(scope="module")
def found():
    return fit(planted(), QUICK)


def test_the_answer_is_the_weighted_mean_of_the_methods(found):
    answer = found.answer
    assert isinstance(answer, AnswerLaw)
    for target, name in (("n_params", "n_params_opt"), ("loss", "loss_opt")):
        weights = answer.weights[target]
        assert sum(weights.values()) == pytest.approx(1)
        mean = sum(w * math.log(found.laws[m].estimate(name, 1e21)) for m, w in weights.items())
        assert answer.estimate(name, 1e21) == pytest.approx(math.exp(mean))
    assert answer.n_tokens_opt(1e21) == pytest.approx(1e21 / (6 * answer.n_params_opt(1e21)))


def test_its_intervals_hold_the_truth_and_widen_with_reach(found):
    widths = []
    for flops in (SIX[-1], 3 * SIX[-1], 30 * SIX[-1]):
        n_params, loss = truth(flops)
        for quantity, value in (("n_params_opt", n_params), ("loss_opt", loss)):
            low, high = found.answer.interval(quantity, flops)
            assert low < value < high
        low, high = found.answer.interval("loss_opt", flops)
        new_low, new_high = found.answer.prediction_interval(flops)
        assert new_low < low < high < new_high
        widths.append(math.log(high / low))
    assert widths == sorted(widths)
    tokens, ratio = (found.answer.interval(q, 1e21) for q in ("n_tokens_opt", "tokens_per_param_opt"))
    assert tokens[0] < found.answer.n_tokens_opt(1e21) < tokens[1]
    assert ratio[0] < found.answer.estimate("tokens_per_param_opt", 1e21) < ratio[1]


def test_the_error_of_the_level_widens_the_interval_of_a_new_run_only():
    points = planted()
    with_error = [dataclasses.replace(point, loss_stderr=0.05) for point in points]
    known = fit(with_error, QUICK)
    flops = 10 * SIX[-1]
    alone, both = fit(points, QUICK).answer, known.answer
    assert (alone.level_se, both.level_se) == (None, 0.05)
    assert both.interval("loss_opt", flops) == alone.interval("loss_opt", flops)
    widths = [math.log(high / low) / 2 for low, high in (a.prediction_interval(flops) for a in (alone, both))]
    added = math.sqrt(widths[1] ** 2 - widths[0] ** 2) * both.loss_opt(flops)
    assert added == pytest.approx(1.645 * 0.05, rel=0.1)  # form errors have heavier tails
    read = Fit.from_json(known.to_json())
    assert read.answer.prediction_interval(flops) == both.prediction_interval(flops)
    run = [predict_run(found, 1e9, 1e11) for found in (read, fit(points, QUICK))]
    assert run[0].loss_interval == run[1].loss_interval
    assert run[0].loss_prediction_interval[1] > run[1].loss_prediction_interval[1] + 0.01


def test_draws_have_the_spread_of_the_interval(found):
    flops = np.array([10 * SIX[-1]])
    drawn = np.log(found.answer.optimum_draws(flops).n_params_opt[:, 0])
    low, high = np.log(found.answer.interval("n_params_opt", float(flops[0])))
    assert np.mean((drawn > low) & (drawn < high)) == pytest.approx(0.9, abs=0.03)


def test_exact_backtests_earn_a_narrow_interval():
    """With little noise the planted form predicts every cut, so its interval is near that of noise alone."""
    exact = fit(planted(sd=0.0005), QUICK)
    by_noise = exact.laws["parametric"].interval("loss_opt", 10 * SIX[-1])
    low, high = exact.answer.interval("loss_opt", 10 * SIX[-1])
    assert math.log(high / low) < 2 * math.log(by_noise[1] / by_noise[0])
    few = fit(planted(SIX[:4], sd=0.0005), QUICK)  # one cut, so the form is hardly tested
    assert math.log(np.divide(*few.answer.interval("loss_opt", 10 * SIX[3])[::-1])) > 4 * math.log(high / low)


def test_a_method_that_misses_in_the_backtest_loses_weight():
    """alpha and beta differ by a factor 3, which overtraining assumes equal."""
    unequal = PlantedLaw(A=406.4, B=410.7, alpha=0.465, beta=0.155)
    weights = fit(planted(sd=0.0005, law=unequal), QUICK).answer.weights["n_params"]
    assert weights["overtraining"] < 0.01
    assert weights["isoflop"] + weights["parametric"] > 0.8


@pytest.mark.ci
def test_intervals_hold_where_methods_disagree():
    """Four budgets of an unequal law: overtraining assumes one exponent, and one cut does not disprove it."""
    unequal = PlantedLaw(A=406.4, B=410.7, alpha=0.465, beta=0.155)
    optimum, _ = unequal.optimum_6nd(3 * SIX[3])
    held = []
    for seed in range(16):
        answer = fit(planted(SIX[:4], sd=0.005, seed=seed, law=unequal), QUICK).answer
        low, high = answer.interval("n_params_opt", 3 * SIX[3])
        held.append(low <= optimum <= high)
    assert np.mean(held) >= 0.85


def test_a_largest_budget_without_a_minimum_is_extrapolation(found):
    """Only the two smallest sizes of the largest budget are left: the minimum there is not known."""
    largest = sorted((p for p in planted() if p.flops > 0.9 * SIX[-1]), key=lambda p: p.n_params)
    partial = fit([p for p in planted() if p.flops < 0.9 * SIX[-1]] + largest[:2], QUICK).answer
    assert partial.flops_max == pytest.approx(SIX[-2], rel=1e-6)
    widths = [
        math.log(np.divide(*answer.interval("loss_opt", SIX[-1])[::-1])) for answer in (found.answer, partial)
    ]
    assert widths[1] > 1.5 * widths[0]


def test_the_answer_is_read_back_from_fit_json(found):
    back = Fit.from_json(found.to_json())
    assert back.to_json() == found.to_json()
    assert back.answer.interval("loss_opt", 1e21) == found.answer.interval("loss_opt", 1e21)


def test_an_outlier_is_named_and_left_out_of_the_answer():
    points = planted()
    points[11] = dataclasses.replace(points[11], name="spike", loss=1.12 * points[11].loss)
    spoilt, clean = fit(points, QUICK), fit([p for i, p in enumerate(points) if i != 11], QUICK)
    assert [run.run_key for run in spoilt.answer.without] == ["spike"]
    assert "spike" in spoilt.answer.warnings[0]
    assert spoilt.answer.loss_opt(1e21) == pytest.approx(clean.answer.loss_opt(1e21), rel=1e-9)
    assert spoilt.laws["isoflop"].loss_opt(1e21) != pytest.approx(
        clean.laws["isoflop"].loss_opt(1e21), rel=1e-9
    )
    assert Fit.from_json(spoilt.to_json()).to_json() == spoilt.to_json()


def test_without_a_law_there_is_no_answer():
    two = [p for p in planted() if p.flops in SIX[:2]][:3]
    refused = fit(two, QUICK).answer
    assert isinstance(refused, Refusal)
    assert refused.kind == "no_law"


def test_a_ladder_is_backtested_by_size_and_answered_by_its_surface():
    """Four sizes times four ratios D/N: no budgets, so the largest size is held out."""
    sizes = (1e7, 3e7, 1e8, 3e8)
    rng = np.random.default_rng(3)
    points = [
        Point(n_params=n, n_tokens=ratio * n, loss=LAW.loss(n, ratio * n) * math.exp(rng.normal(0, 0.001)))
        for n in sizes
        for ratio in (10, 20, 40, 80)
    ]
    found = fit(points, dataclasses.replace(QUICK, methods=("parametric", "overtraining")))
    assert found.backtest.kind == "size"
    assert len(found.backtest.cuts) == 1
    assert found.backtest.n_left_out == 4
    n_params, loss = truth(1e20)
    low, high = found.answer.interval("loss_opt", 1e20)
    assert low < loss < high
    assert found.answer.n_params_opt(1e20) == pytest.approx(n_params, rel=0.3)


def test_the_demo_is_predicted_at_five_times_its_largest_budget():
    """Measured: 3.279 at N = 2.03e5 (six runs at 3e12 FLOPs)."""
    import pandas as pd

    table = pd.read_csv(reference_path("sweeps/own_demo_and_5x.csv"))
    answer = fit(table[table.flops_budget < 1e12], dataclasses.replace(QUICK, methods=None)).answer
    low, high = answer.interval("loss_opt", 3e12)
    assert low < 3.279 < high
    low, high = answer.interval("n_params_opt", 3e12)
    assert low < 2.03e5 < high
    assert high / low < 1.8
