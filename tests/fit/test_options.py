"""Options of isoflop and parametric: robust, bias correction, fixed E, linear residuals, trunks, profile."""

import dataclasses

import numpy as np
import pytest
from scipy.optimize import minimize

from sweep.config import FitConfig, IsoflopOptions, ParametricOptions
from sweep.fit import Fit, fit
from sweep.fit.numerics.resampling import case_weights
from tests.fit.one_method import answer
from tests.fit.planted import TINY, PlantedLaw, isoflop_points, tiny_flops_per_token
from tests.fit.reference_data import chinchilla_points

BARE = FitConfig(methods=("isoflop", "parametric"), n_bootstrap=0)
LAW = PlantedLaw(alpha=0.465, beta=0.155)
BUDGETS = tuple(np.geomspace(1e17, 1e21, 5))


def test_isoflop_reports_its_bias_and_subtracts_it_if_set():
    """The known -6.498 % of D* at 1e24, half-width 4, is found from the fitted surface and removed."""
    points = isoflop_points(LAW, BUDGETS, n_sizes=15, span=4)
    truth = LAW.optimum_6nd(1e24)[1]
    all_sizes = IsoflopOptions(window="all", weighted=False)
    plain = answer(points, "isoflop", BARE, isoflop=all_sizes)
    assert plain.n_tokens_opt(1e24) / truth - 1 == pytest.approx(-0.06498, abs=1e-4)
    windowed = answer(points, "isoflop", BARE)
    assert abs(windowed.n_tokens_opt(1e24) / truth - 1) < 0.5 * 0.06498
    corrected = answer(points, "isoflop", BARE, isoflop=dataclasses.replace(all_sizes, bias_corrected=True))
    assert corrected.n_tokens_opt(1e24) / truth - 1 == pytest.approx(0, abs=1e-6)
    bias, after = plain.to_json()["bias"], corrected.to_json()["bias"]
    assert (bias["corrected"], after["corrected"]) == (False, True)
    assert bias["b"] == pytest.approx(plain.to_json()["b"] - 0.465 / 0.62, abs=1e-9)


def test_a_symmetric_law_has_no_bias():
    law = PlantedLaw(A=400.0, B=400.0, alpha=0.31, beta=0.31)
    entry = answer(isoflop_points(law, BUDGETS, n_sizes=9, span=4), "isoflop", BARE).to_json()
    assert entry["bias"]["n_params_opt"] == pytest.approx(0, abs=1e-7)
    assert entry["b_direct"] == pytest.approx(0.5, abs=1e-6)


def test_parabolas_in_tokens_differ_slightly_from_those_in_parameters_under_exact_flops():
    points = isoflop_points(TINY, (1e11, 1e12, 1e13), n_sizes=7, span=3, flops_per_token=tiny_flops_per_token)
    entry = answer(points, "isoflop", BARE).to_json()
    assert entry["b_direct"] == pytest.approx(entry["b"], abs=0.02)
    assert entry["b_direct"] != entry["b"]


def test_an_outlier_shifts_robust_parabolas_little():
    points = list(isoflop_points(TINY, (1e11, 4e11, 1.6e12, 6.4e12), n_sizes=9, span=3))
    clean = answer(points, "isoflop", BARE).n_params_opt(1e13)
    points[1] = dataclasses.replace(points[1], loss=points[1].loss * 1.05)
    plain = answer(points, "isoflop", BARE).n_params_opt(1e13)
    robust = answer(points, "isoflop", BARE, isoflop=IsoflopOptions(robust=True)).n_params_opt(1e13)
    assert abs(np.log(robust / clean)) < 0.2 * abs(np.log(plain / clean))


def test_sizes_far_apart_around_a_minimum_give_a_warning():
    points = isoflop_points(TINY, (1e12, 4e12, 1.6e13), n_sizes=4, span=12)
    warnings = answer(points, "isoflop", BARE).to_json()["warnings"]
    assert any("apart" in warning for warning in warnings)


