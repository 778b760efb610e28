"""Isoflop and parametric on planted laws: recovery, constraint, invariances, fit.json, prediction."""

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.config import FitConfig, IsoflopOptions
from sweep.errors import InputError
from sweep.fit import Question, Refusal, fit, predict, read_fit
from sweep.fit.laws.base import QUANTITIES
from sweep.fit.laws.power_law import fit_floor_law
from tests.fit.one_method import answer
from tests.fit.planted import TINY, PlantedLaw, isoflop_points, six_n, tiny_flops_per_token

BUDGETS = tuple(np.geomspace(1e11, 1e13, 5))
QUICK = FitConfig(n_bootstrap=100, methods=("isoflop", "parametric"))
EVERY = ("envelope", "isoflop", "parametric", "kaplan", "overtraining")
NONE = FitConfig(n_bootstrap=0, methods=("isoflop", "parametric"))


def tiny_points(sd=0.0, seed=0, **changes):
    rng = np.random.default_rng(seed)
    options = {
        "n_sizes": 7,
        "span": 3,
        "flops_per_token": tiny_flops_per_token,
        "sd": sd,
        "rng": rng,
        **changes,
    }
    return isoflop_points(TINY, BUDGETS, **options)


@pytest.fixture(scope="module")
def noisy_fit():
    return fit(tiny_points(sd=0.004), QUICK)


@pytest.mark.parametrize(
    "law",
    [
        PlantedLaw(),
        TINY,
        PlantedLaw(E=1.8172, A=477.8, B=2143.4, alpha=0.3473, beta=0.3672),
        PlantedLaw(E=0.3, A=5.0, B=4e6, alpha=0.15, beta=0.9),
    ],
)
def test_parametric_recovers_a_planted_law(law):
    budgets = BUDGETS if law is TINY else np.geomspace(1e18, 1e21, 4)
    entry = answer(isoflop_points(law, budgets, n_sizes=7, span=5), "parametric", NONE).to_json()
    for name in ("E", "A", "B", "alpha", "beta"):
        assert entry[name] == pytest.approx(getattr(law, name), rel=1e-6)
    assert entry["a"] == pytest.approx(law.beta / (law.alpha + law.beta), rel=1e-6)
    assert entry["a"] + entry["b"] == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("flops", [1e11, 1e12, 1e14])
def test_parametric_optimum_obeys_the_exact_constraint(flops):
    """Against a golden-section search on the planted law and the true FLOPs of the models."""
    law = answer(tiny_points(), "parametric", NONE)
    truth = TINY.optimum_by_search(flops, tiny_flops_per_token)
    assert law.n_params_opt(flops) == pytest.approx(truth, rel=2e-3 if flops < 1e13 else 2e-2)
    assert law.loss_opt(flops) == pytest.approx(
        TINY.loss(truth, flops / tiny_flops_per_token(truth)), rel=1e-4 if flops < 1e13 else 2e-3
    )
    spent = law.n_tokens_opt(flops) * law.flops_per_token(law.n_params_opt(flops))
    assert spent == pytest.approx(flops, rel=1e-12)


def test_constraint_matters_on_tiny_models():
    exact = fit(tiny_points(), NONE)
    approximate = fit([dataclasses.replace(point, flops=None) for point in tiny_points()], NONE)
    assert (exact.constraint, approximate.constraint) == ("exact", "6nd")
    n_exact, n_6nd = (f.methods["parametric"].n_params_opt(1e12) for f in (exact, approximate))
    assert n_exact == pytest.approx(TINY.optimum_by_search(1e12, tiny_flops_per_token), rel=2e-3)
    assert n_6nd == pytest.approx(TINY.optimum_by_search(1e12, six_n), rel=1e-5)


def test_isoflop_is_exact_where_the_parabola_is_symmetric():
    """alpha = beta, centred grids, C = 6 N D: the one case in which Approach 2 has no bias."""
    law = PlantedLaw(A=400.0, B=400.0, alpha=0.31, beta=0.31)
    found = answer(isoflop_points(law, np.geomspace(1e17, 1e21, 5), n_sizes=9, span=4), "isoflop", NONE)
    n_params, n_tokens = law.optimum_6nd(1e24)
    assert found.n_params_opt(1e24) == pytest.approx(n_params, rel=1e-6)
    assert found.n_tokens_opt(1e24) == pytest.approx(n_tokens, rel=1e-6)


def test_isoflop_takes_tokens_from_exact_flops():
    found = answer(tiny_points(), "isoflop", NONE)
    entry = found.to_json()
    assert entry["a"] + entry["b"] != pytest.approx(1, abs=5e-3)
    for budget in entry["budgets"]:
        truth = TINY.optimum_by_search(budget["flops_budget"], tiny_flops_per_token)
        assert budget["n_params_opt"] == pytest.approx(truth, rel=0.03)
        spent = budget["n_tokens_opt"] * tiny_flops_per_token(budget["n_params_opt"])
        assert spent == pytest.approx(budget["flops"], rel=1e-3)


