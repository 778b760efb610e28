"""Small tables that were fitted wrongly, with the right result."""

import dataclasses

import pytest

from sweep.config import FitConfig
from sweep.fit import DEFAULT_COLUMNS, Refusal, fit, read_table
from sweep.fit.answer import AnswerLaw
from sweep.fit.checks.backtest_errors import Backtest
from sweep.fit.predict import predict_run
from tests.fit.reference_data import reference_path

QUICK = FitConfig(n_bootstrap=200)


def fitted(name, columns=DEFAULT_COLUMNS, **options):
    table = read_table(reference_path(f"cases/fit-{name}.csv"), columns)
    return fit(table, dataclasses.replace(QUICK, **options))


def test_budgets_are_the_cost_of_a_table_without_flops():
    columns = dataclasses.replace(
        DEFAULT_COLUMNS, n_params="params", n_tokens="tokens", flops_budget="budget"
    )
    law = fitted("01-budget-without-flops", columns, methods=("isoflop",)).laws["isoflop"]
    assert law.constants["a"] == pytest.approx(0.536253, abs=0.001)
    assert law.constants["b"] == pytest.approx(0.514, abs=0.005)


def test_sizes_far_from_the_minimum_of_exact_losses_do_not_widen_the_interval():
    found = fitted("02-wide-parabola-no-noise", methods=("isoflop", "parametric"))
    assert found.laws["parametric"].constants["a"] == pytest.approx(0.368932, abs=1e-6)
    low, high = found.laws["isoflop"].ci["a"]
    assert low > 0.2
    assert high < 0.5
    n_params, loss = (found.answer.interval(name, 3e21) for name in ("n_params_opt", "loss_opt"))
    truth = found.laws["parametric"]
    assert n_params[0] < truth.n_params_opt(3e21) < n_params[1]
    assert loss[0] < truth.loss_opt(3e21) < loss[1]


def test_an_outlier_is_named_and_the_answer_is_that_of_the_other_runs():
    found, clean = fitted("03-one-outlier"), fitted("03-without-outlier")
    (outlier,) = found.answer.without
    assert outlier.run_key.startswith("row 5")
    for name, a in (("isoflop", 0.554), ("parametric", 0.550)):
        assert found.answer.laws[name].constants["a"] == pytest.approx(a, abs=0.02)
        assert clean.laws[name].constants["a"] == pytest.approx(a, abs=0.005)
    assert found.answer.n_params_opt(1.6e18) == pytest.approx(clean.answer.n_params_opt(1.6e18), rel=0.02)


def test_two_data_sets_in_one_table_are_refused_by_the_name_of_the_column():
    found = fitted("05-two-data-sets")
    assert isinstance(found.answer, Refusal)
    assert "'dataset' (code, web)" in found.answer.reason
    assert all(method == found.answer for method in found.methods.values())


def test_millions_and_billions_are_refused_with_the_factors():
    found = fitted("06-millions-and-billions")
    assert isinstance(found.answer, Refusal)
    assert '--column n_params="n_params*1e6" --column n_tokens="n_tokens*1e9"' in found.answer.reason


def test_a_ladder_is_backtested_and_predicts_a_run_far_beyond():
    found = fitted("08-ladder")
    assert isinstance(found.backtest, Backtest)
    run = predict_run(found, 13.2e9, 5e12)
    assert run.loss_interval[0] < 2.192 < run.loss_interval[1]
    assert run.loss == pytest.approx(2.192, rel=0.03)


def test_five_runs_determine_the_four_constants_of_overtraining():
    law = fitted("09-five-runs", methods=("overtraining",)).laws["overtraining"]
    assert law.constants["E"] == pytest.approx(1.8, abs=0.01)
    assert law.constants["eta"] == pytest.approx(0.27 / 2, abs=0.005)
    assert isinstance(fitted("09-five-runs").answer, AnswerLaw)
