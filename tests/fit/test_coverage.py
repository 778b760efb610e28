"""Coverage of intervals by simulation on planted laws: a short form, and the long form."""

import dataclasses
import math

import numpy as np
import pytest

from sweep.config import FitConfig, IsoflopOptions
from sweep.fit import fit
from sweep.fit.fit import METHODS
from sweep.fit.laws.base import QUANTITIES
from sweep.fit.laws.repetition import repeated_log_loss
from sweep.fit.refusals import RefusedError
from sweep.fit.table.observations import observe
from sweep.records import Point
from tests.fit.planted import TINY, PlantedLaw, isoflop_points, tiny_flops_per_token

CONFIG = FitConfig(n_bootstrap=300, confidence=0.9)
TIED = PlantedLaw(E=1.0, A=40.0, B=250.0, alpha=0.385, beta=0.385)  # one exponent, as overtraining assumes
SIZES = [(5, 3), (7, 4)]


def tiny_grid(law, n_sizes, n_budgets):
    """A sampler of noisy data sets, the noise-free one, and the largest budget."""
    budgets = np.geomspace(1e11, 1e11 * 4 ** (n_budgets - 1), n_budgets)
    grid = {"n_sizes": n_sizes, "span": 3, "flops_per_token": tiny_flops_per_token}

    def draw(sd, rng):
        return isoflop_points(law, budgets, **grid, sd=sd, rng=rng)

    return draw, float(budgets[-1])


def kaplan_grid(n_sizes, n_budgets):
    """The published constants of Kaplan et al. 2020 on a grid of N and D."""

    def draw(sd, rng):
        return [
            Point(
                n_params=n,
                n_params_non_embedding=n,
                n_tokens=d,
                flops=6.6 * n * d,
                loss=((8.8e13 / n) ** 0.8 + 5.4e13 / d) ** 0.095 * math.exp(sd * rng.standard_normal()),
            )
            for n in np.geomspace(1e6, 1e9, n_sizes)
            for d in np.geomspace(1e8, 1e11, n_budgets)
        ]

    return draw, 1e20


def repeated_grid():
    """Sixty runs of up to 20 epochs."""
    theta = np.log([520.0, 1500.0, 1.9, np.e**0.35, np.e**0.36, 8.0, 5.0])
    cells = [
        (n, u * e, u) for n in np.geomspace(1e7, 1e9, 5) for u in (1e8, 1e9, 1e10) for e in (1, 2, 6, 20)
    ]
    losses = np.exp(repeated_log_loss(theta, *np.log(np.array(cells).T)))

    def draw(sd, rng):
        return [
            Point(n_params=n, n_tokens=d, n_tokens_unique=u, loss=loss * math.exp(sd * rng.standard_normal()))
            for (n, d, u), loss in zip(cells, losses, strict=True)
        ]

    return draw, 6e20


def answers(law, flops):
    """Estimate and interval of every quantity with proved coverage, at and beyond the largest budget."""
    constants, ci = law.constants, law.ci
    found = {symbol: (constants[symbol], ci[symbol]) for symbol in ("a", "b") if symbol in ci}
    for quantity in QUANTITIES:
        for reach in (1, 10):
            at = reach * flops
            found[f"{quantity} {reach}x"] = (law.estimate(quantity, at), law.interval(quantity, at))
    return found


def simulate(name, grid, sd, n_sets, config=CONFIG, seed=2):
    """Per quantity: coverage of the noise-free answer, and median width over the Monte Carlo's.

    The noise-free answer of the same method, so that the parabola's own bias (held elsewhere) is left out.
    """
    draw, flops = grid
    rng = np.random.default_rng(seed)
    exact = METHODS[name].fit(observe(draw(0.0, rng)), dataclasses.replace(config, n_bootstrap=0))
    found = []
    for _ in range(n_sets):
        try:
            found.append(answers(METHODS[name].fit(observe(draw(sd, rng)), config), flops))
        except RefusedError:
            continue
    assert len(found) >= 0.9 * n_sets
    return {key: summary(truth_of(exact, key, flops), [entry[key] for entry in found]) for key in found[0]}


