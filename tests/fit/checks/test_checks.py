"""Agreement, backtest, reconciled conventions, filters, lifetime optima, refused extrapolations."""

import dataclasses
import math

import numpy as np
import pytest

from sweep.config import FilterConfig, FitConfig
from sweep.fit import Fit, Question, Refusal, fit, predict
from sweep.fit.checks.agreement import agreement
from sweep.fit.laws.lifetime import lifetime_optimum
from sweep.fit.laws.published import SIX_ND
from sweep.records import Point
from tests.fit.one_method import answer
from tests.fit.planted import TINY, PlantedLaw, isoflop_points, tiny_flops_per_token

CHINCHILLA = PlantedLaw()
BOTH = FitConfig(methods=("isoflop", "parametric"), n_bootstrap=60)
BARE = dataclasses.replace(BOTH, n_bootstrap=0)
BUDGETS = tuple(np.geomspace(1e11, 1e13, 5))


def tiny(budgets=BUDGETS, **changes):
    return isoflop_points(
        TINY, budgets, **{"n_sizes": 7, "span": 3, "flops_per_token": tiny_flops_per_token, **changes}
    )


def test_methods_are_compared_at_1_10_and_100_times_the_largest_budget():
    found = fit(tiny(sd=0.004, rng=np.random.default_rng(0)), BOTH)
    rows = found.to_json()["agreement"]["rows"]
    assert [row["flops"] for row in rows] == pytest.approx([1e13, 1e14, 1e15])
    for row in rows:
        for name, entry in row["methods"].items():
            assert entry["n_params_opt"] == found.methods[name].n_params_opt(row["flops"])
    assert found.agreement.agree
    assert found.agreement.disagreements == ()


def test_a_contradiction_is_a_plain_sentence():
    rng = np.random.default_rng(0)
    low = answer(tiny(sd=0.001, rng=rng), "parametric", BOTH)
    shifted = PlantedLaw(E=1.0, A=80.0, B=150.0, alpha=0.40, beta=0.37)
    high = answer(isoflop_points(shifted, BUDGETS, n_sizes=7, span=3, sd=0.001, rng=rng), "parametric", BOTH)
    found = agreement({"one": low, "two": high}, 1e13)
    assert not found.agree
    assert "one and two disagree on N_opt by more than their intervals" in found.disagreements[0]


def test_the_backtest_knows_what_a_law_without_noise_would_predict():
    """Two of five budgets left out: the surface is exact, the parabola only off by its own bias."""
    found = fit(tiny(), BARE).backtest
    assert found.left_out == pytest.approx(BUDGETS[3:])
    assert (found.n_fitted, found.n_left_out, found.banded) == (21, 14, False)
    parametric, isoflop = found.methods["parametric"], found.methods["isoflop"]
    assert abs(parametric.loss_rms_error) < 1e-9
    assert isoflop.loss_rms_error is None
    for budget in isoflop.budgets:
        assert abs(budget.n_params_opt_error) < 0.05
        assert abs(budget.loss_opt_error) < 0.01
    for budget in parametric.budgets:
        assert abs(budget.n_params_opt_error) < 0.05  # the parabola's minimum, taken as true, is biased


def test_the_backtest_leaves_one_of_four_out_and_refuses_three():
    assert len(fit(tiny(BUDGETS[:4]), BARE).backtest.left_out) == 1
    refused = fit(tiny(BUDGETS[:3]), BARE).backtest
    assert isinstance(refused, Refusal)
    assert refused.kind == "too_few_budgets_left"
    assert "add a budget" in refused.reason


def test_a_method_that_refuses_the_rest_says_so_in_the_backtest():
    points = list(tiny(BUDGETS[:4]))
    assert fit(points, BARE).backtest.methods["parametric"].loss_rms_error is not None
    two = [p for p in tiny(BUDGETS[:4]) if p.flops in BUDGETS[1:3]]
    rest = [p for p in points if p.flops not in BUDGETS[1:3]]
    few = fit(rest + [dataclasses.replace(p, n_params=p.n_params * 1e-3) for p in two[:1]], BARE)
    entries = few.to_json()["backtest"].get("methods", {}).values()
    assert all("refused" in entry or entry["budgets"] for entry in entries)


