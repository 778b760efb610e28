"""The runs of a hyperparameter check: the corners, with settings varied and with the grid's own."""

from __future__ import annotations

import itertools

import pytest

from sweep.errors import InputError
from sweep.plan.grid import make_plan
from sweep.plan.hparam_check import plan_check
from tests.configs import composed
from tests.plan.test_grid import DATASET


def check(*overrides):
    return plan_check(composed("experiment=demo_bytes", *overrides), DATASET)


def test_the_corners_are_the_ends_of_the_grid():
    names = [corner.name for corner in check().corners]
    assert names == ["4e10-d8-L2", "4e10-d48-L2", "6e11-d24-L2", "6e11-d96-L2"]
    one = check("budgets=[1e11]", "grid.d_model=[16,24,32]")
    assert [corner.name for corner in one.corners] == ["1e11-d16-L2", "1e11-d32-L2"]


def test_each_setting_is_the_rules_own_but_for_one_factor_and_has_every_seed():
    found = check()
    runs = {run.run_key: run.config for run in found.plan.runs}
    assert len(runs) == len(found.corners) * 5 * 3
    for corner in found.corners:
        lrs, batches = corner.settings["lr"], corner.settings["batch"]
        assert [setting.value / corner.lr_peak for setting in lrs] == pytest.approx([0.5, 1, 2])
        seq_len = 64
        for setting, factor in zip(batches, (0.5, 1, 2), strict=True):
            assert abs(setting.value - factor * corner.batch_tokens) <= seq_len / 2
        for setting in (*lrs, *batches):
            configs = [runs[key] for key in setting.run_keys]
            assert [config.seed for config in configs] == [0, 1, 2]
            assert {config.flops_budget for config in configs} == {corner.flops_budget}
            assert {config.model.d_model for config in configs} == {corner.d_model}
            assert {config.purpose for config in configs} == {"hparam_check"}
        assert {runs[key].batch_tokens for setting in lrs for key in setting.run_keys} == {
            corner.batch_tokens
        }


def test_the_middle_is_the_grids_own_run_under_another_name():
    """Labels do not change a key, so a seed that the grid has too is trained once."""
    grid = {run.run_key: run.config for run in make_plan(composed("experiment=demo_bytes"), DATASET).runs}
    found = check()
    names = {run.config.name for run in found.plan.runs}
    assert len(names) == len(found.plan.runs)
    assert not names & {config.name for config in grid.values()}
    shared = [run for run in found.plan.runs if run.run_key in grid]
    assert sorted(run.config.name for run in shared) == [
        f"{c.name}-centre-s0" for c in sorted(found.corners, key=lambda c: c.name)
    ]
    assert all(corner.run_keys[0] in grid for corner in found.corners)


def test_the_learning_rate_follows_its_rule_along_the_batch():
    for corner in check("optimizer.lr_max=0.001").corners:
        assert corner.lr_peak == 0.001
    found = check()
    runs = {run.run_key: run.config for run in found.plan.runs}
    for corner in found.corners:
        pairs = [(s.value, runs[s.run_keys[0]].optimizer.lr_peak) for s in corner.settings["batch"]]
        for (small, lr), (large, higher) in itertools.pairwise(pairs):
            assert lr == higher == 0.026 or higher / lr == pytest.approx((large / small) ** 0.5)


def test_a_setting_that_cannot_be_trained_is_dropped_with_its_reason():
    found = check("batch_tokens=64", "grid.min_steps=900")
    reasons = {cell.name: cell.reason for cell in found.plan.dropped}
    assert "0.5 of the batch rounds to the rule's setting" in reasons["4e10-d8-L2-batchx0.5"]
    assert all(len(corner.settings["batch"]) < 3 for corner in found.corners)
    assert all(len(corner.settings["lr"]) == 3 for corner in found.corners)


def test_branches_are_checked_with_their_trunks_settings():
    branched = ("schedule=wsd", "schedule.cooldown_branches=true")
    grid = make_plan(composed("experiment=demo_bytes", *branched), DATASET)
    keys = {run.run_key for run in grid.runs}
    assert all(corner.run_keys[0] in keys for corner in check(*branched).corners)
    fewer = (*branched, "grid.min_steps=600")  # a cell that is dropped still counts for its size's trunk
    keys = {run.run_key for run in make_plan(composed("experiment=demo_bytes", *fewer), DATASET).runs}
    assert all(corner.run_keys[0] in keys for corner in check(*fewer).corners)


def test_a_seed_given_twice_is_refused():
    with pytest.raises(InputError, match=r"hparam_check\.seeds=\[1, 1\] holds a value twice"):
        check("hparam_check.seeds=[1,1]")
