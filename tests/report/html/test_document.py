"""The document's numbers, compared with the laws they come from."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sweep.fit.methods.trend import fit_trend_law
from sweep.fit.table.observations import select
from sweep.records import CurvePoint
from sweep.report.html import laws, runs
from sweep.report.html.ask import ask_grid
from sweep.report.html.document import document
from sweep.report.html.numbers import rounded
from sweep.report.results import caption
from tests.report.html.conftest import SETTINGS, page_of

FOUR_DIGITS = 5e-5


@pytest.fixture(scope="module")
def grid(planted):
    law, smallest = planted.fit.answer, planted.fit.flops_range[0]
    return ask_grid(law, smallest, max_reach=300.0, max_interval_factor=1e9)


def test_the_grid_gives_the_answer_to_four_digits(planted, grid):
    law = planted.fit.answer
    ends = np.log([grid.flops[0], grid.limit])
    for flops in np.exp(np.random.default_rng(1).uniform(*ends, size=12)).tolist():
        for name, values in grid.estimate.items():
            assert between(grid, flops, values) == pytest.approx(law.estimate(name, flops), rel=FOUR_DIGITS)
            band = [between(grid, flops, end) for end in grid.interval[name]]
            assert band == pytest.approx(law.interval(name, flops), rel=FOUR_DIGITS)
        of_run = [between(grid, flops, end) for end in grid.interval["loss_run"]]
        assert of_run == pytest.approx(law.prediction_interval(flops), rel=2 * FOUR_DIGITS)


def between(grid, flops, values):
    """Interpolate as the page does."""
    return float(np.exp(np.interp(np.log(flops), np.log(grid.flops), np.log(values))))


def test_the_grid_ends_where_predictions_are_refused(planted, grid):
    law, smallest = planted.fit.answer, planted.fit.flops_range[0]
    assert grid.limit == pytest.approx(300 * law.flops_max)
    assert grid.flops[-1] == pytest.approx(grid.limit)
    narrow = ask_grid(law, smallest, max_reach=300.0, max_interval_factor=2.0)
    assert law.flops_max < narrow.limit < grid.limit
    low, high = law.interval("n_params_opt", narrow.limit)
    assert high / low <= 2.0
    assert "max_interval_factor" in narrow.limit_reason


def test_refits_are_those_without_the_run(planted):
    observations = planted.observations()
    found = laws.leave_outs(observations, SETTINGS, planted.fit.answer.flops_max)
    assert set(found["runs"]) == set(observations.labels)
    row = 5
    without = np.arange(len(observations)) != row
    law = fit_trend_law(select(observations, without), dataclasses.replace(SETTINGS, n_bootstrap=0))
    last = law.optimum(np.array([found["flops"][-1]]))
    refit = found["runs"][observations.labels[row]]
    assert refit["n_params"][1] == pytest.approx(last.n_params_opt[0], rel=1e-5)
    assert refit["loss"][1] == pytest.approx(last.loss_opt[0], rel=1e-5)
    assert refit["n_params"] != found["full"]["n_params"]
    usable = [budget for budget in found["budgets"] if "refused" not in budget]
    assert len(found["budgets"]) == 4
    assert len(usable) == 1  # of three minima each is needed, and the fourth budget has none


def test_contours_have_the_loss_of_their_level(planted):
    (surface,) = laws.contours(planted)
    law = planted.fit.laws["parametric"]
    for level in surface["levels"]:
        n_params, flops = np.array(level["n_params"]), np.array(level["flops"])
        tokens = flops / law.flops_per_token(n_params)
        assert law.loss(n_params, tokens) == pytest.approx(level["loss"], rel=2e-4)
        for end in (0, -1):  # a contour leaves the figure, to the right or at the largest or smallest N
            at_edge = n_params[end] == pytest.approx(surface["n_params_range"][end], rel=1e-3)
            assert at_edge or flops[end] > surface["flops_range"][1]


def test_runs_carry_the_reason_why_they_are_not_fitted(planted):
    found = runs.run_columns(planted)
    reasons = dict(zip(found["label"], found["reason"], strict=True))
    assert {reason for reason in reasons.values() if reason} == {"by hand", "diverged"}
    assert "wall_time_s" not in found  # unknown for every run


def test_thinned_curves_keep_their_ends():
    curve = [CurvePoint(step=k, n_tokens=k, flops=k, train_loss=1.0, lr=0.1) for k in range(1, 2001)]
    kept = runs.thinned(curve, 30)
    assert (kept[0].step, kept[-1].step) == (1, 2000)
    assert len(kept) <= 30
    gaps = np.diff(np.log([record.flops for record in kept]))
    assert gaps[5:].max() < 2.5 * np.median(gaps)


def test_captions_name_corpus_seeds_and_level(planted):
    points = [
        dataclasses.replace(point, corpus="stdlib", tokenizer="byte", seed=row % 2)
        for row, point in enumerate(planted.points)
    ]
    shown = caption(dataclasses.replace(planted, points=points))
    fitted = f"{planted.fit.n_points} of {len(points)} runs fitted"
    assert shown == f"corpus stdlib, tokenizer byte; {fitted}; 2 seeds; 95% intervals"


def test_every_part_of_the_document_is_there(planted):
    (study,) = document(page_of(planted))["studies"]
    assert study["laws"]["methods"][0]["name"] == "answer"
    assert len(study["laws"]["published"]) > 5
    assert len(study["budgets"]) == 4
    assert sum(len(budget["labels"]) for budget in study["budgets"]) == planted.fit.n_points
    tested = {one["name"]: one for one in study["backtest"]["methods"]}
    assert set(tested) == {"isoflop", "parametric", "answer"}
    weights = planted.fit.answer.weights["loss"]
    mean = sum(weights[name] * tested[name]["loss_error"][0] for name in ("isoflop", "parametric"))
    assert tested["answer"]["loss_error"][0] == pytest.approx(mean, rel=1e-3)
    assert len(study["backtest"]["fan"]["factor"]) > 10


def test_numbers_that_are_not_finite_become_null():
    assert rounded({"a": np.array([1.23456789, np.inf])}) == {"a": [1.23457, None]}