def test_floor_law_recovers_its_own_form():
    x = np.log(np.geomspace(0.1, 10, 5))
    for floor, scale, gamma in ((1.5, 0.8, 0.15), (0.0, 3.0, 0.05), (2.0, 0.1, 0.6)):
        found = fit_floor_law(x, floor + scale * np.exp(-gamma * x))
        assert [found[0], np.exp(found[1]), found[2]] == pytest.approx([floor, scale, gamma], abs=2e-5)
    stacked = fit_floor_law(np.stack([x, x]), np.stack([2 - 0.1 * x, 2 - 0.2 * x]))
    assert all(part.shape == (2,) for part in stacked)


@pytest.mark.ci
@given(seed=st.integers(0, 50), units=st.tuples(*[st.sampled_from([1.0, 10.0, 1e3, 1e6])] * 2))
@settings(max_examples=3, deadline=None)
def test_estimates_do_not_depend_on_row_order_or_units(seed, units):
    points = tiny_points(sd=0.004, seed=seed)
    every = dataclasses.replace(NONE, methods=EVERY)
    order = np.random.default_rng(seed).permutation(len(points))
    shuffled = fit([points[i] for i in order], every)
    reference = fit(points, every)
    assert json.dumps(shuffled.to_json()) == json.dumps(reference.to_json())
    unit_n, unit_d = units
    unit_c = unit_n * unit_d
    scaled = [
        dataclasses.replace(
            p, n_params=p.n_params * unit_n, n_tokens=p.n_tokens * unit_d, flops=p.flops * unit_c
        )
        for p in points
    ]
    other = fit(scaled, every)
    assert set(other.laws) == set(reference.laws)
    for name, ours in reference.laws.items():
        theirs = other.laws[name]
        assert theirs.n_params_opt(3e12 * unit_c) == pytest.approx(ours.n_params_opt(3e12) * unit_n, rel=1e-7)
        assert theirs.n_tokens_opt(3e12 * unit_c) == pytest.approx(ours.n_tokens_opt(3e12) * unit_d, rel=1e-7)
        assert theirs.loss_opt(3e12 * unit_c) == pytest.approx(ours.loss_opt(3e12), rel=1e-7)


@pytest.mark.ci
@given(seed=st.integers(0, 50))
@settings(max_examples=3, deadline=None)
def test_budgets_given_twice_change_no_estimate(seed):
    """Every run has a twin of another key and the same loss."""
    points = tiny_points(sd=0.004, seed=seed)
    twins = tuple(dataclasses.replace(point, run_key=f"{row:016x}") for row, point in enumerate(points))
    classical = IsoflopOptions(window="all", weighted=False)  # variances, and so weights, count runs
    every = dataclasses.replace(NONE, methods=EVERY, isoflop=classical)
    once, twice = fit(points, every), fit(points + twins, every)
    assert set(once.laws) == set(twice.laws) >= {"isoflop", "parametric", "kaplan", "overtraining"}
    for name, law in once.laws.items():
        for quantity in QUANTITIES:
            estimate = twice.laws[name].estimate(quantity, 3e12)
            assert estimate == pytest.approx(law.estimate(quantity, 3e12), rel=1e-7), (name, quantity)
    assert twice.laws["parametric"].objective == pytest.approx(2 * once.laws["parametric"].objective)


def test_the_seed_fixes_the_intervals(noisy_fit):
    again = fit(tuple(reversed(tiny_points(sd=0.004))), QUICK)
    assert json.dumps(again.to_json()) == json.dumps(noisy_fit.to_json())
    other = fit(tiny_points(sd=0.004), dataclasses.replace(QUICK, seed=1))
    for name in noisy_fit.laws:
        assert other.methods[name].to_json()["ci"] != noisy_fit.methods[name].to_json()["ci"]


def test_intervals_bracket_their_estimates_and_widen_beyond_the_data(noisy_fit):
    for law in noisy_fit.laws.values():
        for quantity in QUANTITIES:
            near, far = law.interval(quantity, 1e12), law.interval(quantity, 1e15)
            assert near[0] < law.estimate(quantity, 1e12) < near[1]
            assert math.log(far[1] / far[0]) > math.log(near[1] / near[0])
        low, high = law.interval("loss_opt", 1e12)
        run_low, run_high = law.prediction_interval(1e12)
        assert run_low < low < high < run_high


def test_array_and_scalar_arguments_agree(noisy_fit):
    for law in noisy_fit.laws.values():
        flops = np.array([1e11, 1e13])
        assert law.n_params_opt(flops) == pytest.approx([law.n_params_opt(1e11), law.n_params_opt(1e13)])
        assert isinstance(law.loss_opt(1e12), float)


