"""Local linear trends and form errors, against least squares and simulated processes."""

import math

import numpy as np
import pytest

from sweep.fit.numerics.form_error import BacktestError, FormError, FormPrior
from sweep.fit.numerics.trend import SlopePrior, fit_trend

X = np.array([0.0, 1.0, 2.5, 3.0, 4.5])
PRIOR = FormPrior(median=0.02, log_sd=0.5, exact=0.0)


def test_without_drift_a_trend_is_weighted_least_squares():
    rng = np.random.default_rng(0)
    y, sd = rng.normal(size=5), rng.uniform(0.5, 2, 5)
    trend = fit_trend(X, y, sd, drift=0.0)
    slope, level = np.polyfit(X, y, 1, w=1 / sd)
    assert trend.coefficients == pytest.approx([level + X[-1] * slope, slope])
    covariance = np.polyfit(X - X[-1], y, 1, w=1 / sd, cov="unscaled")[1]
    assert trend.noise_covariance(sd) == pytest.approx(covariance[::-1, ::-1])


def test_with_drift_the_forecast_is_better_than_a_straight_line():
    rng = np.random.default_rng(1)
    drift, sd, steps = 0.05, 0.05, 900
    grid = np.linspace(0, 6.0, steps + 1)
    step = grid[1]
    errors = []
    for _ in range(400):
        slope = 0.5 + np.concatenate([[0.0], np.cumsum(rng.normal(0, math.sqrt(drift * step), steps))])
        path = np.concatenate([[0.0], np.cumsum(slope[:-1] * step)])
        y = np.interp(X, grid, path) + rng.normal(0, sd, 5)
        fits = [fit_trend(X, y, np.full(5, sd), drift=d).coefficients for d in (drift, 0.0)]
        errors.append([level + 1.5 * slope - path[-1] for level, slope in fits])
    followed, straight = np.square(errors).mean(axis=0)
    assert followed < 0.8 * straight


def test_the_noise_of_a_trend_is_that_of_simulated_observations():
    rng = np.random.default_rng(3)
    sd, prior = rng.uniform(0.02, 0.1, 5), SlopePrior(mean=0.5, sd=0.15)
    fits = [fit_trend(X, 0.4 * X + rng.normal(0, sd), sd, drift=0.005, prior=prior) for _ in range(4000)]
    simulated = np.cov(np.array([fit.coefficients for fit in fits]).T)
    assert fits[0].noise_covariance(sd) == pytest.approx(simulated, rel=0.08)


def test_a_prior_holds_the_slope_where_noise_hides_it():
    y = np.array([0.0, 5.0, -5.0, 5.0, 0.0])
    trend = fit_trend(X, y, np.full(5, 100.0), drift=0.0, prior=SlopePrior(mean=0.5, sd=0.01))
    assert trend.coefficients[1] == pytest.approx(0.5, abs=0.01)


def errors(values, variance=1e-8):
    return [BacktestError(cut=i, reach=1.0, error=e, variance=variance) for i, e in enumerate(values)]


def test_exact_backtests_narrow_the_form_error_and_large_ones_widen_it():
    prior = FormError.infer(PRIOR, [])
    assert prior.sd == pytest.approx(0.02 * math.exp(0.5**2), rel=0.02)  # of a log-normal
    assert FormError.infer(PRIOR, errors([1e-4, -1e-4, 1e-4])).sd < 0.7 * prior.sd
    assert FormError.infer(PRIOR, errors([0.1, -0.1, 0.1])).sd > 2 * prior.sd
    exact = FormPrior(median=0.02, log_sd=0.5, exact=0.1)
    assert FormError.infer(exact, errors([1e-4, -1e-4, 1e-4])).sd < 0.1 * prior.sd


def test_errors_of_one_cut_count_as_one():
    one = [BacktestError(cut=0, reach=1.0, error=0.1, variance=1e-8)]
    same = FormError.infer(PRIOR, one * 5)
    assert same.weights == pytest.approx(FormError.infer(PRIOR, one).weights)


def test_the_half_width_holds_its_share_of_simulated_errors():
    rng = np.random.default_rng(2)
    form = FormError.infer(PRIOR, errors([0.01, -0.03]))
    half = form.half_width(0.01**2, 1.5, 0.9)
    drawn = rng.normal(0, 0.01, 100_000) + 1.5 * form.sample(100_000, rng) * rng.normal(size=100_000)
    assert np.mean(np.abs(drawn) <= half) == pytest.approx(0.9, abs=0.005)
    assert form.half_width(0.01**2, 0.0, 0.9) == pytest.approx(1.645 * 0.01, rel=1e-3)
