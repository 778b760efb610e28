"""A small real sweep end to end: trained, repeated, run twice at once, stopped, killed."""

from __future__ import annotations

import importlib.util
import json
import random
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import psutil
import pytest

from sweep.config.compose import compose_experiment
from sweep.errors import InputError, Interrupted, SafetyError
from sweep.plan.estimate import disk_bytes
from sweep.records import BOOKKEEPING_COLUMNS, DroppedCell
from sweep.store.run_store import RunStore
from sweep.study import run as study
from sweep.study.plan import plan_experiment
from tests.shell import command, document, environment
from tests.verbs import forked

SMALL = (
    "experiment=smoke",
    "budgets=[5e8,1e9,2e9]",
    "grid.max_budget_error=0.1",
    "grid.d_model=[8,12,16,24]",
    "grid.min_steps=5",
    "batch_tokens=128",
    "evaluation.n_tokens=8192",
    "fit.n_bootstrap=50",
    "fit.methods=[envelope,isoflop,parametric]",
)
LESS = (*SMALL, "budgets=[5e8,1e9]")
"""The eight fastest of its twelve runs."""

LEAST = (*SMALL, "budgets=[5e8]")
"""The four fastest."""

ONE_WORKER = "launch.n_workers=1"
"""Starting a second takes longer than the runs."""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data_dir):
    """A sweep that ran undisturbed."""
    directory = tmp_path_factory.mktemp("finished")
    done = forked("run", *SMALL, ONE_WORKER, f"data_dir={data_dir}", cwd=directory)
    assert done.returncode == 0, done.stderr
    return directory, done


def science(directory: Path) -> pd.DataFrame:
    points = pd.read_csv(directory / "results/smoke/points.csv")
    return points.drop(columns=list(BOOKKEEPING_COLUMNS)).sort_values("run_key").reset_index(drop=True)


def same_runs(all_runs: pd.DataFrame, some: pd.DataFrame) -> pd.DataFrame:
    """Those of `all_runs` that `some` has too."""
    return all_runs[all_runs["run_key"].isin(some["run_key"])].reset_index(drop=True)


