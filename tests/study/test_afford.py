"""Budgets for an amount of time or money, and seeds for a difference in loss."""

import math

import pytest

from sweep.config.compose import compose_experiments
from sweep.errors import InputError
from sweep.records import Point
from sweep.study.afford import Limit, afford, resolution, seed_noise
from sweep.study.plan import plan_experiment
from tests.shell import document
from tests.verbs import forked

RATE = ("estimate.flops_per_second=2e10", "estimate.price_per_hour=2", "launch.n_workers=2")


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("kind", "amount"), [("hours", 0.1), ("gpu_hours", 0.3), ("money", 0.4)])
def test_the_budgets_just_fit(kind, amount):
    arms = compose_experiments(["experiment=smoke", *RATE])
    chosen = afford(arms, Limit(kind=kind, amount=amount))
    assert 0.85 * amount < chosen.used <= amount
    again = compose_experiments(["experiment=smoke", *RATE, *chosen.overrides])
    (plan,) = chosen.plans
    assert [run.run_key for run in plan_experiment(again[0]).runs] == [run.run_key for run in plan.runs]
    hours = sum(run.time_s for run in plan.runs) / 3600
    if kind == "gpu_hours":
        assert chosen.used == pytest.approx(hours)
    if kind == "money":
        assert chosen.used == pytest.approx(2 * hours)


def test_what_cannot_be_afforded_is_refused():
    arms = compose_experiments(["experiment=smoke", "estimate.flops_per_second=2e10"])
    with pytest.raises(InputError, match="--money needs the price"):
        afford(arms, Limit(kind="money", amount=1))
    with pytest.raises(InputError, match="1e-08 hours are too little for this experiment: no cell"):
        afford(arms, Limit(kind="hours", amount=1e-8))
    with pytest.raises(InputError, match="not above zero"):
        afford(arms, Limit(kind="hours", amount=0))


def test_the_command_prints_settings_that_run_takes(tmp_path):
    arguments = ("plan", "experiment=smoke", *RATE, "--hours", "0.1", "--resolve", "0.01")
    found = document(*arguments, cwd=tmp_path, call=forked)
    assert found["next"][0].startswith("sweep run experiment=smoke")
    for override in found["chosen"]["overrides"]:
        assert override in found["next"][0]
    assert found["resolve"]["n_replicates"] == 0
    assert found["resolve"]["n_seeds_cell"] == 16
    both = forked("plan", "experiment=smoke", "--hours", "1", "--money", "1", cwd=tmp_path)
    assert "exclude each other" in both.stderr
    bad = forked("plan", "experiment=smoke", "--resolve", "-1", cwd=tmp_path)
    assert "--resolve -1 is not a difference in loss" in bad.stderr


def test_noise_is_pooled_within_cells():
    points = [
        Point(n_params=n, n_tokens=1e6, flops_budget=1e9, loss=loss)
        for n, loss in ((1e4, 3.0), (1e4, 3.2), (2e4, 2.0), (2e4, 2.2), (3e4, 5.0))
    ]
    sd, n_dof = seed_noise(points)
    assert n_dof == 2
    assert sd == pytest.approx(math.sqrt(0.02))
    assert seed_noise(points[-1:]) == (0.0, 0)


def test_more_noise_and_smaller_differences_need_more_seeds():
    (arm,) = compose_experiments(["experiment=smoke"])
    plan = plan_experiment(arm)
    coarse, fine = resolution(plan, 0.02), resolution(plan, 0.01)
    assert 3.5 < fine.n_seeds_cell / coarse.n_seeds_cell < 4.5  # n grows as the inverse square
    assert fine.n_seeds_grid == math.ceil(2 * (2.8016 * 0.01 / 0.01) ** 2 / 12)
    assert "assumed: no cell of this sweep has two seeds yet" in str(fine)
