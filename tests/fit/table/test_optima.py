"""Tests of power laws through tables of optima."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import sweep
from sweep.errors import InputError
from sweep.fit import OptimaLaw, fit, from_dataframe, optima_law

C = np.geomspace(1e18, 1e22, 9)


def test_exponents_and_intervals_are_those_of_linear_regression():
    rng = np.random.default_rng(0)
    n = 0.6 * C**0.49 * np.exp(0.05 * rng.standard_normal(9))
    d = C / (6 * n)
    law = optima_law(from_dataframe(pd.DataFrame({"C": C, "N_opt": n, "D_opt": d})))
    expected = stats.linregress(np.log(C), np.log(n))
    half = stats.t.ppf(0.975, 7) * expected.stderr
    found = law.laws["N_opt"]
    assert found.exponent == pytest.approx(expected.slope, rel=1e-9)
    assert found.ci == pytest.approx((expected.slope - half, expected.slope + half), rel=1e-6)
    assert found.coefficient == pytest.approx(math.exp(expected.intercept), rel=1e-6)
    assert law.laws["D_opt"].exponent == pytest.approx(1 - expected.slope, rel=1e-9)
    assert found.at(1e20) == pytest.approx(math.exp(expected.intercept + expected.slope * math.log(1e20)))


def test_a_table_of_losses_gives_the_exponent_of_the_loss(tmp_path):
    path = tmp_path / "optima.csv"
    path.write_text("budget,loss\n" + "".join(f"{c},{2.57 * (c / 8.64e19) ** -0.048}\n" for c in C))
    law = sweep.fit_optima(path)
    assert isinstance(law, OptimaLaw)
    with pytest.raises(InputError, match=r"or sweep\.fit_optima"):
        sweep.fit_table(path)
    assert list(law.laws) == ["L_opt"]
    assert law.laws["L_opt"].exponent == pytest.approx(-0.048, rel=1e-6)
    assert "L_opt" in str(law)
    assert law.to_json()["laws"]["L_opt"]["exponent"] == law.laws["L_opt"].exponent


def test_a_table_of_optima_with_losses_is_known_by_its_name():
    frame = pd.DataFrame({"C": C, "N_opt": 0.6 * C**0.49, "loss": C**-0.05})
    law = optima_law(from_dataframe(frame))
    assert {name: found.exponent for name, found in law.laws.items()} == pytest.approx(
        {"N_opt": 0.49, "L_opt": -0.05}
    )
    assert from_dataframe(frame).is_optima
    assert not from_dataframe(frame.rename(columns={"N_opt": "N"})).is_optima


def test_optima_are_not_fitted_as_runs_and_runs_not_as_optima():
    optima = from_dataframe(pd.DataFrame({"C": C, "N": C**0.5}))
    with pytest.raises(InputError, match=r"holds optima \(n_params, flops\)"):
        fit(optima)
    with pytest.raises(InputError, match="2 optima are too few"):
        optima_law(from_dataframe(pd.DataFrame({"C": C[:2], "N": C[:2] ** 0.5})))
    with pytest.raises(InputError, match="no column for loss among C, N, score"):
        from_dataframe(pd.DataFrame({"C": [1e18, 1e18], "N": [1e8, 2e8], "score": [3.0, 3.1]}))
