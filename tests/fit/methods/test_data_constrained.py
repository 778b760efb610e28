"""Repeated data and overtraining: the published numbers, the limits, the flat direction."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from sweep.config import DataConstrainedOptions, FitConfig
from sweep.errors import InputError
from sweep.fit import DEFAULT_COLUMNS, Refusal, fit, from_dataframe
from sweep.fit.laws.catalogue import published_surface
from sweep.fit.laws.repetition import DataConstrainedLaw, effective_log, repeated_log_loss, repeated_slopes
from sweep.records import Point
from tests.fit.one_method import answer
from tests.fit.planted import PlantedLaw, isoflop_points
from tests.fit.reference_data import reference_path

CONFIG = FitConfig(
    methods=("data_constrained",),
    n_bootstrap=0,
    data_constrained=DataConstrainedOptions(base="muennighoff_2023"),
)
PUBLISHED_R = np.log([15.387756, 5.309743])  # R_D*, R_N* of their repository


def datablations():
    frame = pd.read_csv(reference_path("datablations/c4_runs.csv"))
    columns = dataclasses.replace(
        DEFAULT_COLUMNS, n_params="params", n_tokens="tokens", n_tokens_unique="unique_tokens"
    )
    return frame, from_dataframe(frame, columns)


def test_row_5_the_published_law_at_a_point():
    theta = np.concatenate([published_surface("muennighoff_2023"), PUBLISHED_R])
    loss = np.exp(repeated_log_loss(theta, *np.log([[6.34e9], [242e9], [25e9]])))
    assert loss == pytest.approx(2.2256440889984477, rel=1e-14)


def test_row_5_the_published_r_is_a_local_optimum_and_ours_is_better():
    frame, points = datablations()
    theta = np.concatenate([published_surface("muennighoff_2023"), PUBLISHED_R])
    columns = (np.log(frame[name].to_numpy()) for name in ("params", "tokens", "unique_tokens"))
    fitted = np.exp(repeated_log_loss(theta, *columns))
    loss = frame["loss"].to_numpy()
    assert 1 - ((loss - fitted) ** 2).sum() / ((loss - loss.mean()) ** 2).sum() == pytest.approx(
        0.7722046, abs=1e-7
    )
    law = answer(points, "data_constrained", CONFIG)
    assert isinstance(law, DataConstrainedLaw)
    assert law.objective <= 0.0158046625 * (1 + 1e-7)
    entry = law.to_json()
    assert entry["R_D_star"] == pytest.approx(95.37, rel=2e-3)
    assert entry["R_N_star"] == pytest.approx(1.706, rel=2e-3)
    assert not entry["identified"]
    assert any("poorly identified" in warning for warning in entry["warnings"])
    profile = np.array(entry["profile"]["rows"])
    assert profile[:, 2].min() == pytest.approx(law.objective, rel=1e-3)
    assert (profile[:, 2] >= law.objective * (1 - 1e-7)).all()


def test_repetition_vanishes_for_one_epoch_and_never_overflows():
    for log_r in (-50.0, 0.0, 50.0, 500.0):
        assert effective_log(np.array(3.0), np.array(3.0), np.array(log_r)) == pytest.approx(3.0)
    assert np.exp(effective_log(np.log(8.0), np.log(4.0), np.log(1e15))) == pytest.approx(8.0, rel=1e-14)
    worthless = np.exp(effective_log(np.log(400.0), np.log(4.0), np.log(2.0)))
    assert worthless == pytest.approx(4.0 * (1 + 2.0), rel=1e-12)  # U (1 + R*) at most
    assert np.isfinite(effective_log(np.array(700.0), np.array(0.0), np.array(5.0)))


def test_slopes_match_differences():
    rng = np.random.default_rng(0)
    theta = np.log([520.0, 1500.0, 1.9, np.e**0.35, np.e**0.36, 8.0, 5.0]) + 0.05 * rng.normal(size=(4, 7))
    logs = [rng.uniform(*np.log(ends), 30) for ends in ((1e7, 1e10), (1e9, 1e12), (1e8, 1e10))]
    slopes, step = repeated_slopes(theta, *logs), 1e-6
    for i in range(7):
        shift = step * np.eye(7)[i]
        by_difference = repeated_log_loss(theta + shift, *logs) - repeated_log_loss(theta - shift, *logs)
        assert slopes[:, :, i] == pytest.approx(by_difference / (2 * step), abs=1e-7), i


def repeated_points(r_d):
    law = PlantedLaw(E=1.9, A=520.0, B=1500.0, alpha=0.35, beta=0.36)
    theta = np.log([law.A, law.B, law.E, np.e**law.alpha, np.e**law.beta, r_d, 5.0])
    points = []
    for n in np.geomspace(1e7, 1e9, 6):
        for unique in (1e8, 1e9, 1e10):
            for epochs in (1, 2, 6, 20, 60):
                logs = np.log([[n], [unique * epochs], [unique]])
                loss = float(np.exp(repeated_log_loss(theta, *logs))[0])
                points.append(Point(n_params=n, n_tokens=unique * epochs, n_tokens_unique=unique, loss=loss))
    return points


@pytest.mark.ci
def test_a_planted_repetition_is_found_again_by_a_joint_fit():
    config = dataclasses.replace(CONFIG, data_constrained=DataConstrainedOptions(base=None))
    found = fit(repeated_points(8.0), config)
    entry = found.methods["data_constrained"].to_json()
    assert found.backtest.methods["data_constrained"].loss_rms_error < 1e-6
    assert entry["R_D_star"] == pytest.approx(8.0, rel=1e-3)
    assert entry["alpha"] == pytest.approx(0.35, rel=1e-3)
    assert entry["identified"]


def test_repetition_is_refused_where_nothing_repeats():
    def refusal(points):
        refused = answer(points, "data_constrained", CONFIG)
        assert isinstance(refused, Refusal)
        return refused

    points = repeated_points(8.0)
    assert refusal([dataclasses.replace(p, n_tokens_unique=None) for p in points]).kind == "no_repetition"
    fresh = [dataclasses.replace(p, n_tokens_unique=p.n_tokens) for p in points]
    assert "0 points repeat" in refusal(fresh).reason
    with pytest.raises(InputError, match="choose from hoffmann"):
        fit(points, dataclasses.replace(CONFIG, data_constrained=DataConstrainedOptions(base="kaplan_2020")))


def test_overtraining_is_gadres_form_of_one_exponent():
    law = PlantedLaw(E=1.7, A=300.0, B=900.0, alpha=0.32, beta=0.32)
    config = FitConfig(methods=("overtraining",), n_bootstrap=0)
    found = fit(isoflop_points(law, (1e18, 1e19, 1e20), n_sizes=6, span=8), config).methods["overtraining"]
    entry = found.to_json()
    assert entry["eta"] == pytest.approx(0.16, rel=1e-6)
    assert entry["coefficient_m"] == pytest.approx(300 * 6**0.16, rel=1e-5)
    assert (entry["a"], entry["b"]) == pytest.approx((0.5, 0.5))
    flops, ratio = 6 * 1e9**2 * 300.0, 300.0
    bracket = (
        entry["coefficient_m"] * ratio ** entry["eta"]
        + entry["coefficient_inverse_m"] / ratio ** entry["eta"]
    )
    assert entry["E"] + bracket / flops ** entry["eta"] == pytest.approx(law.loss(1e9, 300e9), rel=1e-7)


def test_overtraining_states_its_assumption_and_when_points_reject_it():
    config = FitConfig(methods=("overtraining",), n_bootstrap=50)
    rng = np.random.default_rng(0)

    def entry_of(law):
        points = isoflop_points(law, (1e18, 1e19, 1e20), n_sizes=6, span=8, sd=0.002, rng=rng)
        return fit(points, config).methods["overtraining"].to_json()

    tied = entry_of(PlantedLaw(E=1.7, A=300.0, B=900.0, alpha=0.32, beta=0.32))
    assert {"a", "b"}.isdisjoint(tied["ci"])
    assert "alpha = beta" in tied["assumes"]
    assert tied["warnings"] == []
    free = entry_of(PlantedLaw(E=1.7, A=300.0, B=900.0, alpha=0.45, beta=0.25))
    assert "reject alpha = beta" in free["warnings"][0]


def test_a_kept_surface_has_no_interval_of_its_optimum():
    """The published constants are not resampled: an interval of no width would claim certainty."""
    theta = np.concatenate([published_surface("muennighoff_2023"), PUBLISHED_R])
    rng = np.random.default_rng(0)
    points = [
        Point(
            n_params=n,
            n_tokens=u * e,
            n_tokens_unique=u,
            loss=float(np.exp(repeated_log_loss(theta, *np.log([[n], [u * e], [u]])))[0])
            * np.exp(0.01 * rng.standard_normal()),
        )
        for n in (1e8, 5e8, 2e9)
        for u in (1e8, 1e9)
        for e in (1.0, 4.0, 15.0)
    ]
    law = fit(points, dataclasses.replace(CONFIG, n_bootstrap=30)).methods["data_constrained"]
    assert set(law.to_json()["ci"]) == {"R_D_star", "R_N_star"}
    assert law.interval("n_params_opt", 1e20) is None
    assert law.prediction_interval(1e20) is None
