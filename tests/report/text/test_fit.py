"""Fits and predictions as text: the answer first, in few lines, without a cropped or meaningless number."""

import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

from sweep.config import FitConfig
from sweep.fit import fit, predict, published_fit
from sweep.fit.predict import Question, predict_run
from sweep.fit.refusals import Refusal
from sweep.report.numbers import NarrowTable, format4
from sweep.report.text.answer import in_few_lines, value_text
from sweep.report.text.fit import fit_text
from sweep.report.text.prediction import prediction_text, run_prediction_text
from sweep.study.predictions import summary
from tests.fit.planted import TINY, isoflop_points, tiny_flops_per_token

CLOSING = ("picture: results/demo/figures/isoflop_curves.png", "next: sweep validate results/demo 4e13")


@pytest.fixture(scope="module")
def fitted():
    """A fit by every method, with an excluded point and a refused method."""
    points = isoflop_points(
        TINY,
        np.geomspace(1e11, 1e13, 5),
        n_sizes=7,
        span=3,
        flops_per_token=tiny_flops_per_token,
        sd=0.003,
        rng=np.random.default_rng(0),
    )
    points = [dataclasses.replace(point, run_key=f"run-{i}") for i, point in enumerate(points)]
    found = fit(points, FitConfig(n_bootstrap=20), excluded={"run-0": "by hand"})
    return dataclasses.replace(found, hyperparameters="unmeasured")


@pytest.fixture(scope="module")
def at(fitted):
    (prediction,) = predict(fitted, [1e14])
    return prediction


def printed(content, width=80):
    stream = io.StringIO()
    Console(file=stream, width=width).print(content)
    return [line.strip() for line in stream.getvalue().splitlines()]


def test_a_fit_ends_in_twenty_lines_with_the_answer_first(fitted, at):
    lines = printed(fit_text(fitted, at, closing=CLOSING))
    assert len(lines) <= 20
    assert lines[0] == "34 points fitted, 1e11 to 1e13 FLOPs; 1 excluded"
    answer, text = at.answer, " ".join(lines)
    shown = {key: format4(answer.estimate[key]) for key in ("n_params_opt", "n_tokens_opt", "loss_opt")}
    low, high = map(format4, answer.ci["n_params_opt"])
    assert text[len(lines[0]) + 1 :].startswith(
        f"at C = 1e14 FLOPs train N = {shown['n_params_opt']} [{low}, {high}] parameters on "
        f"D = {shown['n_tokens_opt']} ["
    )
    low, high = map(format4, answer.loss_prediction_interval)
    assert f"loss {shown['loss_opt']} [{low}, {high}]; N_opt ∝ C^0." in text
    assert "95% intervals, loss of one new run on these held-out windows)" in " ".join(text.split())
    for words in (
        "why: methods weighted",
        "errors at 3.162e12, 1e13 from below",
        "how firm: the methods span",
    ):
        assert words in text
    assert "hyperparameters: unmeasured" in text
    assert tuple(lines[-2:]) == CLOSING


def test_doubted_and_refused_methods_are_marked_next_to_the_table(fitted, at):
    lines = printed(fit_text(fitted, at))
    assert fitted.laws["kaplan"].doubted
    assert any(line.startswith("kaplan? ") for line in lines)
    assert any(line.startswith("? lack of fit") and "refused: data_constrained" in line for line in lines)
    weights = at.answer.weights
    expected = f"{weights['n_params']['isoflop']:.0%} / {weights['loss']['isoflop']:.0%}"
    (isoflop,) = (line for line in lines if line.startswith("isoflop "))
    assert isoflop.endswith(expected)


def test_everything_else_is_verbose_and_said_once(fitted, at):
    short, long = (" ".join(printed(fit_text(fitted, at, verbose=verbose), 500)) for verbose in (False, True))
    for words in ("irreducible loss", "optimum by method", "backtest: relative", "excluded run-0: by hand"):
        assert words in long
        assert words not in short
    warnings = [warning for law in fitted.laws.values() for warning in law.warnings]
    assert warnings
    assert all(long.count(warning) == 1 for warning in warnings)


def test_a_refusal_common_to_all_methods_is_given_once():
    points = isoflop_points(TINY, (1e11,), n_sizes=3, span=2)
    every = fit([dataclasses.replace(point, n_tokens=point.n_tokens * 1e6) for point in points], FitConfig())
    (prediction,) = predict(every, [1e12])
    text = " ".join(printed(fit_text(every, prediction), 1000))
    (reason,) = {method.reason for method in every.methods.values()}
    assert text.count(reason) == 1


