"""Cooldown branches in a plan: one batch, rate and warmup per size, and FLOPs as if trained alone."""

from __future__ import annotations

import math
from collections import defaultdict

import pytest

from sweep import flops
from sweep.errors import InputError
from sweep.identity import run_key, trunk_key
from sweep.plan import rules
from sweep.plan.estimate import rate
from sweep.plan.grid import make_plan, tokens_of_budget
from sweep.train.optim.schedules import lr_frac
from tests.configs import composed
from tests.plan.test_grid import DATASET

BRANCHED = ("experiment=demo_bytes", "schedule=wsd", "schedule.cooldown_branches=true", "seeds=[0,1]")


def plan(*overrides):
    return make_plan(composed(*BRANCHED, *overrides), DATASET)


@pytest.fixture(scope="module")
def by_trunk():
    groups = defaultdict(list)
    for run in plan().runs:
        groups[trunk_key(run.config)].append(run)
    return groups


def test_every_size_and_seed_has_one_trunk(by_trunk):
    cells = {(run.config.model.d_model, run.config.seed) for runs in by_trunk.values() for run in runs}
    assert len(by_trunk) == len(cells)
    assert max(len(runs) for runs in by_trunk.values()) == 4  # d24 is trained at every budget


def test_runs_of_a_trunk_are_the_same_training_until_one_decays(by_trunk):
    for runs in by_trunk.values():
        first = min(runs, key=lambda run: run.config.branch_step).config
        for run in runs:
            config = run.config
            assert (config.batch_tokens, config.optimizer) == (first.batch_tokens, first.optimizer)
            assert config.schedule.decay_steps == math.ceil(0.2 * config.n_steps)
            for step in range(first.branch_step):
                assert lr_frac(step, config.schedule, config.n_steps) == lr_frac(
                    step, first.schedule, first.n_steps
                )
            assert run.flops == flops.count(config.model, config.n_tokens).flops
            assert abs(run.budget_error) <= 0.02


def test_a_trunk_is_tuned_for_the_middle_of_its_budgets_and_warms_up_for_the_least(by_trunk):
    experiment = composed(*BRANCHED)
    for runs in by_trunk.values():
        budgets, config = [run.config.flops_budget for run in runs], runs[0].config
        middle = tokens_of_budget(experiment, config.model, math.sqrt(min(budgets) * max(budgets)))
        assert config.batch_tokens == middle.batch_tokens
        assert config.optimizer.lr_peak == rules.lr_peak(experiment.optimizer, middle)
        shortest = min(runs, key=lambda run: run.flops).config
        assert config.schedule.warmup_steps == math.ceil(0.1 * shortest.n_steps)


def test_what_sharing_saves_is_every_trunk_but_the_longest(by_trunk):
    for runs in by_trunk.values():
        per_step = flops.count(runs[0].config.model, runs[0].config.batch_tokens).flops
        steps = sorted(run.config.branch_step for run in runs)
        assert sum(run.flops_shared for run in runs) == per_step * sum(steps[:-1])
        assert max(runs, key=lambda run: run.flops).flops_shared == 0
        for run in runs:
            assert run.time_s == pytest.approx(seconds_of_own_steps(run))


def seconds_of_own_steps(run):
    """Seconds of the steps that a run trains itself, and of its evaluation."""
    config, assumed = run.config, composed(*BRANCHED).estimate
    n_steps = config.n_steps - (config.branch_step if run.flops_shared else 0)
    trained = flops.count(config.model, n_steps * config.batch_tokens).flops
    scored = flops.flops_per_token(config.model) * config.evaluation.n_tokens / 3
    return (trained + scored) / rate(assumed) + n_steps * assumed.step_overhead_s


def test_a_branch_is_the_ordinary_run_and_a_size_at_one_budget_is_unchanged():
    """A run with the same numbers has the same key with and without branches."""
    one = ("budgets=[1e11]", "grid.d_model=[16,24,32,40]")
    alone = make_plan(composed("experiment=demo_bytes", "schedule=wsd", "seeds=[0,1]", *one), DATASET)
    assert [run.run_key for run in plan(*one).runs] == [run.run_key for run in alone.runs]
    branched = plan("grid.d_model=[24]", "seeds=[1]").runs
    for run in branched:
        fixed = (f"optimizer.lr={run.config.optimizer.lr_peak!r}", f"batch_tokens={run.config.batch_tokens}")
        warmup = f"schedule.warmup_tokens={run.config.schedule.warmup_steps * run.config.batch_tokens}"
        overrides = [*fixed, "schedule=wsd", "schedule.warmup_frac=null", warmup, "grid.d_model=[24]"]
        overrides += [f"budgets=[{run.config.flops_budget!r}]", f"seeds=[{run.config.seed}]"]
        (same,) = make_plan(composed("experiment=demo_bytes", *overrides), DATASET).runs
        assert same.run_key == run.run_key == run_key(run.config)


def test_only_wsd_has_branches():
    with pytest.raises(InputError, match="only wsd has a trunk"):
        composed("schedule=cosine", "schedule.cooldown_branches=true")


def test_other_schedules_have_no_trunk():
    runs = make_plan(composed("experiment=demo_bytes"), DATASET).runs
    assert {trunk_key(run.config) for run in runs} == {None}
    assert {run.flops_shared for run in runs} == {0}
