"""SLURM launcher with a fake SLURM: submission, deadlines, requeues, second launchers, silent controllers."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweep.config import SlurmLaunch
from sweep.errors import InputError
from sweep.launch import slurm, slurm_job
from sweep.launch.choose import detach
from sweep.launch.slurm import SlurmLauncher
from sweep.launch.spec import LaunchSpec
from sweep.store.run_store import RunStore
from tests.faults.processes import wait_until
from tests.launch import fake_slurm
from tests.launch.contract import leave_nothing_running, run_to_end, toy_command, undisturbed
from tests.toy_trainer import science, toy_plan

LAUNCH = SlurmLaunch(name="slurm", n_workers=1, lease_s=120, stall_s=900, max_failures=3)


@pytest.fixture(autouse=True)
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    tools = fake_slurm.install(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "POLL_S", 0.1)
    yield tools
    leave_nothing_running(tmp_path)


def spec(store: RunStore, **values: Any) -> LaunchSpec:
    return LaunchSpec(sweep_dir=str(store.sweep_dir.absolute()), device="cpu", **values)


def make(store: RunStore, launch: SlurmLaunch = LAUNCH, **toy: object) -> SlurmLauncher:
    command = toy_command(store.sweep_dir, **toy)
    return SlurmLauncher(launch, spec(store, command=tuple(command)))


def sweep(directory: Path, n_runs: int = 1, n_steps: int = 12) -> RunStore:
    plan = toy_plan(n_runs, n_steps)
    store = RunStore(directory)
    store.add_plan(replace(plan, experiment=replace(plan.experiment, launch=LAUNCH)))
    return store


def test_sbatch_gets_every_option_as_one_argument_and_a_named_environment(
    tmp_path: Path, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    monkeypatch.setenv("WANDB_API_KEY", "canary")
    launch = replace(
        LAUNCH,
        partition="gpu; touch owned",
        account="me",
        gres="gpu:1",
        time="01:00:00",
        constraint="a|b",
        cpus_per_worker=3,
        mem="2G",
        options={"qos": "high", "exclusive": True, "reservation": False, "gpus": 1, "nice": 0},
        export=("WANDB_API_KEY", "NOT_SET"),
    )
    store = sweep(tmp_path / "my sweep")
    run_to_end(make(store, launch))
    *options, script = fake_slurm.submissions(tools)[0]
    for option in (
        "--partition=gpu; touch owned",
        "--account=me",
        "--gres=gpu:1",
        "--gpus=1",
        "--nice=0",
        "--ntasks=1",
        "--time=01:00:00",
        "--constraint=a|b",
        "--cpus-per-task=3",
        "--mem=2G",
        "--qos=high",
        "--exclusive",
        "--array=0-0",
        "--requeue",
        "--signal=B:USR1@120",
    ):
        assert option in options
    assert not [option for option in options if "reservation" in option or "canary" in option]
    exported = next(option for option in options if option.startswith("--export=")).partition("=")[2]
    assert {"PATH", "WANDB_API_KEY"} <= set(exported.split(","))
    assert not {"ALL", "AWS_SECRET_ACCESS_KEY", "NOT_SET"} & set(exported.split(","))
    text = Path(script).read_text()
    assert "canary" not in text
    assert "#SBATCH" not in text
    assert stat.S_IMODE(Path(script).stat().st_mode) == 0o600
    assert store.status().counts == {"done": 1}


@pytest.mark.long
def test_a_job_at_its_time_limit_saves_requeues_and_goes_on(tmp_path: Path) -> None:
    """Jobs of five seconds: several of them finish one run without losing a step."""
    launch = replace(LAUNCH, time="00:00:08", signal_s=3, min_claim_s=0.5)
    store = sweep(tmp_path / "sweep", n_steps=150)
    state = run_to_end(make(store, launch, TOY_STEP_S=0.05))
    assert (state.stopped, state.gave_up) == (False, None)
    assert science(store) == undisturbed(tmp_path, 1, n_steps=150)
    (run_dir,) = (store.sweep_dir / "runs").iterdir()
    assert len(list(run_dir.glob("attempts/*"))) >= 2
    log = next((store.sweep_dir / "logs").glob("slurm-*.log")).read_text().splitlines()
    assert "requeued 1_0" in log
    assert not [line for line in log if line.startswith("not requeued")], log


@pytest.fixture
def busy_controller(tools: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scontrol that succeeds the third time; returns the file in which it records its arguments."""
    asked = tools / "asked"
    (tools / "scontrol").write_text(
        f'#!/bin/sh\necho "$@" >> {asked}\n'
        f"[ $(wc -l < {asked}) -ge 3 ] || {{ echo timed out >&2; exit 1; }}\n"
    )
    monkeypatch.setattr(slurm_job, "REQUEUE_PAUSE_S", 0.01)
    return asked