def test_assumed_exponents_do_not_extend_the_range_of_predictions():
    """The interval of overtraining hardly widens with C, because it assumes alpha = beta."""
    config = dataclasses.replace(BOTH, methods=("parametric", "overtraining"))
    noisy = fit(tiny(BUDGETS[:3], sd=0.01, rng=np.random.default_rng(3)), config)
    near, far = predict(noisy, [3e12, 1e24], Question(max_interval_factor=50.0))
    assert not any(isinstance(method, Refusal) for method in near.methods.values())
    assert {name: method.kind for name, method in far.methods.items()} == {
        "parametric": "extrapolation",
        "overtraining": "extrapolation",
    }
    (low,) = predict(noisy, [1.0], Question(max_interval_factor=50.0))
    assert low.methods["parametric"].reason.startswith("1 FLOPs are too far below the points: the interval")
    assert low.methods["parametric"].reason.endswith("add runs at smaller budgets, or more seeds")
    assert "too far below the points: the exponents" in low.methods["overtraining"].reason
    assert "too far beyond the points" in far.methods["parametric"].reason
    alone = dataclasses.replace(noisy, methods={"overtraining": noisy.methods["overtraining"]})
    (prediction,) = predict(alone, [1e24], Question(max_interval_factor=50.0))
    assert not isinstance(prediction.methods["overtraining"], Refusal)


def test_points_of_no_budget_beyond_those_left_out_are_not_fitted():
    """A backtest is an extrapolation: no fitted point has the C of those held out."""
    stray = [Point(n_params=n, n_tokens=1e9, flops=6e9 * n, loss=TINY.loss(n, 1e9)) for n in (1e6, 3e6)]
    budgets = [dataclasses.replace(p, flops_budget=p.flops) for p in tiny()]
    found = fit([*budgets, *stray], BARE).backtest
    assert found.largest_fitted_flops < min(found.left_out)
    assert found.n_left_out == 14 + 2
    assert len(found.methods["parametric"].budgets) == 2


def test_tables_without_budgets_are_backtested_in_bands():
    rng = np.random.default_rng(1)
    points = [
        Point(n_params=n, n_tokens=d, loss=TINY.loss(n, d))
        for n, d in zip(np.exp(rng.uniform(9, 14, 120)), np.exp(rng.uniform(14, 19, 120)), strict=True)
    ]
    found = fit(points, BARE)
    assert found.backtest.banded
    assert found.backtest.n_fitted + found.backtest.n_left_out == 120
    assert abs(found.backtest.methods["parametric"].loss_rms_error) < 1e-9
    assert Fit.from_json(found.to_json()).backtest == found.backtest


def test_reconciling_moves_the_exponent_as_the_counting_does():
    """Non-embedding N on models with a large vocabulary: a rises well above that of total N."""
    points = []
    for budget in np.geomspace(1e16, 1e19, 5):
        for d_model in np.geomspace(64, 1024, 12):
            non_embedding, embedding = 96 * d_model**2, 32_000 * d_model
            n_params = non_embedding + embedding
            n_tokens = budget / (6 * n_params)
            points.append(
                Point(
                    n_params=n_params,
                    n_params_non_embedding=non_embedding,
                    n_tokens=n_tokens,
                    flops=budget,
                    flops_budget=budget,
                    loss=CHINCHILLA.loss(n_params, n_tokens),
                )
            )
    found = fit(points, BARE, reconcile=True)
    rows = found.to_json()["reconcile"]["rows"]
    by_kind = {(r["method"], r["n_params"], r["flops"], r["offset"]): r for r in rows}
    total = by_kind["parametric", "total", "exact", "with"]["a"]
    assert total == pytest.approx(0.28 / 0.62, rel=1e-3)
    kaplan = by_kind["parametric", "non_embedding", "kaplan", "with"]["a"]
    assert kaplan > total + 0.1
    assert by_kind["isoflop", "non_embedding", "exact", "none"]["a"] > total + 0.1
    assert "flops_chinchilla" in by_kind["parametric", "total", "chinchilla", "with"]["refused"]
    assert {r["offset"] for r in rows} == {"with", "without", "none"}
    assert Fit.from_json(found.to_json()).reconcile == found.reconcile
    assert fit(points, BARE).reconcile is None


def test_filters_are_named_counted_and_listed():
    filters = FilterConfig(drop_highest_losses=3, max_flops=5e12)
    points = [dataclasses.replace(p, run_key=f"{i:016x}") for i, p in enumerate(tiny())]
    found = fit(points, dataclasses.replace(BARE, filters=filters)).to_json()["points"]
    assert found["filters"] == [
        {"name": "drop_highest_losses", "value": 3, "n_dropped": 3},
        {"name": "max_flops", "value": 5e12, "n_dropped": 7},
    ]
    assert found["n"] == 35 - 10
    dropped = {p["run_key"] for p in found["excluded"] if p["reason"] == "filter drop_highest_losses=3"}
    highest = sorted(points, key=lambda p: -p.loss)[:3]
    assert dropped == {p.run_key for p in highest}


