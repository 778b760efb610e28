"""Every refusal, and every invalid budget of isoflop."""

import dataclasses
import math

import numpy as np
import pytest

from sweep.config import FitConfig
from sweep.fit import Refusal, fit
from sweep.fit.methods.isoflop import IsoflopLaw
from sweep.fit.numerics.centred import CentredData
from sweep.fit.numerics.identifiability import check_minimum
from sweep.fit.numerics.minimise import Solution
from sweep.fit.refusals import RefusedError
from sweep.records import Point
from tests.fit.one_method import answer
from tests.fit.planted import TINY, isoflop_points

QUICK = FitConfig(n_bootstrap=50)
BUDGETS = (1e11, 4e11, 1.6e12, 6.4e12)


def grid(budgets=BUDGETS, **changes):
    return list(isoflop_points(TINY, budgets, **{"n_sizes": 5, "span": 3, **changes}))


def refusal(points, method, config=QUICK) -> Refusal:
    found = answer(points, method, config)
    assert isinstance(found, Refusal), found
    assert found.to_json() == {"refused": found.reason, "kind": found.kind}
    assert "\n" not in found.reason
    return found


@pytest.mark.parametrize("method", ["isoflop", "parametric"])
def test_every_method_refuses_points_that_do_not_belong_together(method):
    for field, word in (
        ("corpus_sha256", "corpora"),
        ("tokenizer_sha256", "tokenizers"),
        ("evaluation_sha256", "evaluation windows"),
    ):
        points = [dataclasses.replace(p, **{field: "ab"[i % 2] * 64}) for i, p in enumerate(grid())]
        found = refusal(points, method)
        assert found.kind == "mixed_data"
        assert word in found.reason
    twice = [dataclasses.replace(p, run_key=f"{i // 2:016x}") for i, p in enumerate(grid())]
    assert refusal(twice, method).kind == "duplicated_run_keys"
    diverged = [dataclasses.replace(p, status="diverged") for p in grid()]
    assert refusal(diverged, method).kind == "no_points"


def test_mixed_schedules_are_refused_unless_allowed():
    mixed = [dataclasses.replace(p, schedule=("cosine", "constant")[i % 2]) for i, p in enumerate(grid())]
    found = refusal(mixed, "parametric")
    assert found.kind == "mixed_schedules"
    assert "constant 10, cosine 10" in found.reason
    assert "fit.allow_mixed_schedules=true" in found.reason
    allowed = dataclasses.replace(QUICK, allow_mixed_schedules=True)
    assert not isinstance(answer(mixed, "parametric", allowed), Refusal)
    half_known = [dataclasses.replace(p, schedule="wsd" if i else None) for i, p in enumerate(grid())]
    assert not isinstance(answer(half_known, "parametric", QUICK), Refusal)


def test_several_arms_are_refused():
    mixed = [dataclasses.replace(p, arm=("muon", "adamw")[i % 2]) for i, p in enumerate(grid())]
    found = refusal(mixed, "parametric")
    assert found.kind == "mixed_arms"
    assert "column arm: adamw 10, muon 10 points" in found.reason
    assert "--where 'arm == \"adamw\"'" in found.reason
    half = [dataclasses.replace(p, arm="muon" if i else None) for i, p in enumerate(grid())]
    assert "no arm 1, muon 19 points" in refusal(half, "parametric").reason
    one = [dataclasses.replace(p, arm="muon") for p in grid()]
    assert not isinstance(answer(one, "parametric", QUICK), Refusal)


def test_rows_that_repeat_each_other_are_refused_without_a_key():
    found = refusal(grid() + grid()[:2], "parametric")
    assert found.kind == "duplicated_rows"
    assert "2 rows repeat others in every column (row 1 and row 21; row 2 and row 22)" in found.reason
    twins = [dataclasses.replace(p, seed=1) for p in grid()]
    copied = refusal(grid() + twins, "parametric")  # two seeds do not end at one loss to all its digits
    assert copied.kind == "duplicated_rows"
    twins = [dataclasses.replace(p, loss=p.loss * (1 + 1e-3 * math.sin(1 + i))) for i, p in enumerate(twins)]
    assert not isinstance(answer(grid() + twins, "parametric", QUICK), Refusal)


def test_hyperparameter_checks_are_never_fitted_and_are_counted():
    checks = [dataclasses.replace(p, loss=2 * p.loss, purpose="hparam_check") for p in grid()[:3]]
    points = [dataclasses.replace(p, purpose="grid") for p in grid()]
    config = dataclasses.replace(QUICK, methods=("parametric",))
    found, clean = fit(points + checks, config), fit(points, config)
    assert found.n_points == len(points)
    assert [item.to_json() for item in found.filters] == [
        {"name": "purpose", "value": "hparam_check", "n_dropped": 3}
    ]
    assert {point.reason for point in found.excluded} == {"filter purpose=hparam_check"}
    assert found.methods["parametric"].objective == clean.methods["parametric"].objective


@pytest.mark.parametrize("method", ["isoflop", "parametric"])
def test_two_budgets_are_too_few(method):
    found = refusal(grid(BUDGETS[:2]), method)
    assert found.kind == "too_few_budgets"
    assert "budgets" in found.reason


