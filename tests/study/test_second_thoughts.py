"""The same name again with a changed setting or corpus: refused before training, never fitted together."""

from __future__ import annotations

import json
import re
import shlex

import pytest

from sweep.config.compose import compose_experiment
from sweep.config.places import sweep_directory
from sweep.errors import InputError, SafetyError
from sweep.store.run_store import RunStore
from sweep.study import run as study
from sweep.study.laws import fit_arms
from sweep.study.plan import as_arm, plan_experiment
from sweep.study.run import run_experiment
from tests.study.in_process import InProcess
from tests.verbs import forked

GRID = ("experiment=smoke", "budgets=[5e8]", "grid.d_model=[8,12,16,24]", "grid.min_steps=5")
FAST = (
    "batch_tokens=64",
    "evaluation.n_tokens=1024",
    "launch.n_workers=1",
    "fit.n_bootstrap=10",
    "fit.methods=[isoflop]",
)
REMEDY = re.compile(r"sweep (exclude .* --reason) TEXT")


@pytest.fixture(autouse=True)
def _in_process(monkeypatch):
    monkeypatch.setattr(study, "make_launcher", InProcess)


def settings_in(directory):
    """A small grid on forty texts, with everything in one directory."""
    corpus = directory / "corpus"
    corpus.mkdir()
    for index in range(40):
        (corpus / f"{index}.txt").write_text(" ".join(str(n) for n in range(index, index + 1500)))
    places = (f"results_dir={directory / 'results'}", f"data_dir={directory / 'data'}")
    return (*GRID, *FAST, *places, "data=text", f"data.files={corpus}/*.txt")


