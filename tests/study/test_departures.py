"""Runs outside the band of their peers, as status and fit name them."""

import json
from dataclasses import replace

import numpy as np
import pytest

from sweep.records import CurvePoint
from sweep.study.departures import departed_runs, departure_warning, departure_warnings
from sweep.worker.__main__ import work
from tests import shell
from tests.toy_trainer import result, toy_sweep

N_RUNS = 14


def trainer(bad):
    """A train function with curves that decay; those of the runs in `bad` lie above the others at first."""

    def train(run, placement, session):
        rng, n = np.random.default_rng(run.seed), run.n_steps
        x = np.arange(1, n + 1) / n
        loss = (2 + x**-0.3) * np.exp(rng.normal(0, 0.005, n))
        loss *= 1 + 0.1 * (1 - x) * (run.name in bad)
        curve = [
            CurvePoint(step=s + 1, n_tokens=s, flops=s + 1, train_loss=loss[s], lr=0.1) for s in range(n)
        ]
        return result(run, curve=tuple(curve))

    return train


@pytest.fixture
def sweep(tmp_path):
    store = toy_sweep(tmp_path / "sweep", N_RUNS, n_steps=100)
    work(store.sweep_dir, train=trainer({"run-5"}))
    return store


def test_status_and_fit_name_the_run_and_the_step(sweep, tmp_path):
    (found,) = departed_runs(sweep.points()).values()
    shown = shell.sweep("status", sweep.sweep_dir, cwd=tmp_path)
    assert f"looks mis-tuned: left the band of its peers at step {found.step} of 1" in shown.stdout
    document = json.loads(shell.sweep("status", sweep.sweep_dir, "--json", cwd=tmp_path).stdout)
    assert document["departures"] == [
        {"run": found.run, "kind": "mis-tuned", "step": found.step, "n_steps": found.n_steps,
         "excess": found.excess, "score": found.score}
    ]  # fmt: skip
    fitted = shell.sweep("fit", sweep.sweep_dir, cwd=tmp_path)
    (warning,) = [line for line in fitted.stderr.splitlines() if "training curves" in line]
    assert warning.startswith(
        "warning: 1 run is unlike the other training curves: run-5 (looks mis-tuned: left"
    )


def test_excluded_runs_are_not_judged(sweep):
    sweep.exclude(next(iter(departed_runs(sweep.points()))), "its learning rate was wrong")
    assert departed_runs(sweep.points()) == {}
    assert departure_warnings(sweep.sweep_dir) == []


def test_many_runs_are_counted(sweep):
    (found,) = departed_runs(sweep.points()).values()
    many = {str(at): replace(found, run=str(at)) for at in range(5)}
    text = departure_warning(many, {key: f"run-{key}" for key in many})
    assert text.startswith("5 runs are unlike the other training curves: run-0 (")
    assert "and 2 more (sweep status has all)" in text


def test_a_sweep_without_curves_gives_no_warning(tmp_path):
    assert departure_warnings(toy_sweep(tmp_path, 2).sweep_dir) == []