def truth_of(exact, key, flops):
    if key in ("a", "b"):
        return exact.constants[key]
    quantity, reach = key.split()
    return exact.estimate(quantity, int(reach[:-1]) * flops)


def summary(truth, found):
    covered = np.mean([low <= truth <= high for _, (low, high) in found])
    width = np.median([high - low for _, (low, high) in found])
    ideal = np.diff(np.percentile([estimate for estimate, _ in found], [5, 95]))[0]
    return float(covered), float(width / ideal)


def check(results, n_sets):
    """85 to 95 %, but for two standard errors of the simulation itself; the width within 2 of the ideal."""
    error = 2 * math.sqrt(0.9 * 0.1 / n_sets)
    for key, (covered, width) in results.items():
        assert 0.85 - error <= covered <= 0.95 + error, (key, covered)
        assert 0.5 <= width <= 2.0, (key, width)


@pytest.mark.ci
@pytest.mark.parametrize("name", ["isoflop", "parametric"])
def test_nominal_90_percent_intervals_hold_the_truth_about_as_often(name):
    check(simulate(name, tiny_grid(TINY, 7, 4), 0.004, 50), 50)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("sd", [0.002, 0.005])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", ["isoflop", "parametric"])
def test_coverage_at_length(name, sizes, sd):
    check(simulate(name, tiny_grid(TINY, *sizes), sd, 600), 600)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("sd", [0.002, 0.005])
@pytest.mark.parametrize("sizes", SIZES)
def test_coverage_of_kaplan_at_length(sizes, sd):
    check(simulate("kaplan", kaplan_grid(*sizes), sd, 400), 400)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("sd", [0.002, 0.005])
@pytest.mark.parametrize("sizes", SIZES)
def test_coverage_of_overtraining_at_length_where_its_assumption_holds(sizes, sd):
    check(simulate("overtraining", tiny_grid(TIED, *sizes), sd, 400), 400)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("sizes", SIZES)
def test_coverage_of_robust_parabolas_at_length(sizes):
    robust = dataclasses.replace(CONFIG, isoflop=IsoflopOptions(robust=True))
    check(simulate("isoflop", tiny_grid(TINY, *sizes), 0.005, 300, robust), 300)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_coverage_of_repeated_data_at_length():
    check(simulate("data_constrained", repeated_grid(), 0.005, 200), 200)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("sd", [0.002, 0.005])
def test_coverage_of_the_envelopes_loss_at_length(sd):
    """Against the planted law's own optimum: the hull's bias is in the interval. N and D are not proved."""
    draw, flops = tiny_grid(TINY, 7, 5)
    rng = np.random.default_rng(2)
    laws = []
    for _ in range(200):
        try:
            laws.append(METHODS["envelope"].fit(observe(draw(sd, rng)), CONFIG))
        except RefusedError:
            continue
    assert len(laws) >= 180
    for reach in (1, 10):
        at = reach * flops
        n_params = TINY.optimum_by_search(at, tiny_flops_per_token)
        truth = TINY.loss(n_params, at / tiny_flops_per_token(n_params))
        found = [(law.estimate("loss_opt", at), law.interval("loss_opt", at)) for law in laws]
        check({f"loss_opt {reach}x": summary(truth, found)}, len(laws))


@pytest.mark.ci
def test_prediction_intervals_hold_new_runs():
    """One new run at the optimum of the largest budget, against its 90 % prediction interval."""
    budgets = np.geomspace(1e11, 6.4e12, 4)
    rng = np.random.default_rng(4)
    hits = []
    for _ in range(30):
        found = fit(
            isoflop_points(
                TINY, budgets, n_sizes=7, span=3, flops_per_token=tiny_flops_per_token, sd=0.005, rng=rng
            ),
            dataclasses.replace(CONFIG, methods=("parametric",)),
        )
        law = found.laws["parametric"]
        new_run = TINY.loss(law.n_params_opt(6.4e12), law.n_tokens_opt(6.4e12))
        low, high = law.prediction_interval(6.4e12)
        hits += [low <= new_run * math.exp(0.005 * rng.standard_normal()) <= high for _ in range(10)]
    assert 0.8 <= np.mean(hits) <= 0.98