JOB = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1"}


def test_a_requeue_that_the_controller_did_not_answer_is_asked_for_again(
    busy_controller: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert slurm_job.requeue(JOB, lambda: True)
    assert busy_controller.read_text() == "requeue 7_1\n" * 3
    busy_controller.unlink()
    monkeypatch.setattr(slurm_job, "REQUEUE_PATIENCE_S", 0)
    assert not slurm_job.requeue(JOB, lambda: True)
    assert "not requeued: timed out" in capfd.readouterr().err


def test_a_job_that_slurm_ends_meanwhile_asks_no_more(busy_controller: Path) -> None:
    assert not slurm_job.requeue(JOB, lambda: not busy_controller.exists())
    assert busy_controller.read_text() == "requeue 7_1\n"


def test_a_warning_that_comes_before_a_job_has_started_does_not_end_it(
    tmp_path: Path, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tools / "sbatch").write_text("#!/bin/sh\necho 1\n")
    interpreter = tmp_path / "interpreter"
    interpreter.write_text("#!/bin/sh\nkill -USR1 $$\nexit 7\n")
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    store = sweep(tmp_path / "sweep")
    make(store).start()
    assert subprocess.run(["sh", store.sweep_dir / "slurm.sh"], timeout=20).returncode == 7


def test_a_limit_that_leaves_no_time_to_train_is_refused_by_the_job(tmp_path: Path) -> None:
    store = sweep(tmp_path / "sweep")
    state = run_to_end(make(store, replace(LAUNCH, time="00:02:00", signal_s=110, min_claim_s=60)))
    assert "ended with 1 runs left" in str(state.gave_up)
    assert "raise launch.time" in next((store.sweep_dir / "logs").glob("slurm-*.log")).read_text()


def test_a_second_launcher_finds_the_jobs_of_the_first(tmp_path: Path, tools: Path) -> None:
    store = sweep(tmp_path / "sweep", n_steps=2000)
    make(store, TOY_STEP_S=0.01).start()
    again = make(store, replace(LAUNCH, n_workers=2), TOY_STEP_S=0.01)
    again.start()
    arrays = [
        [word for word in words if word.startswith("--array")] for words in fake_slurm.submissions(tools)
    ]
    assert arrays == [["--array=0-0"], ["--array=0-0"]]  # one each: the second was missing one of two
    assert again.wait(0).n_running == 2
    again.stop()
    assert again.wait(30).n_running == 0


def test_jobs_of_a_retry_group_are_counted_separately(tmp_path: Path, tools: Path) -> None:
    store = sweep(tmp_path / "sweep", n_steps=2000)
    everything = make(store, TOY_STEP_S=0.01)
    everything.start()
    store.retry(store.entries()[0].run_key, "again")
    limited = SlurmLauncher(LAUNCH, replace(spec(store), retry_group="again"))
    limited.start()
    assert len(fake_slurm.submissions(tools)) == 2
    limited.stop()
    assert limited.wait(30).n_running == 0
    assert everything.wait(0).n_running == 1
    everything.stop()
    assert everything.wait(30).n_running == 0


@pytest.mark.ci
def test_detached_it_returns_at_once_and_the_jobs_go_on(tmp_path: Path) -> None:
    store = sweep(tmp_path / "sweep", n_steps=50)
    command = toy_command(store.sweep_dir, TOY_STEP_S=0.02)
    detach(LAUNCH, spec(store, command=tuple(command)))
    assert not store.status().finished
    wait_until(lambda: store.status().finished)


def test_jobs_count_as_running_while_the_controller_is_silent(tmp_path: Path, tools: Path) -> None:
    store = sweep(tmp_path / "sweep", n_steps=50)
    launcher = make(store, TOY_STEP_S=0.01)
    launcher.start()
    (tools / "squeue").rename(tools / "away")
    (tools / "squeue").write_text("#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact' >&2; exit 1\n")
    (tools / "squeue").chmod(0o755)
    assert launcher.wait(0.3).n_running == 1
    (tools / "away").rename(tools / "squeue")
    assert launcher.wait(30).n_running == 0
    assert store.status().finished


HANGS = "#!/bin/sh\nsleep 60\n"


@pytest.mark.parametrize(
    ("tool", "sentence"),
    [
        ("squeue", "cannot be counted: squeue did not answer within 0.2 s: ask scontrol ping"),
        ("sbatch", "sbatch rejected the job: sbatch did not answer within 0.2 s: ask scontrol ping"),
    ],
)
def test_a_tool_that_hangs_is_one_sentence(
    tmp_path: Path, tools: Path, monkeypatch: pytest.MonkeyPatch, tool: str, sentence: str
) -> None:
    (tools / tool).write_text(HANGS)
    limit = "TOOL_TIMEOUT_S" if tool == "squeue" else "SUBMIT_TIMEOUT_S"
    monkeypatch.setattr(slurm, limit, 0.2)
    started = time.monotonic()
    with pytest.raises(InputError, match=sentence):
        make(sweep(tmp_path / "sweep")).start()
    assert time.monotonic() - started < 30


def test_stopping_does_not_wait_for_a_silent_controller(
    tmp_path: Path, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = make(sweep(tmp_path / "sweep"))
    (tools / "scancel").write_text(HANGS)
    monkeypatch.setattr(slurm, "TOOL_TIMEOUT_S", 0.2)
    started = time.monotonic()
    launcher.stop()
    launcher.kill()
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("reason", ["launch failed requeued held", "JobHeldAdmin", "BadConstraints"])
def test_held_jobs_end_the_wait(tmp_path: Path, tools: Path, reason: str) -> None:
    (tools / "squeue").write_text(f"#!/bin/sh\necho '7_0|PENDING|{reason}'\n")
    state = run_to_end(make(sweep(tmp_path / "sweep")))
    assert f"does not start job 7_0 ({reason})" in str(state.gave_up)


def test_a_machine_without_slurm_is_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="needs sbatch, squeue, scancel, scontrol, not found in PATH"):
        make(sweep(tmp_path / "sweep"))


def test_a_refused_submission_says_why(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"sbatch rejected the job: Batch job failed|invalid partition"):
        make(sweep(tmp_path / "sweep"), replace(LAUNCH, partition="none")).start()


def test_data_that_a_node_does_not_see_keeps_workers_from_starting(tmp_path: Path) -> None:
    store = sweep(tmp_path / "sweep")
    hidden = str(tmp_path / "node-local")
    launcher = SlurmLauncher(LAUNCH, spec(store, needs=(hidden,)))
    assert "ended with 1 runs left" in str(run_to_end(launcher).gave_up)
    assert f"{hidden} not found on" in next((store.sweep_dir / "logs").glob("slurm-*")).read_text()
    assert store.status().counts == {"planned": 1}


@pytest.mark.parametrize(("answer", "end"), [("1700000000", 1.7e9), ("N/A", None), ("", None)])
def test_the_end_of_a_job_is_asked_for_where_the_environment_lacks_it(
    tools: Path, answer: str, end: float | None
) -> None:
    (tools / "squeue").write_text(f"#!/bin/sh\ntest $SLURM_TIME_FORMAT = %s && echo '{answer}'\n")
    environ = {"PATH": os.environ["PATH"], "SLURM_JOB_ID": "7"}
    assert slurm_job.this_job(environ) == "7"
    assert slurm_job.job_end(environ) == end
    assert slurm_job.job_end(environ | {"SLURM_JOB_END_TIME": "1800000000"}) == 1.8e9


def test_a_member_of_an_array_is_not_taken_for_the_array() -> None:
    """The id of one member equals that of the array, with which SLURM reports all members."""
    environ = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1"}
    assert slurm_job.this_job(environ) == "7_1"


def test_the_deadline_of_the_worker_is_before_the_signal() -> None:
    end = int(time.time()) + 1000
    variables = slurm_job.deadline_variables({"SLURM_JOB_END_TIME": str(end)}, 120, 60)
    assert variables == {"SWEEP_DEADLINE": str(end - 120), "SWEEP_MIN_CLAIM_S": "60"}
