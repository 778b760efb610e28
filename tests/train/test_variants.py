"""Every architecture and every schedule takes steps, lowers its loss, is scored and commits a point."""

import itertools
from dataclasses import replace
from functools import cache

import pytest

from sweep import flops
from sweep.config import EvaluationConfig, RunSchedule
from sweep.config.compose import compose_experiment
from sweep.identity import run_key
from sweep.plan import rules
from sweep.plan.shapes import shape_of_width
from sweep.records import Plan
from sweep.store.run_store import RunStore
from sweep.train.loop import train
from sweep.train.optim.schedules import SCHEDULES
from sweep.worker.__main__ import work
from tests.architectures import architectures, label
from tests.plans import planned
from tests.train.sessions import run_on

N_STEPS = 6  # enough to fall below a uniform guess, above which a run counts as diverged
FAMILIES = {"tiny": 16, "gpt": 64, "gpt2": 64, "llama": 128}
"""Packaged families and the smallest width with all parts of each."""


@cache
def smoke_experiment(data_dir):
    return compose_experiment(["experiment=smoke", "trainer.device=cpu", f"data_dir={data_dir}"])


def smoke(run, corpus, directory):
    """Run a worker from the plan to the committed point."""
    run = replace(
        run, optimizer=replace(run.optimizer, lr_peak=0.02), evaluation=EvaluationConfig(n_tokens=256)
    )
    experiment = smoke_experiment(corpus.directory.parents[1])
    store = RunStore(directory)
    store.add_plan(Plan(experiment=experiment, runs=(planned(run),), dropped=(), warnings=()))
    assert work(directory, train=train).n_done == 1
    stored = store.points()
    (point,) = stored.points
    assert (point.run_key, point.n_steps, point.schedule) == (run_key(run), N_STEPS, run.schedule.name)
    assert point.flops == flops.count(run.model, run.n_tokens).flops
    curve = stored.curves[point.run_key]
    assert curve[-1].train_loss < curve[0].train_loss


def spec(schedule):
    return RunSchedule(
        name=schedule,
        warmup_steps=1,
        decay_steps=2 if schedule == "wsd" else 0,
        final_lr_frac=1.0 if schedule == "constant" else 0.1,
    )


VARIANTS = architectures(vocab_size=256, d_model=16, d_ff=16, n_layers=1)


def _marks(number):
    """Run every 15th combination by default, every fifth with --ci, all with --long."""
    if number % 5:
        return [pytest.mark.long]
    return [pytest.mark.ci] if number % 15 else []


@pytest.mark.parametrize(
    ("model", "schedule"),
    [
        pytest.param(model, schedule, id=f"{label(model)}-{schedule}", marks=_marks(number))
        for number, (model, schedule) in enumerate(zip(VARIANTS, itertools.cycle(SCHEDULES), strict=False))
    ],
)
def test_every_architecture_commits_a_point(corpus, tmp_path, model, schedule):
    smoke(run_on(corpus, model=model, schedule=spec(schedule), n_tokens=256 * N_STEPS), corpus, tmp_path)


@pytest.mark.parametrize(
    ("family", "schedule"),
    [
        pytest.param(family, schedule, marks=[] if (i - j) % len(FAMILIES) == 0 else [pytest.mark.ci])
        for i, family in enumerate(FAMILIES)
        for j, schedule in enumerate(SCHEDULES)
    ],
)
def test_every_packaged_family_trains_under_every_packaged_schedule(corpus, tmp_path, family, schedule):
    """Uses the packaged YAML groups and the plan's rules."""
    experiment = compose_experiment(
        ["experiment=smoke", f"model={family}", f"schedule={schedule}", "model.seq_len=32"]
    )
    model = shape_of_width(FAMILIES[family], experiment.model, 256)
    cell = rules.Cell(budget=1e9, model=model, n_tokens=256 * N_STEPS, batch_tokens=256)
    resolved = rules.run_schedule(experiment.schedule, cell)
    smoke(run_on(corpus, model=model, schedule=resolved, n_tokens=cell.n_tokens), corpus, tmp_path)
