"""Sweeps written by earlier versions: this version reads their plans, runs, points and attempts.

Both were written with the toy trainer, `sweep_0_1_0` by version 0.1.0 and `sweep_2026_11` by a version of
November 2026, in which the arguments of `sweep fit` and `sweep predict` were keys of the experiment. A change
of format adds a directory and leaves the older ones unchanged; the expected values come from the raw JSON.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sweep.config import StoreConfig, read_experiment, upgrade_experiment
from sweep.identity import run_key
from sweep.store.run_store import RunStore
from sweep.worker.__main__ import work
from tests.toy_trainer import train

OLD = Path(__file__).parent / "sweep_0_1_0"
WITH_ARGUMENTS = Path(__file__).parent / "sweep_2026_11"


@pytest.fixture
def store(tmp_path):
    shutil.copytree(OLD, tmp_path / "golden")
    return RunStore(tmp_path / "golden")


def raw(name):
    return {path.parent.name: json.loads(path.read_text()) for path in OLD.glob(f"runs/*/{name}.json")}


def test_an_old_plan_is_read_and_what_it_lacks_takes_its_default(store):
    plan = json.loads(next(OLD.glob("plans/*.json")).read_text())
    assert "store" not in plan["experiment"]
    experiment = store.latest_experiment()
    assert experiment == read_experiment(upgrade_experiment(plan["experiment"]))
    assert experiment.store == StoreConfig(index_url=None)
    assert experiment.launch.lease_s == plan["experiment"]["launch"]["lease_s"] == 120
    listed = {(run["run_key"], run["name"], run["flops"], run["n_steps"]) for run in plan["runs"]}
    assert {(e.run_key, e.name, e.flops, e.n_steps) for e in store.entries()} == listed
    assert len(listed) == 3


def test_an_old_run_keeps_its_key(store):
    for key, config in raw("config").items():
        run = store.run_config(key)
        assert run_key(run) == key
        assert (run.name, run.seed, run.n_tokens) == (config["name"], config["seed"], config["n_tokens"])
        assert run.model.d_model == config["model"]["d_model"]


def test_old_points_keep_every_column(store):
    stored = store.points()
    results = raw("result")
    assert len(stored.points) == len(results) == 3
    for point in stored.points:
        kept = point.values()
        assert results[point.run_key]["point"].items() <= kept.items()
        assert len(stored.curves[point.run_key]) == len(results[point.run_key]["curve"])
    reasons = {exclusion.reason for exclusion in stored.excluded}
    assert reasons == {"a spike", "diverged: loss 12.3 at step 7"}


def test_an_old_sweep_counts_as_finished_and_one_deleted_result_is_trained_again(store):
    assert store.status().counts == {"diverged": 1, "done": 2}
    gone = next(point for point in store.points().points if point.name == "run-0")
    (store.sweep_dir / "runs" / gone.run_key / "result.json").unlink()
    assert work(store.sweep_dir, train=train).n_done == 1
    again = next(point for point in store.points().points if point.name == "run-0")
    assert (again.loss, again.attempts) == (gone.loss, 2)


def test_old_options_of_fit_methods_are_read_under_their_present_names(store):
    path = next((store.sweep_dir / "plans").glob("*.json"))
    plan = json.loads(path.read_text())
    assert plan["experiment"]["fit"]["isoflop_robust"] is False
    plan["experiment"]["fit"] |= {
        "isoflop_robust": True,
        "residuals": "linear",
        "irreducible_loss": 1.5,
        "kaplan_n_params": "total",
        "data_constrained_base": "muennighoff_2023",
    }
    path.write_text(json.dumps(plan))
    fit = store.latest_experiment().fit
    assert (fit.isoflop.robust, fit.isoflop.bias_corrected) == (True, False)
    assert (fit.parametric.residuals, fit.parametric.irreducible_loss) == ("linear", 1.5)
    assert (fit.kaplan.n_params, fit.data_constrained.base) == ("total", "muennighoff_2023")
    assert (fit.n_bootstrap, fit.huber_delta, fit.confidence, fit.seed) == (200, 1e-3, 0.95, 0)


def test_a_plan_that_holds_arguments_of_fit_and_predict_is_read(tmp_path):
    shutil.copytree(WITH_ARGUMENTS, tmp_path / "golden")
    store = RunStore(tmp_path / "golden")
    stored = json.loads(next(WITH_ARGUMENTS.glob("plans/*.json")).read_text())["experiment"]
    arguments = {"points", "columns", "reconcile", "law", "flops", "inference_tokens"}
    assert arguments <= stored.keys()
    experiment = store.latest_experiment()
    assert (experiment.budgets, experiment.seeds) == (tuple(stored["budgets"]), tuple(stored["seeds"]))
    assert experiment.fit.parametric.residuals == stored["fit"]["residuals"]
    assert experiment.estimate.step_overhead_s == stored["estimate"]["step_overhead_s"]
    assert store.status().counts == {"done": 2}
    assert [exclusion.reason for exclusion in store.points().excluded] == ["a spike"]
    gone = store.points().points[0]
    (store.sweep_dir / "runs" / str(gone.run_key) / "result.json").unlink()
    assert work(store.sweep_dir, train=train).n_done == 1
    assert {point.run_key: point.loss for point in store.points().points}[gone.run_key] == gone.loss