def test_fit_json_has_the_agreed_form(noisy_fit):
    document = json.loads(json.dumps(noisy_fit.to_json(), allow_nan=False))
    assert document["schema_version"] == 1
    assert document["points"]["n"] == 35
    assert document["points"]["excluded"] == []
    assert document["conventions"] == {"n_params": "n_params", "flops": "flops", "constraint": "exact"}
    isoflop, parametric = document["methods"]["isoflop"], document["methods"]["parametric"]
    assert {"a", "b", "ci", "budgets"} <= isoflop.keys()
    for budget in isoflop["budgets"]:
        assert {"flops", "n_params_opt", "n_tokens_opt", "loss_opt", "status"} <= budget.keys()
        assert set(budget["ci"]) == {"n_params_opt", "n_tokens_opt", "loss_opt"}
    assert {"E", "A", "B", "alpha", "beta", "a", "b", "objective", "huber_delta"} <= parametric.keys()
    assert {"E", "A", "B", "alpha", "beta", "a", "b"} == parametric["ci"].keys()
    assert {"a", "b"} <= isoflop["ci"].keys()
    assert {"theta", "draws"}.isdisjoint(isoflop)
    assert document["backtest"]["n_left_out"] == 14
    assert [row["reach"] for row in document["agreement"]["rows"]] == [1, 10, 100]


def test_fit_json_reads_back_to_the_last_bit(tmp_path, noisy_fit):
    path = tmp_path / "fit.json"
    path.write_text(json.dumps(noisy_fit.to_json()))
    back = read_fit(path)
    assert json.dumps(back.to_json()) == path.read_text()
    for name, law in noisy_fit.laws.items():
        for quantity in QUANTITIES:
            assert back.laws[name].interval(quantity, 1e14) == law.interval(quantity, 1e14)
        assert back.laws[name].prediction_interval(1e14) == law.prediction_interval(1e14)


@pytest.mark.parametrize(
    ("text", "match"),
    [("{", "not readable as JSON"), ("[]", "not a JSON object"), ("{}", "schema_version=None")],
)
def test_broken_fit_json_is_bad_input(tmp_path, text, match):
    path = tmp_path / "fit.json"
    path.write_text(text)
    with pytest.raises(InputError, match=match):
        read_fit(path)
    with pytest.raises(InputError, match="not found: give the path"):
        read_fit(tmp_path / "absent.json")
    path.write_text('{"schema_version": 1, "points": {}}')
    with pytest.raises(InputError, match="not a complete fit"):
        read_fit(path)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("methods",), []),
        (("methods", "parametric", "theta"), ["x"] * 5),
        (("methods", "parametric", "confidence"), 95),
        (("points", "flops_range"), ["a", "b"]),
        (("backtest",), "refused"),
        (("methods", "isoflop", "a"), float("nan")),
    ],
)
def test_a_fit_json_with_values_of_another_kind_is_bad_input(noisy_fit, tmp_path, place, value):
    document = json.loads(json.dumps(noisy_fit.to_json()))
    *parents, last = place
    part = document
    for name in parents:
        part = part[name]
    assert last in part
    part[last] = value
    path = tmp_path / "fit.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"not a complete fit|NaN is not a valid number"):
        read_fit(path)


def test_predict_gives_every_method_and_the_shape(noisy_fit):
    refused = dataclasses.replace(
        noisy_fit,
        methods={**noisy_fit.methods, "isoflop": Refusal(kind="no_budgets", reason="why, what helps")},
    )
    answers = predict(refused, [1e13, 1e14], Question(shape=lambda n, d: {"d_model": 64, "n_tokens": d}))
    assert [answer.flops for answer in answers] == [1e13, 1e14]
    document = json.loads(json.dumps(answers[1].to_json()))
    assert document["beyond_data"] == pytest.approx(10)
    assert document["methods"]["isoflop"]["refused"] == "why, what helps"
    parametric = document["methods"]["parametric"]
    assert set(parametric) == {*QUANTITIES, "ci", "prediction_interval", "loss_off_2x"}
    assert parametric["ci"].keys() == set(QUANTITIES)
    assert len(parametric["prediction_interval"]["loss"]) == 2
    assert document["shape"] == {
        "method": "answer",
        "d_model": 64,
        "n_tokens": document["answer"]["n_tokens_opt"],
    }
    for bad in (0, -1e9, math.inf, math.nan):
        with pytest.raises(InputError, match="is not a valid budget"):
            predict(noisy_fit, [bad])


def test_without_bootstrap_there_are_no_intervals():
    found = fit(tiny_points(sd=0.004), NONE)
    answer = predict(found, [1e14])[0].to_json()
    for name in found.methods:
        assert found.methods[name].interval("loss_opt", 1e14) is None
        assert (answer["methods"][name]["ci"], answer["methods"][name]["prediction_interval"]) == ({}, {})


def test_a_dataframe_is_fitted():
    frame = pd.DataFrame([dataclasses.asdict(point) for point in tiny_points()])[
        ["n_params", "flops", "loss"]
    ]
    assert fit(frame, NONE).methods["parametric"].n_params_opt(1e12) > 0


def test_a_seed_replicate_narrows_isoflop_intervals():
    one = answer(tiny_points(sd=0.006, seed=3), "isoflop", QUICK).to_json()["ci"]["a"]
    four = answer(tiny_points(sd=0.006, seed=3, n_seeds=6), "isoflop", QUICK).to_json()["ci"]["a"]
    assert four[1] - four[0] < 0.8 * (one[1] - one[0])