def test_isoflop_refuses_points_without_budgets():
    rng = np.random.default_rng(0)
    points = [
        Point(n_params=n, n_tokens=d, loss=TINY.loss(n, d))
        for n, d in zip(np.geomspace(1e4, 1e6, 80), np.exp(rng.uniform(14, 19, 80)), strict=True)
    ]
    assert refusal(points, "isoflop").kind == "no_budgets"
    assert not isinstance(answer(points, "parametric", QUICK), Refusal)


def test_parametric_refuses_few_points_one_ratio_and_few_sizes():
    assert refusal(grid()[:5], "parametric").kind == "too_few_points"
    sizes = np.geomspace(1e5, 1e8, 12)
    one_ratio = [Point(n_params=n, n_tokens=20 * n, loss=TINY.loss(n, 20 * n)) for n in sizes]
    found = refusal(one_ratio, "parametric")
    assert found.kind == "collinear"
    assert "several D/N" in found.reason
    assert refusal(one_ratio, "envelope").kind == "collinear"
    assert refusal(one_ratio, "kaplan").kind == "collinear"
    two_sizes = [
        Point(n_params=n, n_tokens=d, loss=TINY.loss(n, d))
        for n in (1e5, 1e6)
        for d in np.geomspace(1e7, 1e9, 6)
    ]
    assert "N takes 2 distinct values" in refusal(two_sizes, "parametric").reason


def test_parametric_refuses_losses_that_say_nothing():
    constant = [dataclasses.replace(p, loss=3.0) for p in grid()]
    assert refusal(constant, "parametric").kind == "no_dependence"
    rising = [dataclasses.replace(p, loss=3.0 + 0.1 * np.log(p.n_params)) for p in grid()]
    assert refusal(rising, "parametric").kind in ("no_dependence", "exponent_at_bound", "not_converged")
    step = [dataclasses.replace(p, loss=2.0 + 2.0 * (p.n_params < 3e3) + p.n_tokens**-0.3) for p in grid()]
    assert refusal(step, "parametric").kind in ("exponent_at_bound", "no_dependence")


def test_parametric_refuses_its_own_initial_guess():
    """The result of a minimiser that accepts no step."""
    rng = np.random.default_rng(0)
    data = CentredData.of(*np.exp(rng.uniform(1, 2, (3, 20))))
    start = np.array([-1.0, -1.0, 0.0, 0.3, 0.3])
    unmoved = Solution(
        theta=start[None],
        objective=np.array([1.0]),
        converged=np.array([True]),
        n_accepted=np.array([0]),
    )
    with pytest.raises(RefusedError) as error:
        check_minimum(data, start, start, unmoved, 0, 1e-3)
    assert error.value.refusal.kind == "initial_guess"
    moved = dataclasses.replace(unmoved, n_accepted=np.array([3]))
    with pytest.raises(RefusedError) as error:
        check_minimum(data, start, start + 0.1, moved, 0, 1e-3)
    assert error.value.refusal.kind == "not_converged"


def with_losses(budget, losses):
    """A budget with the given losses, from the smallest size to the largest."""
    return [
        dataclasses.replace(p, loss=loss)
        for p, loss in zip(grid((budget,), n_sizes=len(losses)), losses, strict=True)
    ]


@pytest.mark.parametrize(
    ("losses", "status", "words"),
    [
        ([3.0, 2.9, 2.8, 2.72, 2.66], "edge", "largest size"),
        ([2.66, 2.72, 2.8, 2.9, 3.0], "edge", "smallest size"),
        ([2.6, 2.8, 2.9, 2.8, 2.6], "not_convex", "curvature"),
        ([2.8, 2.6], "too_few", "2 sizes"),
    ],
)
def test_an_invalid_budget_is_marked_and_not_used(losses, status, words):
    found = answer(grid() + with_losses(5e13, losses), "isoflop", QUICK)
    assert isinstance(found, IsoflopLaw)
    budget = found.budgets[-1]
    assert (budget.status, budget.n_params_opt, budget.n_tokens_opt, budget.loss_opt) == (status, *[None] * 3)
    assert words in budget.reason
    assert any(words in warning for warning in found.warnings)
    clean = answer(grid(), "isoflop", QUICK)
    assert found.n_params_opt(1e13) == pytest.approx(clean.n_params_opt(1e13), rel=2e-3)


def test_isoflop_refuses_when_too_few_minima_count():
    points = grid(BUDGETS[:2]) + with_losses(2e12, [3.0, 2.9, 2.8, 2.72, 2.66])
    found = refusal(points, "isoflop")
    assert found.kind == "too_few_budgets"
    assert "2 of 3 budgets" in found.reason
    assert "largest size" in found.reason


def test_isoflop_counts_degenerate_resamples_and_refuses_when_most_are():
    """Grids too narrow for their noise: the sign of the curvature is not determined."""
    config = dataclasses.replace(QUICK, methods=("isoflop",))
    answers = [
        answer(grid(span=1.5, sd=0.02, rng=np.random.default_rng(seed)), "isoflop", config)
        for seed in range(25)
    ]
    refused = [a for a in answers if isinstance(a, Refusal) and a.kind == "degenerate_resamples"]
    assert refused
    assert all("noise" in refusal.reason for refusal in refused)
    doubtful = [a for a in answers if isinstance(a, IsoflopLaw) and a.n_degenerate >= 5]
    assert doubtful
    assert all(any("degenerate" in warning for warning in law.warnings) for law in doubtful)