def start(directory: Path, data_dir: Path, *settings: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("run", *settings, f"data_dir={data_dir}"),
        cwd=directory,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_sweep_prints_its_laws_and_writes_its_files(finished):
    directory, done = finished
    for word in (
        "12 points fitted",
        "at C = ",
        "picture: results/smoke/figures/isoflop_curves.png",
        "next: sweep predict results/smoke 10x, sweep validate results/smoke 8e9",
    ):
        assert word in done.stdout
    assert len(done.stdout.splitlines()) <= 20
    root = directory / "results/smoke"
    for name in (
        "points.csv",
        "points.parquet",
        "fit.json",
        "figures/isoflop_curves.png",
        "figures/optima.svg",
    ):
        assert (root / name).stat().st_size > 500
    csv, parquet = pd.read_csv(root / "points.csv"), pd.read_parquet(root / "points.parquet")
    assert list(csv.columns) == list(parquet.columns)
    assert csv["run_key"].is_unique
    assert len(csv) == 12
    assert (csv["flops"] <= csv["flops_budget"]).all()


def test_a_finished_sweep_trains_nothing_more(finished, data_dir):
    directory, _ = finished
    before = science(directory)
    done = forked("run", *SMALL, f"data_dir={data_dir}", cwd=directory)
    assert done.returncode == 0
    assert "all 12 runs are finished: nothing to train" in done.stderr
    pd.testing.assert_frame_equal(science(directory), before)
    plan = document("plan", *SMALL, f"data_dir={data_dir}", cwd=directory, call=forked)
    assert {run["status"] for run in plan["runs"]} == {"cached"}


@pytest.mark.ci
def test_status_fit_report_and_exclude_on_the_sweep(finished, tmp_path):
    directory, _ = finished
    seen = document("status", "results/smoke", cwd=directory, call=forked)
    assert seen["counts"] == {"done": 12}
    assert seen["flops_done"] == seen["flops_total"]
    assert {"run_key", "name", "status", "attempts", "reason"} <= seen["runs"][0].keys()
    drawn = forked("report", "results/smoke", cwd=directory)
    assert (drawn.returncode, drawn.stderr) == (0, "")
    assert all((directory / line).is_file() for line in drawn.stdout.splitlines())
    wide = ("1e10", "fit.max_interval_factor=1e6")  # three budgets give wide intervals
    predicted = document("predict", "results/smoke/fit.json", *wide, cwd=directory, call=forked)
    assert predicted["shape"]["n_layers"] == 2
    assert abs(predicted["shape"]["flops"] / 1e10 - 1) <= 0.02
    key = seen["runs"][0]["run_key"]
    assert forked("exclude", "results/smoke", key, "--reason", "by hand", cwd=directory).returncode == 0
    without = document("fit", "results/smoke", "fit.n_bootstrap=20", cwd=directory, call=forked)
    assert without["points"]["n"] == 11
    assert {"a", "b", "E", "ci"} <= without["methods"]["envelope"].keys()
    assert without["points"]["excluded"] == [{"run_key": key, "reason": "by hand"}]
    (directory / f"results/smoke/runs/{key}/excluded.json").unlink()


def test_a_sweep_without_a_plan_has_no_run_to_retry(tmp_path):
    (tmp_path / "plans").mkdir()
    study._retry_failed(RunStore(tmp_path), None)


@pytest.mark.ci
def test_two_runs_at_once_share_the_work(finished, tmp_path, data_dir):
    both = [start(tmp_path, data_dir, *LEAST, ONE_WORKER) for _ in range(2)]
    said = [process.communicate(timeout=200)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    points = science(tmp_path)
    pd.testing.assert_frame_equal(points, same_runs(science(finished[0]), points))
    attempts = [len(list(run.glob("attempts/*"))) for run in (tmp_path / "results/smoke/runs").iterdir()]
    assert attempts == [1] * 4


@pytest.mark.ci
def test_sigterm_saves_and_leaves_with_75(finished, tmp_path, data_dir):
    process = start(tmp_path, data_dir, *LESS, ONE_WORKER)
    wait_for_results(tmp_path, 1)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 75, said
    assert "stopped, state saved" in said
    n_before = len(results(tmp_path))
    assert 1 <= n_before < 8
    done = forked("run", *LESS, ONE_WORKER, f"data_dir={data_dir}", cwd=tmp_path)
    assert done.returncode == 0
    points = science(tmp_path)
    assert len(points) == 8
    pd.testing.assert_frame_equal(points, same_runs(science(finished[0]), points))


@pytest.mark.timeout(480)
@pytest.mark.parametrize(
    "n_kills",
    [
        pytest.param(4, marks=pytest.mark.ci),
        pytest.param(20, marks=pytest.mark.long),
    ],
)
def test_killing_the_whole_tree_loses_and_doubles_nothing(
    finished, tmp_path, data_dir, record_property, n_kills
):
    generator = random.Random(n_kills)
    n_attempts = 0
    for index in range(n_kills):
        process = start(tmp_path, data_dir, *SMALL, "trainer.checkpoint_interval_s=0.2")
        time.sleep(generator.uniform(1.5, 6))
        deadline = time.monotonic() + 100
        while index == n_kills - 1 and not claims(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.05)  # a busy machine is slow to start workers
        kill_tree(process)
        n_attempts = max(n_attempts, len(claims(tmp_path)))
    assert n_attempts > 0  # some of them hit a training run
    done = forked("run", *SMALL, ONE_WORKER, f"data_dir={data_dir}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(science(tmp_path), science(finished[0]))
    figure = f"{n_kills} kills, 0 lost, 0 double, columns equal"
    record_property("fault", f"kill -9 of supervisor and workers of a real smoke sweep: {figure}")


def test_the_disk_space_estimated_for_a_sweep_suffices(finished, data_dir):
    root = finished[0] / "results/smoke"
    written = sum(path.stat().st_blocks * 512 for path in root.rglob("*"))
    plan = plan_experiment(compose_experiment([*SMALL, f"data_dir={data_dir}"]))
    estimate = disk_bytes([run.config for run in plan.runs], 2, keep_checkpoint=False)
    assert written < estimate < 20 * written


def kill_tree(process: subprocess.Popen[str]) -> None:
    """SIGKILL the supervisor and its workers, as a power failure would."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        member.kill()
    psutil.wait_procs(family, timeout=20)
    process.communicate(timeout=20)


def claims(directory: Path) -> list[Path]:
    return list((directory / "results/smoke/runs").glob("*/attempts/*/claim.json"))


def results(directory: Path) -> list[Path]:
    return list((directory / "results/smoke/runs").glob("*/result.json"))


def wait_for_results(directory: Path, n: int) -> None:
    deadline = time.monotonic() + 100
    while len(results(directory)) < n:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_data_is_prepared_once_and_inspected(finished, tmp_path, data_dir):
    assert forked("data", "prepare", *SMALL, f"data_dir={data_dir}", cwd=tmp_path).returncode == 0
    inspected = json.loads(forked("data", "inspect", *SMALL, f"data_dir={data_dir}", cwd=tmp_path).stdout)
    assert inspected["n_train_tokens"] > 1_000_000
    assert inspected["n_train_tokens"] > 8 * inspected["n_tokens_held_out"] > 1_000_000
    assert inspected["n_documents"] > 8 * inspected["n_documents_held_out"] > 300
    assert 0.98 < inspected["bytes_per_token"] < 1  # of bytes, with a separator for each document
    assert list(tmp_path.iterdir()) == []


@pytest.mark.ci
def test_a_deleted_result_is_trained_again_and_an_exchanged_config_refused(finished, tmp_path, data_dir):
    """Exactly the deleted one; a config.json that holds another run is never trained under the wrong name."""
    shutil.copytree(finished[0] / "results", tmp_path / "results")
    victim, other = sorted((tmp_path / "results/smoke/runs").iterdir())[:2]
    (victim / "result.json").unlink()
    own = (victim / "config.json").read_bytes()
    (victim / "config.json").write_bytes((other / "config.json").read_bytes())
    done = forked("run", *SMALL, f"data_dir={data_dir}", cwd=tmp_path)
    assert done.returncode == 3
    assert f"{victim.name}/config.json belongs to another run" in done.stderr
    (victim / "config.json").write_bytes(own)
    untouched = {path: path.stat().st_mtime_ns for path in results(tmp_path)}
    done = forked("run", *SMALL, ONE_WORKER, f"data_dir={data_dir}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(results(tmp_path)) == 12
    assert {path: path.stat().st_mtime_ns for path in untouched} == untouched
    pd.testing.assert_frame_equal(science(tmp_path), science(finished[0]))


def test_results_that_cannot_be_written_are_refused(tmp_path, data_dir):
    (tmp_path / "file").touch()
    done = forked("run", *SMALL, f"data_dir={data_dir}", "results_dir=file/below", cwd=tmp_path)
    assert done.returncode == 2
    assert "results_dir=file/below cannot be written" in done.stderr


@pytest.mark.ci
def test_arms_share_a_sweep_and_are_fitted_apart(tmp_path, data_dir):
    arms = "arms={optimizer.lr:[0.01,0.02],tokenizer:[byte]}"
    few = (*SMALL, "budgets=[5e8]", "grid.d_model=[12,16,24]")
    done = forked("run", *few, ONE_WORKER, arms, f"data_dir={data_dir}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    points = pd.read_csv(tmp_path / "results/smoke/points.csv")
    names = ["optimizer.lr=0.01,tokenizer=byte", "optimizer.lr=0.02,tokenizer=byte"]
    assert points.groupby("arm")["lr_peak"].unique().map(list).to_dict() == {
        names[0]: [0.01],
        names[1]: [0.02],
    }
    fits = document("fit", "results/smoke", "fit.n_bootstrap=20", cwd=tmp_path, call=forked)["arms"]
    assert {name: fitted["points"]["n"] for name, fitted in fits.items()} == dict.fromkeys(names, 3)
    for name in names:
        assert (tmp_path / "results/smoke/arms" / name / "fit.json").is_file()
        assert list((tmp_path / "results/smoke/arms" / name / "figures").glob("*.png"))
    plan = document("plan", *few, arms, f"data_dir={data_dir}", cwd=tmp_path, call=forked)
    assert {run["arm"] for run in plan["runs"]} == set(names)
    assert {run["status"] for run in plan["runs"]} == {"cached"}
    same = forked("plan", *SMALL, "arms={launch.n_workers:[1,2]}", f"data_dir={data_dir}", cwd=tmp_path)
    assert same.returncode == 0  # a plan spends nothing
    refused = forked("run", *SMALL, "arms={launch.n_workers:[1,2]}", f"data_dir={data_dir}", cwd=tmp_path)
    assert refused.returncode == 2
    assert "are the same runs" in refused.stderr


def test_a_damaged_result_is_excluded(finished, tmp_path):
    shutil.copytree(finished[0] / "results", tmp_path / "results")
    victim = sorted(results(tmp_path))[0]
    victim.write_text(victim.read_text()[:100])
    fitted = document("fit", "results/smoke", "fit.n_bootstrap=20", cwd=tmp_path, call=forked)
    assert fitted["points"]["n"] == 11
    assert [point["run_key"] for point in fitted["points"]["excluded"]] == [victim.parent.name]


def test_a_stop_while_data_is_prepared_interrupts(tmp_path):
    experiment = compose_experiment([*SMALL, f"data_dir={tmp_path / 'data'}", f"results_dir={tmp_path}"])
    with pytest.raises(Interrupted, match="stopped while data was prepared") as stopped:
        study.run_experiment(experiment, should_stop=lambda: True)
    assert stopped.value.exit_code == 75
    assert not (tmp_path / "smoke").exists()


def test_a_plan_whose_runs_cannot_train_is_refused(tmp_path):
    asked = ["experiment=smoke", f"results_dir={tmp_path}", f"data_dir={tmp_path}", "trainer.n_devices=2"]
    with pytest.raises(InputError, match=r"needs it whole: choose parallel=ddp"):
        plan_experiment(
            compose_experiment([*asked, "optimizer=muon", "trainer.parallel=fsdp", "batch_tokens=512"])
        )


def test_a_launcher_that_cannot_work_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    settings = [*SMALL, f"data_dir={tmp_path / 'data'}", f"results_dir={tmp_path / 'results'}"]
    with pytest.raises(InputError, match="launch=slurm needs sbatch"):
        study.run_experiment(compose_experiment([*settings, "launch=slurm"]))
    refusal = SafetyError if importlib.util.find_spec("ray") else InputError
    with pytest.raises(refusal):
        study.run_experiment(compose_experiment([*settings, "launch=ray", "launch.address=head:6379"]))
    assert not (tmp_path / "results").exists()
    assert not list((tmp_path / "data").glob("*/manifest.json"))


def test_a_plan_that_cannot_be_spread_over_its_devices_is_refused_before_it_is_shown(tmp_path):
    settings = [
        *SMALL,
        "batch_tokens=64",
        f"data_dir={tmp_path / 'data'}",
        f"results_dir={tmp_path}",
        "trainer.n_devices=2",
    ]
    with pytest.raises(InputError, match=r"trainer\.n_devices=2 is more than the 1 sequences"):
        plan_experiment(compose_experiment(settings))


def test_cells_that_the_size_of_the_corpus_drops_are_named(tmp_path, data_dir):
    experiment = compose_experiment([*LEAST, f"results_dir={tmp_path}", f"data_dir={data_dir}"])
    plan = plan_experiment(experiment)
    smaller = replace(plan, dropped=(*plan.dropped, DroppedCell(name="5e8-d24-L2", reason="5 epochs")))
    plans, said = iter([plan, smaller]), []

    def stop(_):
        raise Interrupted("before training")

    with pytest.raises(Interrupted):
        study.run_plans(
            [experiment],
            lambda arms: [next(plans)],
            tmp_path / "smoke",
            on_notice=said.append,
            before_training=stop,
        )
    assert said == ["dropped 5e8-d24-L2: 5 epochs"]