def test_the_other_constants_are_recovered_with_e_fixed():
    points = isoflop_points(LAW, BUDGETS, n_sizes=7, span=5)
    kept = answer(points, "parametric", BARE, parametric=ParametricOptions(irreducible_loss=LAW.E)).to_json()
    for name in ("A", "B", "alpha", "beta"):
        assert kept[name] == pytest.approx(getattr(LAW, name), rel=1e-6)
    assert kept["E"] == pytest.approx(LAW.E, rel=1e-12)
    assert kept["loss_function"]["irreducible_loss"] == LAW.E
    none = answer(points, "parametric", BARE, parametric=ParametricOptions(irreducible_loss=0.0)).to_json()
    assert none["E"] == 0.0
    free = answer(points, "parametric", BARE).to_json()
    assert none["objective"] > free["objective"]


def test_linear_residuals_minimise_hubers_loss_of_l():
    """Against SciPy's simplex started at our minimum: nothing nearby is lower, and the log fit differs."""
    points = chinchilla_points(keep_outliers=False)
    log = answer(points, "parametric", BARE)
    linear = answer(points, "parametric", BARE, parametric=ParametricOptions(residuals="linear"))
    n, d = (np.array([p.n_params for p in points]), np.array([p.flops / (6 * p.n_params) for p in points]))
    loss = np.array([p.loss for p in points])

    def objective(theta):
        a, b, e, alpha, beta = theta
        r = np.abs(loss - np.exp(a - alpha * np.log(n)) - np.exp(b - beta * np.log(d)) - np.exp(e))
        inside = np.minimum(r, 1e-3)
        return 1e6 * (inside * (r - 0.5 * inside)).sum()

    assert 1e6 * linear.objective == pytest.approx(objective(linear.theta), rel=1e-10)
    better = minimize(
        objective, linear.theta, method="Nelder-Mead", options={"maxiter": 4000, "fatol": 1e-12}
    )
    assert better.fun >= objective(linear.theta) * (1 - 1e-5)
    assert objective(log.theta) > objective(linear.theta)
    assert gradient_ratios(linear.theta, n, d, loss).max() < 1e-11  # polished to rounding
    assert linear.to_json()["loss_function"]["residuals"] == "linear"


def gradient_ratios(theta, n, d, loss):
    """Return each gradient component of the Huber loss of L over the sum of the sizes of its parts."""
    a, b, e, alpha, beta = theta
    in_n, in_d, floor = np.exp(a) / n**alpha, np.exp(b) / d**beta, np.exp(e)
    psi = np.clip(loss - in_n - in_d - floor, -1e-3, 1e-3)
    ones = np.ones_like(n)
    parts = psi * np.stack([in_n, in_d, floor * ones, -np.log(n) * in_n, -np.log(d) * in_d])
    return np.abs(parts.sum(axis=1)) / np.abs(parts).sum(axis=1)


def test_points_of_one_trunk_are_resampled_together():
    cluster = np.array([0, 0, 1, 2, 2, 2])
    (weights,) = case_weights(cluster, 200, seed=0)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3] == weights[:, 5]).all()
    assert weights[:, [0, 2, 3]].sum(axis=1) == pytest.approx(3)


def test_shared_trunks_widen_the_intervals():
    """Noise shared by the checkpoints of a size counts once, however many there are."""
    rng = np.random.default_rng(5)
    points = isoflop_points(TINY, tuple(np.geomspace(1e11, 1e13, 8)), n_sizes=8, span=4)
    noise = np.repeat(0.01 * rng.standard_normal(8)[None], 8, axis=0).ravel()
    shaken = [
        dataclasses.replace(p, loss=p.loss * np.exp(e), trunk=f"size{i % 8}")
        for i, (p, e) in enumerate(zip(points, noise, strict=True))
    ]
    config = FitConfig(methods=("parametric",), n_bootstrap=200)
    clustered = answer(shaken, "parametric", config).to_json()
    alone = answer([dataclasses.replace(p, trunk=None) for p in shaken], "parametric", config).to_json()
    assert (clustered["bootstrap"]["scheme"], alone["bootstrap"]["scheme"]) == ("trunks", "cases")
    widths = [np.diff(entry["ci"]["a"])[0] for entry in (clustered, alone)]
    assert widths[0] > 1.3 * widths[1]


