"""Windows of IsoFLOP curves and outliers within them, on planted curves."""

import dataclasses
import math

import numpy as np
import pytest

from sweep.config import FitConfig, IsoflopOptions
from sweep.fit.methods.isoflop import find_minima
from sweep.fit.methods.windows import BudgetCurve, choose_windows, find_outliers, select_runs
from sweep.fit.table.observations import observe
from tests.fit.one_method import answer
from tests.fit.planted import PlantedLaw, isoflop_points

LAW = PlantedLaw(A=406.4, B=410.7, alpha=0.465, beta=0.155)
BUDGETS = tuple(np.geomspace(1e17, 1e21, 5))


def curve(cubic: float, *, n: int = 11, sd: float = 0.001, seed: int = 0) -> BudgetCurve:
    """A curve with its minimum at ln N = 0 and a given cubic term, over a factor e^2 either way."""
    x = np.linspace(-2, 2, n)
    noise = np.random.default_rng(seed).normal(0, sd, n)
    return BudgetCurve(log_n=x, loss=3 * (1 + 0.02 * x**2 + cubic * x**3) * (1 + noise))


def everything(curves):
    return [np.ones(len(one.loss), dtype=bool) for one in curves]


def test_a_window_narrows_where_a_cubic_term_matters_and_not_elsewhere():
    straight = [curve(0.0, seed=seed) for seed in range(4)]
    bent = [curve(0.006, seed=seed) for seed in range(4)]
    kept = choose_windows(straight, everything(straight))
    assert sum(int(rows.sum()) for rows in kept) >= 40  # of 44
    narrowed = choose_windows(bent, everything(bent))
    assert all(5 <= rows.sum() <= 9 for rows in narrowed)
    for one, rows in zip(bent, narrowed, strict=True):
        inside = one.log_n[rows]
        assert inside.min() < 0 < inside.max()


def test_a_window_reduces_the_bias_of_wide_parabolas():
    """Without noise, ten times beyond the data, where all sizes give N_opt -11 % (by the planted law)."""
    points = isoflop_points(LAW, BUDGETS, n_sizes=15, span=8)
    truth = LAW.optimum_6nd(1e22)[0]
    bare = FitConfig(n_bootstrap=0)
    errors = {
        window: answer(points, "isoflop", bare, isoflop=IsoflopOptions(window=window)).n_params_opt(1e22)
        / truth
        - 1
        for window in ("auto", "all", 5)
    }
    assert abs(errors["auto"]) < 0.35 * abs(errors["all"])
    assert abs(errors[5]) < 0.35 * abs(errors["all"])


def test_an_outlier_among_five_sizes_is_found_and_nothing_else():
    flagged = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        points = list(isoflop_points(LAW, BUDGETS, n_sizes=5, span=3, sd=0.002, rng=rng))
        clean = select_runs(observe(points), "auto", drop_outliers=True)
        flagged += int(clean.outliers.sum())
        points[7] = dataclasses.replace(points[7], loss=1.12 * points[7].loss)
        observed = observe(points)
        found = select_runs(observed, "auto", drop_outliers=True).outliers
        assert observed.loss[found] == pytest.approx([points[7].loss])
    assert flagged <= 2  # of 500 runs without an outlier


def test_robust_minima_are_those_without_the_outlier():
    rng = np.random.default_rng(5)
    points = list(isoflop_points(LAW, BUDGETS, n_sizes=6, span=3, sd=0.002, rng=rng))
    without = find_minima(observe([p for i, p in enumerate(points) if i != 8]), IsoflopOptions())
    points[8] = dataclasses.replace(points[8], loss=1.12 * points[8].loss)
    robust = find_minima(observe(points), IsoflopOptions(robust=True))
    assert robust.table == pytest.approx(without.table, rel=1e-12)


def test_outliers_need_runs_to_compare_with():
    small = BudgetCurve(log_n=np.arange(4.0), loss=np.array([3.0, 2.9, 2.9, 3.5]))
    assert not any(rows.any() for rows in find_outliers([small], everything([small])))


def test_standard_errors_of_minima_match_their_scatter():
    """The delta method against the scatter of minima over planted data sets."""
    sets = [
        find_minima(
            observe(
                isoflop_points(LAW, BUDGETS, n_sizes=7, span=3, sd=0.002, rng=np.random.default_rng(seed))
            ),
            IsoflopOptions(window="all"),
        )
        for seed in range(60)
    ]
    scatter = np.std([found.table[0] for found in sets], axis=0)
    claimed = np.sqrt(np.mean([found.standard_errors[0] ** 2 for found in sets], axis=0))
    assert claimed == pytest.approx(scatter, rel=0.35)
    assert math.isfinite(float(claimed.sum()))
