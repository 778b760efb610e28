"""The design of further runs on planted sweeps: variances, proposals, and a replay against a fixed grid."""

import dataclasses
import math

import numpy as np
import pytest

from scripts.benchmarks.design_replay import SCENARIOS, PlantedSource, compare
from sweep.config import FitConfig
from sweep.fit import fit
from sweep.fit.design.model import HALF_SPAN, DesignModel, _line_variances, situation
from sweep.fit.design.propose import Pool, _with_action, propose
from sweep.fit.table.observations import observe
from tests.fit.planted import PlantedLaw, isoflop_points

LAW = PlantedLaw()
BUDGETS = tuple(np.geomspace(1e17, 2.7e18, 4))
TARGET = 1e20
CONFIG = FitConfig(methods=("isoflop", "trend"), n_bootstrap=60, confidence=0.9)


def points(budgets=BUDGETS, *, n_sizes=6, sd=0.003, offset=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return list(
        isoflop_points(LAW, budgets, n_sizes=n_sizes, span=3, sd=sd, rng=rng, labelled=True, offset=offset)
    )


def lattice(budgets, n_free=4):
    cells = [(c, LAW.optimum_6nd(c)[0] * 1.25**k) for c in budgets for k in range(-10, 11)]
    flops, n_params = np.array(cells).T
    return Pool(
        flops_budget=flops, n_params=n_params, flops=flops, n_free=np.full(len(cells), n_free, dtype=np.int64)
    )


def setting(runs):
    answer = fit(runs, CONFIG).answer
    return situation(observe(runs), answer, CONFIG), answer


@pytest.fixture(scope="module")
def present():
    return setting(points())


def test_lines_have_the_variances_of_weighted_least_squares():
    rng = np.random.default_rng(1)
    x, square = np.sort(rng.uniform(0, 5, 6)), rng.uniform(0.01, 0.1, 6)
    at = np.array([1.0, 9.0])
    for prior in (0.3**-2, 0.0):
        found = _line_variances(x, square, at, prior)
        for first in (3, 6):
            design, row = (np.stack([np.ones_like(t), t - x[-1]], axis=1) for t in (x[:first], at))
            precision = design.T @ (design / square[:first, None]) + np.diag([0.0, prior])
            assert found[first - 1] == pytest.approx(np.diag(row @ np.linalg.inv(precision) @ row.T))


@pytest.mark.parametrize("partial", [False, True])
def test_the_model_starts_from_the_variances_of_the_answer(present, partial):
    """Reach counts from the largest budget with a minimum, also where a larger one has two sizes."""
    found, answer = present
    if partial:
        found, answer = setting([*points(), *points((8.1e18,))[:2]])
        assert found.design[-1].status == "too_few"
        assert answer.flops_max < found.design[-1].flops
    model = DesignModel.of(found.local, answer, found.design, TARGET)
    variances = model.variances(found.design)
    at = np.array([TARGET])
    for name in ("n_params", "loss"):
        assert variances[name].noise == pytest.approx(float(answer.noise_variance(name, at)[0]))
        form = answer.form[name].sd * float(answer.reach(at)[0])
        disagreement = float(answer.disagreement_variance(name, at)[0])
        assert variances[name].form == pytest.approx(form**2 + disagreement)


def test_a_proposal_keeps_to_its_allowance_and_narrows_the_answer(present):
    found, answer = present
    pool = lattice((*BUDGETS, 8.1e18))
    proposal = propose(found, answer, pool, TARGET, 6e19)
    assert proposal.actions[0].purpose == "budget"  # the largest budget shortens the extrapolation
    assert pool.flops_budget[proposal.actions[0].rows[0]] == 8.1e18
    assert 0 < proposal.flops <= 6e19
    assert max(np.bincount(proposal.rows)) <= 4
    centers = np.array([LAW.optimum_6nd(pool.flops_budget[row])[0] for row in proposal.rows])
    assert np.abs(np.log(pool.n_params[list(proposal.rows)] / centers)).max() < HALF_SPAN + 0.5
    factors = [factor["n_params"] for factor in proposal.width_factors]
    assert factors[-1] < 0.7
    model = DesignModel.of(found.local, answer, found.design, TARGET)
    design = found.design
    for action in proposal.actions:
        design = _with_action(design, pool, action)
    before, after = model.variances(found.design)["n_params"], model.variances(design)["n_params"]
    assert factors[-1] == pytest.approx(math.sqrt(after.total / before.total))


def test_a_goal_that_is_met_early_costs_less(present):
    found, answer = present
    pool = lattice((*BUDGETS, 8.1e18))
    whole = propose(found, answer, pool, TARGET, 6e19)
    goal = propose(found, answer, pool, TARGET, 6e19, {"n_params": 0.8})
    assert goal.flops < whole.flops
    assert goal.width_factors[-1]["n_params"] <= 0.8


def test_a_budget_without_a_minimum_gets_a_size_beyond_its_edge():
    small = points((BUDGETS[2],), offset=0.15, sd=0.0005)  # all sizes below the optimum
    runs = [p for p in points(sd=0.0005) if p.flops_budget != BUDGETS[2]] + small
    found, answer = setting(runs)
    assert [budget.status for budget in found.unbracketed] == ["edge"]
    pool = lattice(BUDGETS)
    first = propose(found, answer, pool, TARGET, 1e19).actions[0]
    assert first.purpose == "bracket"
    (row,) = first.rows
    assert pool.flops_budget[row] == BUDGETS[2]
    assert pool.n_params[row] > max(p.n_params for p in small)
    other = propose(found, answer, lattice((*BUDGETS[:2], BUDGETS[3])), TARGET, 1e19)
    assert "no size to add can be trained" in other.unrepaired[0]
    smaller = propose(found, answer, lattice(BUDGETS[:2]), TARGET, 1e19)
    assert f"added runs have at most {BUDGETS[1]:.4g} FLOPs each" in smaller.unrepaired[0]


def test_two_budgets_get_the_one_that_an_answer_needs():
    found, answer = setting(points(BUDGETS[:2]))
    proposal = propose(found, answer, lattice(BUDGETS), TARGET, 1e20)
    assert [action.purpose for action in proposal.actions] == ["budget"]
    assert proposal.width_factors == ()
    pool = lattice(BUDGETS)
    assert {float(pool.flops_budget[row]) for row in proposal.rows} == {BUDGETS[2]}


@pytest.mark.ci
def test_planted_sweeps_need_less_than_their_grid():
    scenario = dataclasses.replace(next(s for s in SCENARIOS if s.name == "steep"), n_budgets=6)
    found = [
        next(iter(compare(scenario.name, seed, PlantedSource(scenario, seed), every_level=False)))[0]
        for seed in range(3)
    ]
    assert sorted(result.ratio for result in found)[1] <= 0.6
    assert max(abs(result.error) for result in found) < max(result.grid_width for result in found)