@pytest.mark.parametrize(("n_trunks", "words"), [(2, "no interval"), (5, "too narrow")])
def test_few_trunks_give_no_interval_or_a_rough_one(n_trunks, words):
    """Resamples of one or two trunks show no spread, so there is no interval."""
    rng = np.random.default_rng(5)
    points = isoflop_points(TINY, tuple(np.geomspace(1e11, 1e13, 5)), n_sizes=7, span=4, sd=0.004, rng=rng)
    shared = [dataclasses.replace(p, trunk=str(i % n_trunks)) for i, p in enumerate(points)]
    resampling = ("envelope", "parametric", "kaplan", "overtraining")
    found = fit(shared, FitConfig(methods=("isoflop", *resampling), n_bootstrap=40))
    for name in resampling:
        law = found.methods[name]
        assert (law.interval("n_params_opt", 1e13) is None) == (n_trunks < 3), name
        assert any(words in warning for warning in law.warnings), name
    assert any("share trunks" in warning for warning in found.methods["isoflop"].warnings)
    assert Fit.from_json(found.to_json()).to_json() == found.to_json()


def test_profile_likelihood_is_near_the_bootstrap_under_normal_noise():
    rng = np.random.default_rng(2)
    points = isoflop_points(TINY, tuple(np.geomspace(1e11, 1e13, 4)), n_sizes=7, span=3, sd=0.004, rng=rng)
    config = FitConfig(methods=("parametric",), n_bootstrap=400)
    entry = answer(points, "parametric", config).to_json()
    assert set(entry["profile"]) == {"E", "alpha", "beta", "a"}
    for name in ("a", "alpha", "beta"):
        profile, bootstrap = entry["profile"][name], entry["ci"][name]
        assert profile["low"] < profile["estimate"] < profile["high"]
        ratio = (profile["high"] - profile["low"]) / (bootstrap[1] - bootstrap[0])
        assert 0.5 < ratio < 1.5


def test_profile_ends_are_where_the_constrained_fit_loses_the_likelihood():
    """A SciPy refit with E fixed at the interval's end gives the threshold of the F test."""
    rng = np.random.default_rng(2)
    points = isoflop_points(TINY, tuple(np.geomspace(1e11, 1e13, 4)), n_sizes=7, span=3, sd=0.004, rng=rng)
    config = FitConfig(methods=("parametric",), n_bootstrap=1)
    law = answer(points, "parametric", config)
    n, d, loss = (np.array([getattr(p, f) for p in points]) for f in ("n_params", "n_tokens", "loss"))

    def squares(theta, e=None):
        a, b, alpha, beta = theta[:4]
        floor = np.exp(theta[4]) if e is None else e
        return (
            1e4 * ((np.log(loss) - np.log(np.exp(a) * n**-alpha + np.exp(b) * d**-beta + floor)) ** 2).sum()
        )

    a, b, e, alpha, beta = law.theta
    options = {"maxiter": 20_000, "maxfev": 20_000, "xatol": 1e-10, "fatol": 1e-12}
    best = minimize(squares, [a, b, alpha, beta, e], method="Nelder-Mead", options=options).fun
    high = law.profile["E"].high
    fixed = minimize(squares, [a, b, alpha, beta], args=(high,), method="Nelder-Mead", options=options).fun
    t = 2.0687  # 97.5 % of Student's t with 23 degrees of freedom
    assert fixed / best == pytest.approx(1 + t**2 / 23, rel=0.02)