def test_a_prediction_gives_the_answer_before_backtest_and_methods(fitted):
    shape = {"d_model": 12_345, "n_layers": 2, "lr_peak": 0.0012, "notes": ["no trained run had this"]}
    question = Question(shape=lambda n_params, n_tokens: shape)
    lines = printed(prediction_text(predict(fitted, [1e14], question), next_step="next: x"))
    assert len(lines) <= 20
    assert lines[0].startswith("at C = 1e14 FLOPs train N = ")
    text = " ".join(lines)
    assert "train: d_model 12345, n_layers 2, lr_peak 0.0012; no trained run had this" in text
    assert text.index("train: d_model") < text.index("method ") < text.index("errors at ")
    assert lines[-1] == "next: x"


def test_too_far_beyond_the_points_there_is_no_number(fitted):
    question = Question(max_reach=300.0, shape=lambda n_params, n_tokens: {"d_model": 8})
    near, far = predict(fitted, [2.9e15, 1e21], question)
    assert not isinstance(near.answer, Refusal)
    assert isinstance(far.answer, Refusal)
    assert far.shape is None
    assert all(isinstance(method, Refusal) for method in far.methods.values())
    assert np.isfinite(fitted.answer.n_params_opt(1e21))  # the law itself gives numbers at any C
    text = " ".join(printed(prediction_text([far]), 1000))
    assert text.count("1e21 FLOPs are 1e8 times the largest fitted budget (1e13)") == 1
    assert "ask for 3e15 FLOPs or less, or add runs at 3.33e18 FLOPs" in text
    assert " N = " not in text


def test_a_published_law_is_one_sentence_with_its_notes():
    (prediction,) = predict(published_fit("besiroglu_2024"), [1e21], Question(max_reach=300.0))
    lines = printed(prediction_text([prediction]), 500)
    assert lines[0].startswith("at C = 1e21 FLOPs train N = 2.792e9 parameters on D = 5.97e10 tokens")
    assert "(by besiroglu_2024; " in lines[0]
    assert any("arXiv:2404.10102" in line for line in lines)


def test_the_loss_of_a_given_run_holds_the_planted_one(fitted):
    n_params, n_tokens = 1e5, 2e8
    found = predict_run(fitted, n_params, n_tokens)
    true = TINY.loss(n_params, n_tokens)
    low, high = found.loss_prediction_interval
    assert low < found.loss_interval[0] < true < found.loss_interval[1] < high
    assert found.flops == pytest.approx(n_tokens * tiny_flops_per_token(n_params), rel=0.02)
    text = " ".join(printed(run_prediction_text(found), 500))
    assert f"loss {format4(found.loss)} [{format4(low)}, {format4(high)}] (95% prediction interval" in text
    assert isinstance(predict_run(fitted, 1e9, 1e12, max_reach=300.0), Refusal)
    published = predict_run(published_fit("besiroglu_2024"), 7e10, 1.4e12)
    printed_constants = 1.8172 + 482.01 / 7e10**0.3478 + 2085.43 / 1.4e12**0.3658
    assert published.loss == pytest.approx(printed_constants, abs=0.002)
    assert published.loss_interval is None


def test_an_interval_at_a_bound_is_not_a_measurement():
    assert value_text(0.0, (0.0, 0.0)) == value_text(1e-12, (0.0, 1e-11)) == "not identified by these points"
    assert value_text(0.0, (1e-11, 2.1)) == "at most 2.1"
    assert value_text(1.2, (0.0, 2.1)) == "1.2, at most 2.1"
    assert value_text(1.2, (1.0, 2.1)) == "1.2 [1, 2.1]"
    assert value_text(1.2, None) == "1.2"


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_a_table_that_is_too_wide_loses_columns_and_no_digit(width):
    table = NarrowTable("method", "loss", "N_opt", "weights")
    cells = (
        "data_constrained?",
        "1.234e-10 [1.234e-10, 1.234e-10]",
        "-1.23e10 [-1.234e100, 1.2e9]",
        "9% / 8%",
    )
    table.add_row(*cells)
    heading, row = printed(table, width)
    shown = [cell for cell in cells if cell in row]
    assert row == "  ".join(shown)
    assert cells[0] in shown
    assert len(heading.split()) == len(shown)
    assert (len(shown) == 4) == (width == 200)


def test_long_warnings_give_way_to_the_limit_of_lines():
    warnings = ["warning: " + "word " * 60, "warning: second " * 20, "warning: third"]
    lines = printed(in_few_lines(["line"] * 13, warnings, ["last"]))
    assert len(lines) <= 20
    assert lines[-2:] == ["2 more warnings with --verbose", "last"]


def test_a_fit_with_wide_intervals_is_summarised_nearer_to_its_points(fitted):
    near, far = summary(fitted, FitConfig(max_interval_factor=1.2)), summary(fitted, FitConfig())
    assert far.flops == 1e14
    assert near.flops < far.flops
    assert summary(fitted, FitConfig(max_reach=2.5)).flops == 2.5e13
    assert summary(published_fit("besiroglu_2024"), FitConfig()).flops == pytest.approx(1.3e23, rel=0.05)
