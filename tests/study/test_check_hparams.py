"""`sweep check-hparams` from the plan to the figure."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from sweep.config.compose import compose_experiment
from sweep.config.places import hparam_directory, sweep_directory
from sweep.errors import InputError, SafetyError
from sweep.identity import run_key
from sweep.machine.workers import WorkerCount
from sweep.plan.grid import make_plan
from sweep.report.hparams import document, read_reports
from sweep.report.numbers import format4
from sweep.report.plans import known_hparams, plan_document, run_states
from sweep.report.series.hparams import check_curves
from sweep.report.text.hparams import hparam_line, hparam_text
from sweep.report.text.plan import plan_text
from sweep.store.run_store import RunStore
from sweep.study import laws as analysis
from sweep.study import run as study
from sweep.study.plan import hparam_check, plan_experiment
from sweep.study.report import write_report
from sweep.study.upkeep import exclude
from tests import toy_trainer
from tests.configs import SMALL_SWEEP
from tests.plan.test_grid import DATASET
from tests.shell import sweep
from tests.study.in_process import InProcess

SMALL = (*SMALL_SWEEP, "budgets=[5e8,1e9]", "grid.d_model=[8,12,16,24]")
OPTIMUM = {"lr": 0.02, "batch": 300.0}  # of the planted loss


def planted(run, placement, session):
    """A paraboloid in ln lr and ln batch around OPTIMUM, lower for larger runs, offset by seed."""
    given = {"lr": run.optimizer.lr_peak, "batch": run.batch_tokens}
    bowl = sum(0.1 * np.log(given[axis] / OPTIMUM[axis]) ** 2 for axis in given)
    return toy_trainer.result(run, loss=float(3 + bowl + 0.01 * run.seed + 1e8 / run.n_tokens**2))


class Planted(InProcess):
    """A launcher with planted losses, which fails every run after `limit` ones."""

    limit = None
    trained: list[str] = []  # noqa: RUF012

    def train(self, run, placement, session):
        if self.limit is not None and len(self.trained) >= self.limit:
            raise ValueError("no more")
        self.trained.append(run_key(run))
        return planted(run, placement, session)


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "make_launcher", Planted)
    monkeypatch.setattr(Planted, "trained", [])
    monkeypatch.setattr(Planted, "limit", None)
    return compose_experiment([*SMALL, f"results_dir={tmp_path}", f"data_dir={tmp_path / 'data'}"])


def check(experiment):
    study.run_experiment(experiment, check_hparams=True)
    checks, directory = [hparam_check(experiment)], sweep_directory(experiment)
    (report,) = analysis.measure_hparams(checks, directory, hparam_directory(experiment))
    return report


def test_a_check_trains_the_missing_runs_and_keeps_the_grid(experiment, tmp_path):
    study.run_experiment(experiment)
    store, n_grid = RunStore(sweep_directory(experiment)), len(Planted.trained)
    before = store.points()
    fitted = analysis.fit_sweep(store.sweep_dir, experiment.fit)[None]
    assert fitted.to_json()["hyperparameters"] == "unmeasured"
    report = check(experiment)
    trained = Planted.trained[n_grid:]
    assert len(trained) == len(set(trained)) == 4 * 5 * 3 - 4  # seed 0 of every corner is the grid's own
    assert store.points() == before
    own = RunStore(hparam_directory(experiment)).points()
    assert {point.purpose for point in own.points} == {"hparam_check"}
    assert {item.run_key for item in own.excluded} == {point.run_key for point in own.points}  # never fitted
    assert {point.purpose for point in before.points} == {None}
    fitted = analysis.fit_sweep(store.sweep_dir, experiment.fit)[None]
    assert fitted.n_points == n_grid
    assert fitted.to_json()["hyperparameters"]["worst"] == report.to_json()["worst"]
    figures = {path.name for path in write_report(store.sweep_dir)}
    assert {"hparams.png", "hparams.svg", "isoflop_curves.png"} <= figures


def test_a_check_with_other_settings_than_the_sweep_is_refused_with_remedies_that_work(experiment):
    study.run_experiment(experiment)
    n_grid = len(Planted.trained)
    other = replace(experiment, optimizer=replace(experiment.optimizer, weight_decay=0.5))
    with pytest.raises(SafetyError) as refused:
        study.run_experiment(other, check_hparams=True)
    message = str(refused.value)
    assert "this plan has optimizer.weight_decay=0.5, and nothing was trained" in message
    assert "--as-arm" not in message  # not an option of this verb
    assert len(Planted.trained) == n_grid
    assert not hparam_directory(other).exists()
    name, plan = re.search(r"name=([^ ,]+), .*--plan (\w+)", message).groups()
    check(replace(other, name=name))
    assert len(Planted.trained) > n_grid
    exclude(sweep_directory(experiment), [], "replaced", plans=[plan])
    check(other)


def test_the_planted_optimum_is_found_at_every_corner_and_once_is_enough(experiment):
    report = check(experiment)
    assert len(report.corners) == 4
    for corner in report.corners:
        lr, batch = corner.axes
        assert lr.found.status == "ok"
        assert lr.rule * lr.found.factor_opt == pytest.approx(OPTIMUM["lr"])
        assert lr.found.loss_left == pytest.approx(0.1 * np.log(lr.rule / OPTIMUM["lr"]) ** 2, abs=1e-9)
        assert batch.rule == 256
        assert [len(row) for row in batch.losses] == [3, 3, 3]
    worst = max(axis.found.loss_left for corner in report.corners for axis in corner.axes)
    written = report.to_json()
    assert written["worst"]["loss_left"] == worst
    assert written["within_tolerance"] == (worst <= 0.01)
    assert read_reports(json.loads(json.dumps(document([report])))) == (report,)
    assert len(check_curves(report)) == 8
    assert hparam_text(report) is not None
    n = len(Planted.trained)
    check(experiment)
    assert len(Planted.trained) == n
    found = known_hparams(plan_experiment(experiment))
    assert found["n_corners"] == 4
    assert f"{found['worst']['loss_left']:.4f}" in hparam_line(found)
    other = replace(experiment, optimizer=replace(experiment.optimizer, lr=0.01))
    assert known_hparams(plan_experiment(other)) == "unmeasured"
    assert "unmeasured" in hparam_line(
        plan_document([plan_experiment(other)], states(other))["hyperparameters"]
    )


def states(experiment):
    return run_states(plan_experiment(experiment))


def test_a_plan_shows_unmeasured_hyperparameters_and_savings_of_branches():
    branched = compose_experiment(
        ["experiment=isoflop_1gpu", "schedule=wsd_branches", "grid.d_model=[64,128]"]
    )
    plan = make_plan(branched, DATASET)
    console = Console(file=io.StringIO(), width=250)
    console.print(plan_text(plan, {}, WorkerCount(n_workers=1, speed=1.0, packing=None)))
    shown = console.file.getvalue()
    assert "hyperparameters: unmeasured; sweep check-hparams" in shown
    shared = sum(run.flops_shared for run in plan.runs)
    n_branches = sum(run.flops_shared > 0 for run in plan.runs)
    assert f"{n_branches} runs branch from the trunks of other runs: {format4(shared)} of" in shown
    assert n_branches > 0


def test_an_interrupted_check_is_reported_as_incomplete(experiment, monkeypatch):
    monkeypatch.setattr(Planted, "limit", 40)
    report = check(experiment)
    written = report.to_json()
    assert written["n_incomplete"] > 0
    assert not written["within_tolerance"]
    assert "incomplete" in hparam_line({**written})
    monkeypatch.setattr(Planted, "limit", None)
    assert check(experiment).to_json()["n_incomplete"] == 0
    assert len(Planted.trained) == len(set(Planted.trained)) == 60


@pytest.mark.ci
def test_the_command_prints_one_document(experiment, tmp_path):
    check(experiment)
    arguments = [*SMALL, f"results_dir={tmp_path}", f"data_dir={tmp_path / 'data'}"]
    done = sweep("check-hparams", *arguments, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "all 60 runs are finished" in done.stderr
    document = json.loads(done.stdout)
    assert document.pop("next") == [f"sweep fit {tmp_path / 'smoke'}"]
    assert document == json.loads((tmp_path / "smoke" / "hparams.json").read_text())
    assert (tmp_path / "smoke" / "figures" / "hparams.png").is_file()


def test_a_foreign_file_is_refused(tmp_path):
    for content in ({}, {"schema_version": 99}, {"schema_version": 1, "checks": [{"arm": None}]}):
        with pytest.raises(InputError, match="run sweep check-hparams to write it again"):
            read_reports(content)
