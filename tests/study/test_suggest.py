"""`sweep suggest` and adaptive sweeps on planted losses: chosen, trained, joined, repeated and killed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sweep.config.compose import compose_experiment
from sweep.errors import InputError
from sweep.store.run_store import RunStore
from sweep.study import laws
from sweep.study import run as study
from sweep.study.adaptive import decide
from sweep.study.run import run_experiment, run_suggested
from sweep.study.suggest import grid_flops, suggest
from tests.study.test_validate import SMALL, Planted
from tests.verbs import forked

PILOT = (
    *SMALL,
    "budgets=[1e9,2e9,4e9]",
    "grid.d_model=[[8,12,16,24,40],[8,12,16,24,40],[8,12,16,24,40]]",
    "fit.methods=[isoflop,trend]",
    "fit.n_bootstrap=40",
)
ADAPTIVE = (
    "adaptive.enabled=true",
    "adaptive.max_budget=1.6e10",
    "adaptive.target=8e10",
    "adaptive.flops_budget=1.6e11",
)
SHORT = ("adaptive.goal=1.001", "adaptive.flops_budget=2e10", "adaptive.max_budget=8e9")


def composed(directory, *overrides):
    return compose_experiment(
        [*PILOT, f"results_dir={directory}", f"data_dir={directory / 'data'}", *overrides]
    )


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    monkeypatch.setattr(study, "make_launcher", Planted)
    monkeypatch.setattr(Planted, "limit", None)
    monkeypatch.setattr(Planted, "bend", 0.0)


@pytest.fixture(scope="module")
def pilot(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pilot")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "make_launcher", Planted)
        assert run_experiment(composed(directory)).status.finished
    return directory / "smoke"


@pytest.fixture
def sweep_dir(pilot, tmp_path):
    return Path(shutil.copytree(pilot, tmp_path / "smoke"))


def keys(sweep_dir):
    return {str(point.run_key) for point in RunStore(sweep_dir).points().points}


def test_suggested_runs_become_points_of_the_sweep(sweep_dir):
    before, experiment = keys(sweep_dir), RunStore(sweep_dir).latest_experiment()
    found = suggest(sweep_dir, 8e10, max_budget=1.6e10, flops_budget=1e11)
    assert found == suggest(sweep_dir, 8e10, max_budget=1.6e10, flops_budget=1e11)
    assert 0 < found.flops <= 1e11
    assert max(run.flops_budget for run in found.runs) == 1.6e10
    assert found.n_params_opt.expected_interval[0] > found.n_params_opt.interval[0]
    assert keys(sweep_dir) == before  # nothing is written yet
    outcome = run_suggested(found.plans, sweep_dir)
    assert outcome.n_trained == len(found.runs)
    assert keys(sweep_dir) - before == {run.run_key for run in found.runs}
    assert RunStore(sweep_dir).latest_experiment() == experiment
    assert grid_flops(RunStore(sweep_dir), None) == pytest.approx(5 * 7e9, rel=0.2)
    fitted = laws.fit_arms(sweep_dir, experiment.fit)[None]
    assert fitted.n_points == len(before) + len(found.runs)
    low, high = fitted.answer.interval("n_params_opt", 8e10)
    assert high / low < found.n_params_opt.factor
    again = suggest(sweep_dir, 8e10, max_budget=1.6e10, flops_budget=1e11)
    assert not {run.run_key for run in again.runs} & keys(
        sweep_dir
    )  # a further run of a cell has another seed


def test_a_budget_at_an_edge_is_repaired_first(tmp_path):
    run_experiment(
        composed(
            tmp_path, "grid.d_model=[[8,12,16,24],[8,12,16,24],[8,12,16,24]]", "budgets=[1e9,2e9,1.2e10]"
        )
    )
    found = suggest(tmp_path / "smoke", 8e10)
    assert found.n_params_opt is None
    assert len(found.unbracketed) == 1
    assert found.runs[0].purpose == "bracket"
    assert found.runs[0].flops_budget == 1.2e10
    assert found.runs[0].d_model > 24


def test_an_adaptive_sweep_ends_at_its_goal_and_repeats_without_training(tmp_path):
    said: list[str] = []
    experiment = composed(tmp_path, *ADAPTIVE, "adaptive.goal=1.6")
    outcome = run_experiment(experiment, on_notice=said.append)
    assert outcome.status.finished
    assert said[0].startswith("adding ")
    assert said[-1].startswith("the goal is reached")
    low, high = laws.fit_arms(tmp_path / "smoke", experiment.fit)[None].answer.interval("n_params_opt", 8e10)
    assert high / low <= 1.6
    again = run_experiment(experiment)
    assert (again.n_trained, again.was_finished) == (0, True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The keys of an adaptive sweep that spends its allowance, its plans, and what it said."""
    directory, said = tmp_path_factory.mktemp("whole"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "make_launcher", Planted)
        run_experiment(composed(directory, *ADAPTIVE, *SHORT), on_notice=said.append)
    return keys(directory / "smoke"), RunStore(directory / "smoke").plans(), said


def test_an_adaptive_sweep_keeps_to_its_allowance_and_says_so(whole):
    _, plans, said = whole
    flops = {entry.run_key: entry.flops for plan in plans if plan.suggested for entry in plan.entries}
    assert 0 < sum(flops.values()) <= 2e10
    assert said[-1].startswith("no further run is added")
    assert "of 2e+10 FLOPs of the allowance (adaptive.flops_budget) are spent" in said[-1]


