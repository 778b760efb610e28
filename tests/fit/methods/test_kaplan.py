"""Kaplan's laws: planted recovery, non-embedding counting, the optimum, L(N, S_min) and its refusals."""

import dataclasses
import math

import numpy as np
import pytest
from scipy.optimize import brentq

from sweep.config import FitConfig
from sweep.fit import Fit, fit
from sweep.fit.methods.kaplan import KaplanLaw
from sweep.fit.methods.kaplan_model import KaplanModel
from sweep.fit.numerics.minimise import SQUARES, differentiate
from sweep.records import CurvePoint, Point
from tests.fit.one_method import answer

CONFIG = FitConfig(methods=("kaplan",), n_bootstrap=0)
NC, DC, ALPHA_N, ALPHA_D = 8.8e13, 5.4e13, 0.076, 0.095  # Kaplan et al. 2020, equations 1.1 and 1.2


def kaplan_loss(n, d):
    return ((NC / n) ** (ALPHA_N / ALPHA_D) + DC / d) ** ALPHA_D


def planted(total=lambda n: n, **changes):
    return [
        Point(
            n_params=total(n),
            n_params_non_embedding=n,
            n_tokens=d,
            flops=6.6 * n * d,
            loss=kaplan_loss(n, d),
            **changes,
        )
        for n in np.geomspace(1e6, 1e9, 6)
        for d in np.geomspace(1e8, 1e11, 6)
    ]


def test_a_planted_law_is_found_again_in_non_embedding_parameters():
    law = answer(planted(lambda n: n + 2e5 * n ** (1 / 3)), "kaplan", CONFIG)
    assert isinstance(law, KaplanLaw)
    entry = law.to_json()
    for name, value in (("Nc", NC), ("Dc", DC), ("alpha_N", ALPHA_N), ("alpha_D", ALPHA_D)):
        assert entry[name] == pytest.approx(value, rel=1e-6)
    assert entry["counting"] == "non_embedding"
    assert entry["a"] == pytest.approx(1 / (1 + ALPHA_N / ALPHA_D), rel=1e-6)  # x = alpha_N/alpha_D against 1


def test_constants_are_finite_where_the_loss_hardly_depends_on_n():
    """Otherwise an interval is not a number, which fit.json and the report cannot hold."""
    law = answer(planted(), "kaplan", CONFIG)
    theta = np.tile(law.theta, (3, 1))
    theta[1:, 2] = 1e-3, 1e-6
    constants = law.named(theta)["Nc"]
    assert constants[0] == pytest.approx(NC, rel=1e-6)
    assert np.isfinite(np.percentile(constants, [5, 95])).all()


def test_the_optimum_is_least_along_the_budget_and_in_total_parameters():
    def total(n):
        return 1.5 * n**0.98

    law = answer(planted(total), "kaplan", CONFIG)
    flops = 1e18
    grid = np.exp(np.linspace(math.log(1e5), math.log(1e11), 200_001))
    losses = kaplan_loss(grid, flops / (6.6 * grid))
    best = grid[np.argmin(losses)]
    assert law.n_params_opt(flops) == pytest.approx(total(best), rel=1e-3)
    assert law.loss_opt(flops) == pytest.approx(losses.min(), rel=1e-8)
    off = law.loss_off_optimum(flops, 2.0)
    assert off == pytest.approx(kaplan_loss(2 * best, flops / (13.2 * best)), rel=1e-5)


def test_without_the_column_the_law_is_in_total_parameters_with_a_warning():
    points = [dataclasses.replace(p, n_params_non_embedding=None) for p in planted()]
    entry = answer(points, "kaplan", CONFIG).to_json()
    assert entry["counting"] == "total"
    assert any("n_params_non_embedding" in warning for warning in entry["warnings"])


def test_derivatives_match_differences():
    model = KaplanModel.of(np.geomspace(1e5, 1e8, 7), np.geomspace(1e9, 1e7, 7))
    theta, step = np.array([[-1.0, -0.5, 0.8, 0.1]]), 1e-6
    target = model.evaluate(theta)[0][0] + np.linspace(-0.1, 0.2, 7)
    found = differentiate(model, theta, target, SQUARES)
    for i in range(4):
        shift = step * np.eye(4)[i]
        up, down = (differentiate(model, theta + sign * shift, target, SQUARES) for sign in (1, -1))
        slope = (up.objective - down.objective) / (2 * step)
        assert found.gradient[:, i] == pytest.approx(slope, rel=1e-7)
        assert found.hessian[:, i] == pytest.approx((up.gradient - down.gradient) / (2 * step), rel=1e-6)


SC, ALPHA_S, B_STAR, ALPHA_B = 2.1e3, 0.76, 2e8, 0.21  # section 5


def excess(loss, n, step, batch):
    """L(N, S_min) less L, where S_min itself depends on L through the critical batch."""
    s_min = step / (1 + B_STAR / loss ** (1 / ALPHA_B) / batch)
    return (NC / n) ** ALPHA_N + (SC / s_min) ** ALPHA_S - loss


def learning_curves(batches, schedule="constant"):
    """Points and curves of L(N, S_min), solved for L step by step as B_crit depends on it."""
    points, curves = [], {}
    for n in (1e6, 1e7, 1e8):
        for batch in batches:
            key = f"{len(points):016x}"
            records = []
            for step in np.unique(np.geomspace(10, 20_000, 40).astype(int)):
                loss = brentq(excess, 1.0, 1e4, args=(n, step, batch), xtol=1e-13)
                records.append(
                    CurvePoint(
                        step=int(step),
                        n_tokens=int(step * batch),
                        flops=int(6 * n * step * batch),
                        train_loss=loss,
                        lr=1e-3,
                    )
                )
            curves[key] = tuple(records)
            points.append(
                Point(
                    run_key=key,
                    n_params=n,
                    n_params_non_embedding=n,
                    n_tokens=20_000.0 * batch,
                    flops=6 * n * 20_000.0 * batch,
                    loss=records[-1].train_loss,
                    batch_tokens=int(batch),
                    schedule=schedule,
                )
            )
    return points, curves


def curve_entry(batches, **changes):
    points, curves = learning_curves(batches, **changes)
    found = fit(planted() + points, CONFIG, curves=curves)
    assert Fit.from_json(found.to_json()).to_json() == found.to_json()
    return found.methods["kaplan"].to_json()["learning_curve"]


def test_the_law_of_learning_curves_and_the_critical_batch_are_found_again():
    entry = curve_entry((2**15, 2**18, 2**20))
    for name, value in (
        ("alpha_N", ALPHA_N),
        ("Sc", SC),
        ("alpha_S", ALPHA_S),
        ("B_star", B_STAR),
        ("alpha_B", ALPHA_B),
    ):
        assert entry[name] == pytest.approx(value, rel=1e-3), name
    assert entry["ci"] is None
    assert "none" in entry["interval_note"]


@pytest.mark.ci
def test_two_batch_sizes_are_enough():
    entry = curve_entry((2**16, 2**19))
    assert entry["B_star"] == pytest.approx(B_STAR, rel=1e-2)
    assert entry["alpha_S"] == pytest.approx(ALPHA_S, rel=1e-2)


def test_learning_curves_are_refused_without_what_they_need():
    assert curve_entry((2**15,))["kind"] == "one_batch_size"
    assert "cosine" in curve_entry((2**15, 2**18), schedule="cosine")["refused"]
    assert answer(planted(), "kaplan", CONFIG).to_json()["learning_curve"]["kind"] == "no_curves"
