"""`sweep validate` on a sweep of planted losses: registered, trained, scored, and a part of later fits."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sweep.config.compose import compose_experiment
from sweep.errors import InputError, SafetyError
from sweep.flops import count, n_params
from sweep.identity import run_key
from sweep.store.run_store import RunStore
from sweep.store.validations import read_registrations, read_validations
from sweep.study import laws
from sweep.study import run as study
from sweep.study.run import run_experiment
from sweep.study.scores import score
from sweep.study.validate import (
    largest_planned_budget,
    neighbouring_widths,
    validate,
    validate_all,
    validation_plan,
)
from tests import toy_trainer
from tests.configs import SMALL_SWEEP
from tests.study.in_process import InProcess
from tests.verbs import forked

SMALL = (*SMALL_SWEEP, "budgets=[1e9,2e9,4e9,8e9]", "grid.d_model=[8,12,16,24,32,48]")
BUDGET = 3.2e10


def loss(run, bend=0.0):
    """A parabola in ln N around 9000 (C/1e9)^.5, with noise of .1 %; `bend` raises the largest budgets."""
    flops, size = count(run.model, run.n_tokens).flops, n_params(run.model).total
    optimum = 9000 * math.sqrt(flops / 1e9)
    noise = 1e-3 * np.random.default_rng(int(run_key(run), 16)).standard_normal()
    floor = 2.0 + 1.5 * (flops / 1e9) ** -0.15 + (bend if flops > 1e10 else 0.0)
    return (floor + 0.05 * math.log(size / optimum) ** 2) * math.exp(noise)


class Planted(InProcess):
    """Gives the losses of a planted law, and fails every run after `limit` ones."""

    limit: int | None = None
    bend = 0.0

    def __init__(self, launch, spec):
        super().__init__(launch, spec)
        self._n = 0

    def train(self, run, placement, session):
        if self.limit is not None and self._n >= self.limit:
            raise ValueError("no more")
        self._n += 1
        return toy_trainer.result(run, loss=loss(run, self.bend))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    directory = tmp_path_factory.mktemp("trained")
    experiment = compose_experiment([*SMALL, f"results_dir={directory}", f"data_dir={directory / 'data'}"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "make_launcher", Planted)
        assert run_experiment(experiment).status.finished
    laws.fit_sweep(directory / experiment.name, experiment.fit)
    return directory / experiment.name


@pytest.fixture
def sweep_dir(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "make_launcher", Planted)
    monkeypatch.setattr(Planted, "limit", None)
    monkeypatch.setattr(Planted, "bend", 0.0)
    return Path(shutil.copytree(trained, tmp_path / "smoke"))


def test_a_prediction_is_registered_trained_and_scored(sweep_dir):
    before = RunStore(sweep_dir).latest_experiment()
    outcome = validate(sweep_dir, BUDGET)
    registered, scored = outcome.registration, outcome.validation
    assert len(registered.runs) == 3 == outcome.run.n_trained
    small, center, large = (run.n_params for run in registered.runs)
    assert small < center < large
    assert center == pytest.approx(registered.n_params_opt, rel=0.3)
    assert all(run.flops == pytest.approx(BUDGET, rel=0.02) for run in registered.runs)
    assert registered.reach == pytest.approx(4, rel=0.01)
    assert scored.loss_inside
    assert scored.loss == pytest.approx(2 + 1.5 * 32**-0.15, rel=0.01)
    assert scored.n_params_opt == pytest.approx(9000 * math.sqrt(32), rel=0.15)
    assert scored.n_params_opt_inside
    assert RunStore(sweep_dir).latest_experiment() == before  # the sweep's settings are not the validation's
    assert largest_planned_budget(sweep_dir) == 8e9
    started = min(
        point.started_at for point in RunStore(sweep_dir).points().points if point.flops_budget == BUDGET
    )
    assert registered.registered_at <= started
    assert laws.fit_arms(sweep_dir, before.fit)[None].n_points == 24 + 3  # points of the sweep from then on


def test_the_registered_prediction_never_changes_and_can_be_checked(sweep_dir):
    first = validate(sweep_dir, BUDGET)
    path = sweep_dir / "validations/3.2e10.json"
    content = path.read_bytes()
    document = json.loads(content)
    canonical = json.dumps(
        document["prediction"], sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode()
    assert hashlib.sha256(canonical).hexdigest() == document["sha256"] == first.validation.sha256
    again = validate(sweep_dir, BUDGET)
    assert (again.validation, again.run.n_trained) == (first.validation, 0)
    assert path.read_bytes() == content
    assert len(json.loads((sweep_dir / "validations.json").read_text())["validations"]) == 1
    path.write_text(content.decode().replace('"loss_opt": ', '"loss_opt": 1'))
    with pytest.raises(SafetyError, match="does not match its sha256"):
        validate(sweep_dir, BUDGET)


def test_an_unfinished_validation_continues_its_registered_prediction(sweep_dir, monkeypatch):
    monkeypatch.setattr(Planted, "limit", 1)
    stopped = validate(sweep_dir, BUDGET)
    assert stopped.validation is None
    (registered,) = read_registrations(sweep_dir)
    assert read_validations(sweep_dir) == ()
    monkeypatch.setattr(Planted, "limit", None)
    finished = validate(sweep_dir, BUDGET)
    assert finished.registration == registered
    assert finished.validation is not None
    assert finished.run.n_trained == 2


def test_all_predictions_are_registered_before_any_run_of_them_starts(sweep_dir):
    budgets = (BUDGET, 2 * BUDGET)
    before = {point.run_key for point in RunStore(sweep_dir).points().points}
    outcomes = validate_all(sweep_dir, budgets)
    assert [outcome.registration.flops for outcome in outcomes] == list(budgets)
    assert all(outcome.validation is not None for outcome in outcomes)
    new = [point for point in RunStore(sweep_dir).points().points if point.run_key not in before]
    registered = max(outcome.registration.registered_at for outcome in outcomes)
    assert {point.flops_budget for point in new} == set(budgets)
    assert all(point.started_at > registered for point in new)
    first, second = outcomes
    assert first.registration.points_sha256 == second.registration.points_sha256  # made from the same points


def test_a_wrong_prediction_is_outside(sweep_dir, monkeypatch):
    monkeypatch.setattr(Planted, "bend", 1.0)
    found = validate(sweep_dir, BUDGET).validation
    assert not found.loss_inside
    assert found.loss_error < -0.2


def test_a_best_size_at_an_end_does_not_bracket_the_optimum(sweep_dir):
    registration = validate(sweep_dir, BUDGET).registration
    points = {str(point.run_key): point for point in RunStore(sweep_dir).points().points}
    first = registration.runs[0].run_key
    points[first] = replace(points[first], loss=1.0)
    found = score(registration, points)
    assert (found.n_params, found.loss) == (registration.runs[0].n_params, 1.0)
    assert (found.n_params_opt, found.n_params_opt_inside) == (None, None)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (8e9, "not beyond the fitted budgets"),
        (1e9, "not beyond the fitted budgets"),
        (1e14, r"fit\.max_reach=300 times: ask for 2\.4e12 FLOPs or less"),
    ],
)
def test_a_budget_without_a_prediction_is_refused_in_one_sentence(sweep_dir, budget, message):
    with pytest.raises(InputError, match=message):
        validate(sweep_dir, budget)
    assert not (sweep_dir / "validations").exists()


def test_unknown_arms_and_runs_trained_before_are_refused(sweep_dir):
    with pytest.raises(InputError, match="the sweep has no arms"):
        validate(sweep_dir, BUDGET, arm="a")
    outcome = validate(sweep_dir, BUDGET)
    (sweep_dir / "validations/3.2e10.json").unlink()
    (sweep_dir / "validations.json").unlink()
    for run in outcome.registration.runs[1:]:
        shutil.rmtree(sweep_dir / "runs" / run.run_key)
    points = [point for point in RunStore(sweep_dir).points().points if point.flops_budget == BUDGET]
    assert len(points) == 1
    RunStore(sweep_dir).exclude(str(points[0].run_key), "of another prediction")
    with pytest.raises(SafetyError, match="before its prediction could be registered"):
        validate(sweep_dir, BUDGET)


def test_neighbours_are_the_plannable_sizes_on_either_side(trained):
    experiment = RunStore(trained).latest_experiment()
    coarse = replace(experiment, model=replace(experiment.model, width_multiple=16))
    assert neighbouring_widths(coarse, 33_000) == (16, 32, 48)
    assert neighbouring_widths(coarse, 10_000) == (16, 32)  # no size below the smallest


@pytest.mark.parametrize(("device", "precision"), [("cuda", "bf16"), ("cpu", "fp32")])
def test_a_validation_is_planned_for_the_device_of_the_sweep(sweep_dir, monkeypatch, device, precision):
    monkeypatch.setattr("sweep.study.validate.device_of", lambda experiment: device)
    experiment = replace(RunStore(sweep_dir).latest_experiment(), precision="auto")
    plan = validation_plan(experiment, BUDGET, [24])
    assert {planned.config.precision for planned in plan.runs} == {precision}


@pytest.mark.ci
def test_the_verbs_show_a_validation(sweep_dir):
    validate(sweep_dir, BUDGET)
    line = "validation at 3.2e10 FLOPs: loss "
    assert line in forked("status", sweep_dir, cwd=sweep_dir.parent).stdout
    assert line in forked("fit", sweep_dir, cwd=sweep_dir.parent).stdout
    assert "figures/validations.png" in forked("report", sweep_dir, cwd=sweep_dir.parent).stdout
    again = forked("validate", sweep_dir, "4x", cwd=sweep_dir.parent)
    assert again.returncode == 0, again.stderr
    assert "all 27 runs are finished" in again.stderr
    assert "before training, sha256 " in again.stdout
    as_json = json.loads(forked("validate", sweep_dir, BUDGET, "--json", cwd=sweep_dir.parent).stdout)
    assert as_json["prediction"]["flops"] == BUDGET
    seen = json.loads(forked("status", sweep_dir, "--json", cwd=sweep_dir.parent).stdout)
    assert [entry["prediction"]["flops"] for entry in seen["validations"]] == [BUDGET]
    assert forked("validate", sweep_dir, "ten", cwd=sweep_dir.parent).returncode == 2