def test_a_killed_adaptive_sweep_continues_with_the_same_runs(whole, tmp_path, monkeypatch):
    experiment, plain = composed(tmp_path, *ADAPTIVE, *SHORT), study.run_suggested

    def kill(plans, sweep_dir, **options):
        for plan in plans:
            RunStore(sweep_dir).add_plan(plan)
        raise KeyboardInterrupt  # the round is written, and none of its runs trained

    monkeypatch.setattr(study, "run_suggested", kill)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(experiment)
    monkeypatch.setattr(study, "run_suggested", plain)
    assert not RunStore(tmp_path / "smoke").status().finished
    run_experiment(experiment)
    assert keys(tmp_path / "smoke") == whole[0]


def test_every_adaptive_setting_changes_the_next_round(sweep_dir):
    base = replace(RunStore(sweep_dir).latest_experiment(), results_dir=str(sweep_dir.parent))
    base = replace(
        base,
        adaptive=replace(base.adaptive, enabled=True, max_budget=1.6e10, target=8e10, flops_budget=1.6e11),
    )

    def chosen(**settings):
        decision = decide(sweep_dir, replace(base, adaptive=replace(base.adaptive, **settings)))
        return decision.reason, [run.run_key for plan in decision.plans for run in plan.runs]

    present = chosen()
    for settings in ({"target": 4e11}, {"goal": 100.0}, {"flops_budget": 2e10}, {"max_budget": 8e9}):
        assert chosen(**settings) != present


def test_a_target_below_the_budgets_is_refused(sweep_dir):
    with pytest.raises(InputError, match=r"nothing to suggest for --target 1e5: it is below the smallest"):
        suggest(sweep_dir, 1e5)


def test_settings_without_a_suggestion_are_refused(sweep_dir):
    with pytest.raises(InputError, match=r"at most fit\.max_reach=300"):
        suggest(sweep_dir, 1e20)
    with pytest.raises(InputError, match="unknown arm b"):
        suggest(sweep_dir, arm="b")
    with pytest.raises(InputError, match="cooldown_branches=true: added runs cannot branch"):
        composed(sweep_dir, *ADAPTIVE, "schedule=wsd", "schedule.cooldown_branches=true")


def test_the_verb_shows_the_runs_and_the_command_that_trains_them(sweep_dir):
    shown = forked("suggest", sweep_dir, "--target", "8e10", "--max-budget", "1.6e10", cwd=sweep_dir)
    assert shown.returncode == 0, shown.stderr
    assert "new budget" in shown.stdout
    assert "N_opt at 8e10 FLOPs" in shown.stdout
    assert f"train them: sweep suggest {sweep_dir} --target 8e10" in shown.stdout
    assert len(shown.stdout.splitlines()) <= 20
    as_json = forked(
        "suggest", sweep_dir, "--target", "20x", "--json", "--flops-budget", "1e10", cwd=sweep_dir
    )
    document = json.loads(as_json.stdout)
    assert document["target"] == 8e10
    assert document["flops"] == sum(run["flops"] for run in document["runs"]) <= 1e10
    refused = forked("suggest", sweep_dir, "--target", "soon", cwd=sweep_dir)
    assert refused.returncode == 2
    assert "soon is not a budget" in refused.stderr
    assert "Traceback" not in refused.stderr


def next_of(*arguments, cwd):
    """Return the commands in `next` of a verb's document."""
    done = forked(*arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["next"]


def following(*arguments, cwd):
    """Return the commands in `next` of a verb's document, which must also end its text."""
    commands = next_of(*arguments, cwd=cwd)
    shown = forked(*arguments, cwd=cwd).stdout
    assert shown.splitlines()[-1].split(": ", 1)[1] == ", ".join(commands)
    return commands


def test_every_verb_leads_from_a_refusal_to_the_runs_that_are_missing(tmp_path):
    run_experiment(composed(tmp_path / "results", "budgets=[1e9,2e9]", "grid.d_model=[8,12,16,24,40]"))
    place = "results/smoke"
    for verb in (["fit", place], ["status", place], ["predict", place, "10x"]):
        assert following(*verb, cwd=tmp_path) == [f"sweep suggest {place}"]
    (command,) = following("suggest", place, cwd=tmp_path)
    assert command.startswith(f"sweep suggest {place} --target 4e10")
    assert command.endswith("--run")
    found = suggest(tmp_path / place)
    assert found.refusal is not None
    assert {run.flops_budget for run in found.runs} == {4e9}  # beyond the budgets, not between them
    stated = suggest(tmp_path / place, 4e10, flops_budget=found.allowance, max_budget=found.max_budget)
    assert stated.runs == found.runs
    run_suggested(found.plans, tmp_path / place)
    predicted, validated = next_of("fit", place, cwd=tmp_path)
    assert next_of(*predicted.split()[1:], cwd=tmp_path) == [validated.replace("1.6e10", "4e10")]
    assert next_of("status", place, cwd=tmp_path) == [predicted, validated]
    assert next_of("predict", place, "1000x", cwd=tmp_path) == [f"sweep predict {place} 300x"]


def test_a_sweep_of_one_cell_gets_the_sizes_around_it(tmp_path):
    run_experiment(composed(tmp_path, "budgets=[1e9]", "grid.d_model=[16]"))
    sizes = {run.d_model for run in suggest(tmp_path / "smoke").runs}
    assert min(sizes) < 16 < max(sizes)