def test_serving_tokens_makes_the_best_model_smaller_as_in_sardana():
    """Against a brute search on the planted surface; nothing served leaves the training optimum."""
    theta = np.array([*np.log([CHINCHILLA.A, CHINCHILLA.B, CHINCHILLA.E]), 0.34, 0.28])
    n_opt, d_opt = CHINCHILLA.optimum_6nd(1e22)
    loss = CHINCHILLA.loss(n_opt, d_opt)
    nothing = lifetime_optimum(theta, SIX_ND, n_opt, loss, 0.0)
    assert nothing.n_params == pytest.approx(n_opt, rel=1e-3)
    found = lifetime_optimum(theta, SIX_ND, n_opt, loss, 1e13)
    sizes = np.exp(np.linspace(math.log(n_opt / 50), math.log(n_opt), 400_001))
    left = loss - CHINCHILLA.E - CHINCHILLA.A / sizes**CHINCHILLA.alpha
    tokens = (CHINCHILLA.B / np.where(left > 0, left, np.nan)) ** (1 / CHINCHILLA.beta)
    cost = 6 * sizes * tokens + 2 * sizes * 1e13
    assert found.lifetime_flops == pytest.approx(np.nanmin(cost), rel=1e-8)
    assert found.n_params == pytest.approx(sizes[np.nanargmin(cost)], rel=1e-3)
    assert CHINCHILLA.loss(found.n_params, found.n_tokens) == pytest.approx(loss, rel=1e-10)
    assert found.n_params < n_opt < found.n_tokens


def test_an_extrapolation_with_a_wide_interval_is_refused():
    noisy = fit(tiny(BUDGETS[:3], sd=0.01, rng=np.random.default_rng(3)), BOTH)
    (near,) = predict(noisy, [3e12], Question(max_interval_factor=50.0))
    (far,) = predict(noisy, [1e24], Question(max_interval_factor=3.0))
    assert not all(isinstance(answer, Refusal) for answer in near.methods.values())
    for prediction in far.methods.values():
        assert isinstance(prediction, Refusal)
        assert prediction.kind == "extrapolation"
        assert "add runs at larger budgets" in prediction.reason


def test_the_excess_loss_off_the_optimum_is_that_of_the_surface():
    found = fit(tiny(), BARE)
    methods = predict(found, [1e13])[0].to_json()["methods"]
    best = TINY.optimum_by_search(1e13, tiny_flops_per_token)

    def loss(n):
        return TINY.loss(n, 1e13 / tiny_flops_per_token(n))

    excess = methods["parametric"]["loss_off_2x"]
    assert excess["half_n"] == pytest.approx(loss(best / 2) - loss(best), rel=0.05)
    assert excess["double_n"] == pytest.approx(loss(best * 2) - loss(best), rel=0.05)
    assert methods["isoflop"]["loss_off_2x"]["half_n"] == pytest.approx(excess["half_n"], rel=0.3)


def test_beyond_the_trained_sizes_the_planned_family_gives_the_flops():
    found = fit(tiny(), BARE)
    sizes = np.geomspace(1e3, 1e9, 60)
    family = (sizes, np.array([tiny_flops_per_token(n) for n in sizes]))
    flops = 1e17
    truth = TINY.optimum_by_search(flops, tiny_flops_per_token)
    (plain,) = predict(found, [flops])
    (planned,) = predict(found, [flops], Question(family=family))
    n_plain, n_planned = (
        answer.methods["parametric"].estimate["n_params_opt"] for answer in (plain, planned)
    )
    assert n_planned == pytest.approx(truth, rel=2e-3)
    assert abs(n_planned / truth - 1) < abs(n_plain / truth - 1)
    other = (sizes, 3 * family[1])  # not the family these points came from
    (unmoved,) = predict(found, [flops], Question(family=other))
    assert unmoved.methods["parametric"].estimate["n_params_opt"] == n_plain


def test_a_notebook_shows_a_table_and_escapes_what_it_shows():
    points = [dataclasses.replace(p, name="<script>") for p in tiny(BUDGETS[:3])]
    found = fit(points, BOTH, excluded={"nothing": "by hand"})
    html = found._repr_html_()
    assert html.count("<tr>") == 1 + len(BOTH.methods)
    assert f"{found.methods['parametric'].to_json()['a']:.4g}" in html
    two = fit([dataclasses.replace(p, corpus="<b>" if i % 2 else "c") for i, p in enumerate(points)], BOTH)
    assert "<b>" not in two._repr_html_()
    assert "&lt;b&gt;" in two._repr_html_()
