"""Schedules as functions of the step: shapes, areas, and their keys in a plan."""

import math
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep.config import RunSchedule
from sweep.config.compose import compose_experiment
from sweep.config.values import ScheduleName
from sweep.errors import InputError
from sweep.plan import rules
from sweep.train.optim.schedules import SCHEDULES, lr_frac
from tests.configs import TINY, tiny_run

NAMES = sorted(SCHEDULES)


@st.composite
def specs(draw):
    """Draw a run length and a schedule that fits in it."""
    n_steps = draw(st.integers(2, 3000))
    name = draw(st.sampled_from(NAMES))
    warmup = draw(st.integers(0, n_steps - 1))
    decay = draw(st.integers(1, n_steps - warmup)) if name == "wsd" else 0
    final = 1.0 if name == "constant" else draw(st.floats(0, 1))
    return n_steps, RunSchedule(name=name, warmup_steps=warmup, decay_steps=decay, final_lr_frac=final)


@given(specs())
def test_rises_to_the_peak_then_never_rises_and_ends_at_the_final_fraction(spec):
    n_steps, schedule = spec
    values = [lr_frac(s, schedule, n_steps) for s in range(n_steps + 1)]
    warmup = schedule.warmup_steps
    assert values[:warmup] == [(s + 1) / warmup for s in range(warmup)]
    assert values[warmup] == pytest.approx(1.0)
    assert all(a >= b - 1e-12 for a, b in zip(values[warmup:], values[warmup + 1 :], strict=False))
    assert all(0 <= value <= 1 + 1e-12 for value in values)
    assert values[-1] == pytest.approx(schedule.final_lr_frac, abs=1e-12)
    assert lr_frac(10 * n_steps, schedule, n_steps) == pytest.approx(schedule.final_lr_frac, abs=1e-12)


@given(specs())
def test_wsd_holds_the_peak_until_its_decay(spec):
    n_steps, schedule = spec
    start = n_steps - schedule.decay_steps
    if schedule.name == "wsd":
        assert {lr_frac(s, schedule, n_steps) for s in range(schedule.warmup_steps, start + 1)} == {1.0}


@pytest.mark.parametrize(
    ("name", "decay_frac", "mean"),
    # the integrals of (1 + cos πx)/2, 1 - x, 1, and of 4/5 held and 1/5 of 1 - √x, x from 0 to 1
    [("cosine", 0, 1 / 2), ("linear", 0, 1 / 2), ("constant", 0, 1.0), ("wsd", 0.2, 0.8 + 0.2 / 3)],
)
def test_mean_over_the_run_is_the_integral_of_the_curve(name, decay_frac, mean):
    n = 10_000
    final = 1.0 if name == "constant" else 0.0
    schedule = RunSchedule(name=name, warmup_steps=0, decay_steps=round(decay_frac * n), final_lr_frac=final)
    assert math.fsum(lr_frac(s, schedule, n) for s in range(n)) / n == pytest.approx(mean, abs=1e-4)


def test_halfway_values_worked_out_by_hand():
    """At 1/4 and 1/2 of the decay, from 1 to 0.2: 0.2 + 0.8 times what the curve leaves."""
    left = {
        "cosine": [(1 + math.sqrt(0.5)) / 2, 0.5],
        "linear": [0.75, 0.5],
        "wsd": [0.5, 1 - math.sqrt(0.5)],
    }
    for name, fractions in left.items():
        schedule = RunSchedule(
            name=name, warmup_steps=4, decay_steps=40 if name == "wsd" else 0, final_lr_frac=0.2
        )
        for step, frac in zip((14, 24), fractions, strict=True):
            assert lr_frac(step, schedule, 44) == pytest.approx(0.2 + 0.8 * frac)


def test_every_name_a_config_may_give_is_there():
    assert set(get_args(ScheduleName)) == set(SCHEDULES)


# --- from an experiment's keys to steps --------------------------------------------------------------


def cell(n_steps):
    return rules.Cell(budget=1e11, model=TINY, n_tokens=640 * n_steps, batch_tokens=640)


@pytest.mark.parametrize(
    ("name", "warmup", "decay", "final"),
    [("cosine", 11, 0, 0.1), ("linear", 11, 0, 0.0), ("constant", 11, 0, 1.0), ("wsd", 11, 21, 0.0)],
)
def test_packaged_schedules_resolve_to_steps(name, warmup, decay, final):
    config = compose_experiment(["experiment=isoflop_1gpu", f"schedule={name}"]).schedule
    assert rules.run_schedule(config, cell(101)) == RunSchedule(
        name=name, warmup_steps=warmup, decay_steps=decay, final_lr_frac=final
    )


def test_what_constant_does_not_use_does_not_make_another_run():
    config = compose_experiment(["experiment=smoke", "schedule=constant"]).schedule
    other = replace(config, final_lr_frac=0.5)
    assert rules.run_schedule(other, cell(100)) == rules.run_schedule(config, cell(100))


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("schedule.name=wsd", "schedule.name=wsd and schedule.decay_frac=None: wsd needs the fraction"),
        ("schedule.decay_frac=0.1", "schedule.name=cosine and schedule.decay_frac=0.1: wsd needs the"),
        ("schedule.name=step", "schedule.name='step' is not valid: it should be 'cosine', 'linear'"),
        ("schedule=step", "schedule=step not found: choose from constant"),
    ],
)
def test_impossible_schedules_are_refused(override, sentence):
    with pytest.raises(InputError) as refusal:
        compose_experiment(["experiment=smoke", override])
    assert str(refusal.value).startswith(sentence)
    assert "\n" not in str(refusal.value)


def test_warmup_and_decay_must_fit_in_the_run():
    schedule = RunSchedule(name="wsd", warmup_steps=20, decay_steps=21, final_lr_frac=0.0)
    with pytest.raises(InputError, match=r"warmup_steps=20 and schedule.decay_steps=21 do not fit in .* 40"):
        tiny_run(schedule=schedule)
    assert tiny_run(schedule=replace(schedule, decay_steps=20)).schedule.decay_steps == 20
