"""Failed runs trained again, and derived files rebuilt."""

from __future__ import annotations

import shutil
import sqlite3
import sys

import pandas as pd
import pytest

from sweep.config.compose import compose_experiment
from sweep.config.places import sweep_directory
from sweep.errors import IndexUnavailable
from sweep.store.run_store import RunStore
from sweep.study import run as study
from sweep.study import upkeep
from sweep.study.plan import plan_experiment
from sweep.study.run import run_experiment
from tests.study.in_process import InProcess
from tests.toy_trainer import toy_sweep
from tests.verbs import forked

SMALL = ("experiment=smoke", "data=synthetic", "budgets=[5e8]", "grid.d_model=[8,12,16,24]")
MORE = ("grid.min_steps=5", "batch_tokens=64", "evaluation.n_tokens=1024", "launch.n_workers=1")


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """A real plan of four runs with a SQL copy, for workers with the toy trainer."""
    command = [sys.executable, "-m", "tests.toy_trainer"]
    monkeypatch.setattr("sweep.launch.local.worker_command", lambda sweep_dir: [*command, str(sweep_dir)])
    places = (f"results_dir={tmp_path / 'results'}", f"data_dir={tmp_path / 'data'}")
    return compose_experiment([*SMALL, *MORE, *places, f"store.index_url=sqlite:///{tmp_path / 'p.db'}"])


def table(tmp_path):
    connection = sqlite3.connect(tmp_path / "p.db")
    try:
        return dict(connection.execute("select name, excluded from sweep_points").fetchall())
    finally:
        connection.close()


@pytest.mark.ci
def test_only_failed_trains_just_the_failed_runs(tmp_path, experiment, monkeypatch):
    names = [run.config.name for run in plan_experiment(experiment).runs]
    monkeypatch.setenv("TOY_FAULT", f"data:{names[1]}")
    first = run_experiment(experiment)
    assert first.status.counts == {"done": 3, "failed:data": 1}
    store = RunStore(sweep_directory(experiment))
    assert [run.name for run in upkeep.failed_runs(store.sweep_dir)] == [names[1]]
    planned = next(entry.run_key for entry in store.entries() if entry.name == names[0])
    (store.sweep_dir / "runs" / planned / "result.json").unlink()
    shutil.rmtree(store.sweep_dir / "runs" / planned / "attempts")

    monkeypatch.delenv("TOY_FAULT")
    monkeypatch.setenv("TOY_JOURNAL", str(tmp_path / "journal"))
    again = run_experiment(experiment, only="failed")
    assert (tmp_path / "journal").read_text().split() == [names[1]]
    assert (again.gave_up, again.n_trained, again.interrupted) == (None, 1, False)
    assert again.status.counts == {"done": 3, "planned": 1}
    assert upkeep.failed_runs(store.sweep_dir) == ()

    rest = run_experiment(experiment)  # trains all
    assert (rest.status.counts, rest.n_trained) == ({"done": 4}, 1)
    assert set(table(tmp_path)) == set(names)


@pytest.mark.ci
def test_a_stopped_rerun_of_failed_runs_continues(tmp_path, experiment, monkeypatch):
    names = [run.config.name for run in plan_experiment(experiment).runs]
    monkeypatch.setenv("TOY_FAULT", f"data:{names[1]}")
    run_experiment(experiment)
    stopped = run_experiment(experiment, only="failed", should_stop=lambda: True)
    assert stopped.interrupted
    sweep_dir = sweep_directory(experiment)
    assert [run.name for run in upkeep.failed_runs(sweep_dir)] == [names[1]]

    monkeypatch.delenv("TOY_FAULT")
    assert run_experiment(experiment, only="failed").status.counts == {"done": 4}
    assert upkeep.failed_runs(sweep_dir) == ()
    (sweep_dir / "runs" / stopped.status.runs[0].run_key / "result.json").unlink()
    assert upkeep.failed_runs(sweep_dir) == ()  # a result that was deleted is no failure


def test_only_failed_without_failed_runs_writes_nothing(tmp_path):
    done = forked("run", "--only", "failed", "experiment=smoke", cwd=tmp_path)
    assert done.returncode == 0
    assert "no run of results/smoke has failed: nothing to train" in done.stderr
    assert list(tmp_path.iterdir()) == []
    refused = forked("run", "--only", "lost", "experiment=smoke", cwd=tmp_path)
    assert refused.returncode == 2
    assert "'failed'" in refused.stderr


def test_a_password_on_the_command_line_is_refused_and_not_repeated(tmp_path):
    url = "postgresql://me:CANARY,=x@db/points"
    refused = forked("run", "experiment=smoke", f"store.index_url={url}", cwd=tmp_path)
    assert refused.returncode == 2
    assert "PGPASSFILE" in refused.stderr
    assert "CANARY" not in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_reindex_and_exclude_update_tables_and_copy(tmp_path, experiment, monkeypatch):
    monkeypatch.setattr(study, "make_launcher", InProcess)
    run_experiment(experiment)
    directory = sweep_directory(experiment)
    (tmp_path / "p.db").unlink()
    again = run_experiment(experiment)  # a finished sweep updates its copy
    assert (again.was_finished, again.index_problem) == (True, None)
    assert len(table(tmp_path)) == 4
    (tmp_path / "p.db").unlink()
    for path in upkeep.reindex(directory):
        assert len(pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)) == 4
    assert len(table(tmp_path)) == 4
    victim = RunStore(directory).points().points[0]
    assert upkeep.exclude(directory, [str(victim.name)], "a spike") == ([victim.run_key], None)
    assert table(tmp_path)[victim.name] == "a spike"
    (tmp_path / "p.db").write_text("no database" * 1000)
    (directory / "points.csv").unlink()
    with pytest.raises(IndexUnavailable, match="not a database"):
        upkeep.reindex(directory)
    assert (directory / "points.csv").exists()
    assert "--reindex" in str(upkeep.exclude(directory, [str(victim.run_key)], "still a spike")[1])
    assert RunStore(directory).status().runs  # the files were not touched


def test_watching_a_cancelled_sweep_ends(tmp_path):
    store = toy_sweep(tmp_path / "sweep", 2)
    store.cancel()
    seen = forked("status", str(store.sweep_dir), "--watch", cwd=tmp_path)
    assert seen.returncode == 0
    assert "cancelled" in seen.stdout