@pytest.fixture
def settings(tmp_path):
    """Settings in directories of the test's own."""
    return settings_in(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trained sweep that no test changes: its directory and settings."""
    directory = tmp_path_factory.mktemp("trained")
    settings = settings_in(directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "make_launcher", InProcess)
        run_experiment(experiment(*settings))
    return directory, settings


def experiment(*settings):
    return compose_experiment(settings)


def n_fitted(directory, **chosen):
    fits = fit_arms(directory, compose_experiment([*GRID, *FAST]).fit, **chosen)
    return {arm: fitted.n_points for arm, fitted in fits.items()}


@pytest.mark.parametrize(
    ("changed", "stored", "given"),
    [
        (("optimizer.lr_multiplier=0.5",), "optimizer.lr_multiplier=1.0", "optimizer.lr_multiplier=0.5"),
        (  # other shapes: no cell collides
            ("model.n_layers=3", "model.aspect_ratio=null", "optimizer.weight_decay=0"),
            "model.n_layers=2, optimizer.weight_decay=",
            "model.n_layers=3, optimizer.weight_decay=0.0",
        ),
        (("evaluation.n_tokens=512",), "evaluation.n_tokens=1024", "evaluation.n_tokens=512"),
        (("optimizer=sgd", "optimizer.lr=0.1", "optimizer.weight_decay=0"), "optimizer.name=", "=sgd"),
        (("data.holdout_frac=0.1",), "data.holdout_frac=0.05", "data.holdout_frac=0.1"),
    ],
)
def test_a_changed_setting_is_refused_before_anything_is_trained(trained, changed, stored, given):
    directory, settings = trained
    before = sorted(path for path in (directory / "results").rglob("*") if path.is_file())
    for verb in ("plan", "run"):
        refused = forked(verb, *settings, *changed, cwd=directory)
        assert refused.returncode == 3
        assert f"holds 4 runs with {stored}" in refused.stderr
        assert given in refused.stderr.partition("this plan has")[2]
        assert "--as-arm" in refused.stderr
    assert sorted(path for path in (directory / "results").rglob("*") if path.is_file()) == before
    assert n_fitted(directory / "results/smoke") == {None: 4}
    name = re.search(r"name=([\w.+-]+)", refused.stderr)
    assert forked("plan", *settings, *changed, name[0], cwd=directory).returncode == 0


@pytest.mark.ci
def test_a_grown_corpus_is_refused_and_the_old_one_still_fitted(settings, tmp_path):
    run_experiment(experiment(*settings))
    (tmp_path / "corpus/new.txt").write_text("one more")
    for verb in ("plan", "run"):
        refused = forked(verb, *settings, cwd=tmp_path)
        assert refused.returncode == 3
        assert re.search(r"with content of data=sha256:\w{8}, this plan has content of data=", refused.stderr)
    (tmp_path / "corpus/new.txt").unlink()
    assert run_experiment(experiment(*settings)).was_finished
    assert n_fitted(tmp_path / "results/smoke") == {None: 4}


def test_more_budgets_seeds_and_sizes_and_another_execution_are_no_second_thought(settings, tmp_path):
    run_experiment(experiment(*settings))
    more = ("budgets=[5e8,6e8]", "seeds=[0,1]", "grid.d_model=[8,12,16,20,24]", "grid.max_budget_error=0.1")
    other = ("launch.max_failures=1", "trainer.checkpoint_interval_s=1", "fit.n_bootstrap=20")
    status = run_experiment(experiment(*settings, *more, *other)).status
    assert n_fitted(tmp_path / "results/smoke") == {None: len(status.runs)}
    assert len(status.runs) >= 16


def test_the_same_corpus_under_another_path_is_the_same_family(settings, tmp_path):
    run_experiment(experiment(*settings))
    moved = f"data.files={tmp_path}/results/../corpus/*.txt"
    assert run_experiment(experiment(*settings, moved)).was_finished


def test_as_arm_adds_the_changed_settings_as_another_arm(settings, tmp_path):
    run_experiment(experiment(*settings))
    changed = (*settings, "optimizer.lr_multiplier=0.5")
    planned = json.loads(forked("plan", *changed, "--as-arm", "--json", cwd=tmp_path).stdout)
    assert {run["arm"] for run in planned["runs"]} == {"optimizer.lr_multiplier=0.5"}
    arm = as_arm(experiment(*changed))
    assert run_experiment(arm).n_trained == 4
    assert run_experiment(as_arm(experiment(*changed))).was_finished  # the same arm again
    directory = sweep_directory(arm)
    assert n_fitted(directory) == {None: 4, "optimizer.lr_multiplier=0.5": 4}
    fitted = json.loads(forked("fit", directory, "--json", cwd=tmp_path).stdout)
    assert set(fitted["arms"]) == {"", "optimizer.lr_multiplier=0.5"}
    assert run_experiment(experiment(*settings)).was_finished


def test_as_arm_without_a_difference_or_with_shared_runs_is_refused(trained, tmp_path):
    _, settings = trained
    with pytest.raises(InputError, match="it has no run yet"):
        as_arm(experiment(*settings, f"results_dir={tmp_path}"))
    with pytest.raises(InputError, match="needs a setting other than"):
        as_arm(experiment(*settings))
    with pytest.raises(InputError, match="changes nothing in 4 of 4 runs"):
        as_arm(experiment(*settings, "optimizer.lr_max=1000"))


@pytest.mark.ci
def test_the_old_runs_are_replaced_as_the_message_says(settings, tmp_path):
    run_experiment(experiment(*settings))
    changed = experiment(*settings, "optimizer.lr_multiplier=0.5")
    with pytest.raises(SafetyError) as refused:
        run_experiment(changed)
    remedy = shlex.split(REMEDY.search(str(refused.value))[1])
    excluded = forked(*remedy, "a typing error", cwd=tmp_path)
    assert excluded.returncode == 0
    assert excluded.stderr.count("is excluded from fits: a typing error") == 4
    assert run_experiment(changed).n_trained == 4
    directory = sweep_directory(changed)
    assert n_fitted(directory) == {None: 4}
    assert len(RunStore(directory).points().points) == 8  # the points are kept
    with pytest.raises(SafetyError, match=r"holds 4 runs with optimizer\.lr_multiplier=0\.5"):
        run_experiment(experiment(*settings))


def test_a_plan_that_was_set_aside_is_taken_up_again(settings, tmp_path):
    first = experiment(*settings)
    run_experiment(first)
    store = RunStore(sweep_directory(first))
    store.exclude_plans([store.plans()[0].hash[:6]], "for a while")
    assert len(store.points().excluded) == 4
    assert run_experiment(first).was_finished
    assert store.points().excluded == ()


def test_points_of_two_plans_of_one_name_are_fitted_apart(settings, tmp_path):
    """A sweep of an earlier version, which trained both: each plan can be fitted, whichever came last."""
    first, second = experiment(*settings), experiment(*settings, "optimizer.lr_multiplier=0.5")
    run_experiment(first)
    store = RunStore(sweep_directory(first))
    apart = compose_experiment([*settings, "optimizer.lr_multiplier=0.5", "name=apart"])
    run_experiment(apart)
    for run in plan_experiment(apart).runs:
        source = sweep_directory(apart) / "runs" / run.run_key
        source.rename(store.sweep_dir / "runs" / run.run_key)
    store.add_plan(plan_experiment(second))
    fits = fit_arms(store.sweep_dir, first.fit)
    assert fits[None].n_points == 4
    assert {run.run_key for run in plan_experiment(first).runs} == {p.run_key for p in fits[None].excluded}
    assert all("with optimizer.lr_multiplier=1.0" in point.reason for point in fits[None].excluded)
    older = next(p for p in store.plans() if p.experiment.optimizer.lr_multiplier == 1)
    fitted = forked("fit", store.sweep_dir, "--plan", older.hash[:8], "--json", cwd=tmp_path)
    assert json.loads(fitted.stdout)["points"]["n"] == 4
    assert run_experiment(first).was_finished  # each is a family of the sweep, so neither is refused
    assert {p.run_key for p in fit_arms(store.sweep_dir, first.fit)[None].excluded} == {
        run.run_key for run in plan_experiment(second).runs
    }
    name = plan_experiment(first).runs[0].config.name
    with pytest.raises(InputError, match=f"{name} is the name of 2 runs"):
        store.find_run(name)


def test_exclude_takes_several_keys_and_names(settings, tmp_path):
    run_experiment(experiment(*settings))
    directory = tmp_path / "results/smoke"
    runs = RunStore(directory).entries()
    chosen = (runs[0].run_key, runs[1].name, runs[2].name)
    done = forked("exclude", directory, *chosen, "--reason", "a hot day", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert n_fitted(directory) == {None: 1}
    for wrong in ((), (runs[3].name, "nobody"), ("--plan", "ffff")):
        refused = forked("exclude", directory, *wrong, "--reason", "x", cwd=tmp_path)
        assert refused.returncode == 2, refused.stderr
    assert n_fitted(directory) == {None: 1}  # a list with an unknown run excludes nothing
