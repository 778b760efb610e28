"""Seconds of a step by shape: fitted to measured steps, and used by a plan."""

from dataclasses import replace

import numpy as np
import pytest

from sweep.config.compose import compose_experiment
from sweep.plan.estimate import COMPILE_S, compilation_pays
from sweep.plan.grid import make_plan
from sweep.plan.speed import (
    PRIOR,
    Speed,
    StepTime,
    makespan,
    non_negative_least_squares,
    step_terms,
    to_measure,
    with_speed,
)
from tests.plan.test_grid import DATASET

PLAN = make_plan(compose_experiment(["experiment=demo_bytes"]), DATASET)
TRUE = PRIOR * np.array([2.0, 0.5, 1.7, 3.0, 0.6, 1.0, 2.0])


def step(run, seconds=None):
    terms = step_terms(run, run.batch_tokens)
    return StepTime(
        terms=terms, tokens=run.batch_tokens, seconds=float(TRUE @ terms) if seconds is None else seconds
    )


def test_a_few_measured_steps_give_the_time_of_every_run():
    speed = Speed(steps=tuple(step(run) for run in to_measure(PLAN.runs, None, 5)), start_s=2.0)
    assert len(speed.steps) <= 5
    for run in PLAN.runs:
        assert speed.step_s(run.config) == pytest.approx(step(run.config).seconds, rel=0.1)
    timed = with_speed(PLAN, speed)
    for run, before in zip(timed.runs, PLAN.runs, strict=True):
        own = run.config.n_steps * step(run.config).seconds
        assert 0.9 * own < run.time_s < 1.5 * own + 2
        assert replace(run, time_s=before.time_s) == before


def test_a_measured_time_on_a_gpu_includes_the_compilation_where_it_pays():
    slow = Speed(steps=tuple(step(run.config, 1.0) for run in PLAN.runs), start_s=0.0)
    for cpu, gpu in zip(with_speed(PLAN, slow).runs, with_speed(PLAN, slow, "cuda").runs, strict=True):
        assert compilation_pays(cpu.time_s)
        assert gpu.time_s == cpu.time_s + COMPILE_S
    quick = Speed(steps=tuple(step(run.config, 1e-6) for run in PLAN.runs), start_s=0.0)
    assert with_speed(PLAN, quick, "cuda") == with_speed(PLAN, quick)


def test_finished_runs_correct_the_estimate_of_similar_ones():
    known = [step(run) for run in to_measure(PLAN.runs, None, 5)]
    run = max(PLAN.runs, key=lambda run: run.time_s).config
    slow = step(run, 1.5 * step(run).seconds)
    before = Speed(steps=tuple(known), start_s=0.0).step_s(run)
    after = Speed(steps=(*known, *[slow] * 5), start_s=0.0).step_s(run)
    assert after > 1.3 * before


def test_only_unknown_shapes_are_measured_and_a_given_rate_is_kept():
    chosen = to_measure(PLAN.runs, None, 5)
    speed = Speed(steps=tuple(step(run) for run in chosen), start_s=0.0)
    assert to_measure(PLAN.runs, speed, 5) == []
    deeper = make_plan(compose_experiment(["experiment=demo_bytes", "model.n_layers=6"]), DATASET)
    assert to_measure(deeper.runs, speed, 5)
    assert to_measure([], speed, 5) == []
    given = make_plan(compose_experiment(["experiment=demo_bytes", "estimate.flops_per_second=1e9"]), DATASET)
    assert with_speed(given, speed) is given
    assert with_speed(PLAN, None) is PLAN


def test_coefficients_are_not_negative():
    rows, start = np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]]), np.ones(2)
    assert non_negative_least_squares(rows, np.array([3.0, 5.0, 7.0]), start) == pytest.approx([1.0, 2.0])
    x = non_negative_least_squares(rows, np.array([3.0, 2.0, 1.0]), start)
    assert x[1] == 0.0
    assert x[0] == pytest.approx(2.0)


def test_the_end_of_a_sweep_is_that_of_its_last_worker():
    assert makespan([5.0, 1.0, 1.0, 1.0], 2) == 5.0
    assert makespan([], 3) == 0.0
