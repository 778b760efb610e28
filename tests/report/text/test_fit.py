"""Fits and predictions as text, compared with the fit they come from."""

import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

from sweep.fit import DEFAULTS, fit, predict
from sweep.report.numbers import format4
from sweep.report.text.fit import UNVERIFIED, fit_text
from sweep.report.text.prediction import prediction_text
from tests.fit.planted import TINY, isoflop_points


@pytest.fixture(scope="module")
def fitted():
    """A fit with an excluded point, an interval of unverified coverage, and a refused method."""
    rng = np.random.default_rng(0)
    points = isoflop_points(TINY, np.geomspace(1e11, 1e13, 5), n_sizes=7, span=3, sd=0.003, rng=rng)
    points = [dataclasses.replace(point, run_key=f"run-{i}") for i, point in enumerate(points)]
    methods = ("envelope", "parametric", "data_constrained")
    config = dataclasses.replace(DEFAULTS, n_bootstrap=20, methods=methods)
    return fit(points, config, excluded={"run-0": "by hand"})


def printed(content):
    stream = io.StringIO()
    Console(file=stream, width=500).print(content)
    return [line.strip() for line in stream.getvalue().splitlines()]


def test_a_fit_shows_exponents_with_intervals_refusals_and_excluded_points(fitted):
    lines = printed(fit_text(fitted))
    assert lines[:2] == ["34 points fitted", "excluded run-0: by hand"]
    entry = fitted.to_json()["methods"]
    for name, mark in (("envelope", " *"), ("parametric", "")):
        low, high = map(format4, entry[name]["ci"]["a"])
        assert f"a = {format4(entry[name]['a'])}  [{low}, {high}]{mark}  N_opt ∝ C^a" in lines
    assert lines.count(UNVERIFIED) == 1
    assert f"data_constrained: refused: {entry['data_constrained']['refused']}" in lines


def test_a_prediction_beyond_the_data_shows_the_backtest_first(fitted):
    within, beyond = predict(fitted, [1e12, 1e14])
    lines = printed(prediction_text([within, beyond]))
    assert lines[0].startswith("backtest: relative errors at the held-out budgets")
    assert printed(prediction_text([within]))[0].startswith("C = 1e12 FLOPs, 0.1")
    heading = lines.index(f"C = 1e14 FLOPs, {format4(beyond.beyond_data)} times the largest fitted budget")
    method = beyond.to_json()["methods"]["parametric"]
    parametric = next(line for line in lines[heading:] if line.startswith("parametric"))
    low, high = map(format4, method["ci"]["n_params_opt"])
    assert f"{format4(method['n_params_opt'])}  [{low}, {high}]" in parametric
    assert UNVERIFIED in lines[heading:]
