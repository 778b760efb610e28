"""Ends of runs: crash, hang, leak, divergence and preemption; finished runs are not trained again."""

import os
import re
import resource
import signal
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from sweep.launch.local import LocalLauncher
from sweep.store.attempts.attempts import read_attempts
from sweep.store.run_store import RunStore
from sweep.train.loop import train as real_train
from sweep.train.step import TrainingStep
from sweep.train.trainer import record_steps
from sweep.worker.__main__ import main, work
from tests import toy_trainer
from tests.faults.processes import start, start_worker, wait_until
from tests.plans import planned
from tests.toy_trainer import science, toy_plan, toy_sweep, train
from tests.train.corpus import prepared_corpus
from tests.train.sessions import run_on

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.ci
def test_runs_that_crash_hang_or_are_killed_end_as_failed_and_the_rest_finishes(
    tmp_path, monkeypatch, measured
):
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("TOY_FAULT", "segfault:run-0,hang:run-1,leak:run-2")
    store = toy_sweep(tmp_path, 6, n_workers=2, max_failures=2, lease_s=1, stall_s=1)
    launch = store.latest_experiment().launch
    command = [sys.executable, "-m", "tests.toy_trainer", str(tmp_path)]
    launcher = LocalLauncher(tmp_path, launch, device="cpu", command=command)
    launcher.start()
    try:
        state = launcher.wait(60)
    finally:
        launcher.kill()
        launcher.wait(5)
    assert (state.n_running, state.gave_up) == (0, None)
    shown = {run.name: run for run in store.status().runs}
    for name in ("run-0", "run-1", "run-2"):
        assert (shown[name].status, shown[name].attempts) == ("failed:host", 2)
    assert [shown[f"run-{index}"].status for index in (3, 4, 5)] == ["done"] * 3
    measured(
        "a run that segfaults, one that hangs, one killed", "each failed:host after 2 of 2 tries, 3 of 3 done"
    )


def leaking(run, placement, session):
    if run.name != "run-0":
        return train(run, placement, session)
    leak = []
    while True:
        leak.append(bytearray(2**24))


def _work_within(sweep_dir, n_more_bytes):
    limit = psutil.Process().memory_info().vms + n_more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    os._exit(main([str(sweep_dir)], train=leaking))


@pytest.mark.ci
def test_a_run_that_leaks_to_the_limit_ends_as_out_of_memory(tmp_path, measured):
    store = toy_sweep(tmp_path, 3)
    process = start(_work_within, tmp_path, 2**29)
    process.join(60)
    assert process.exitcode == 1
    shown = {run.name: run for run in store.status().runs}
    assert (shown["run-0"].status, shown["run-0"].attempts) == ("failed:oom", 1)
    assert store.status().counts == {"done": 2, "failed:oom": 1}
    measured("a run that leaks to a memory limit", "failed:oom after 1 try, 2 of 2 others done")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return prepared_corpus(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    ("spoil", "reason"), [(float("nan"), "training loss is nan"), (1e6, "is above 2 times its first record")]
)
def test_a_loss_that_is_lost_ends_the_run_within_a_log_interval(
    tmp_path, monkeypatch, corpus, measured, spoil, reason
):
    """From step 60 of 200 on the loss of one run is NaN, or a million times too large; another is sound."""
    monkeypatch.setenv("SWEEP_DATA_DIR", str(corpus.directory.parents[1]))
    base = run_on(corpus, n_tokens=256 * 200)
    runs = tuple(planned(replace(base, name=f"run-{seed}", seed=seed)) for seed in (0, 1))
    store = RunStore(tmp_path)
    store.add_plan(replace(toy_plan(1), runs=runs))
    began, whole = 60, TrainingStep._backward
    calls = []

    def spoilt(step, tokens):
        calls.append(None)
        factor = spoil if len(calls) > began else 1.0
        loss = whole(step, tokens) * factor
        for parameter in step.model.parameters():
            parameter.grad.mul_(factor)
        return loss

    def train_one_spoilt(run, placement, session):
        with monkeypatch.context() as patch:
            if run.seed == 0:
                patch.setattr(TrainingStep, "_backward", spoilt)
            return real_train(run, placement, session)

    assert work(tmp_path, train=train_one_spoilt).n_diverged == 1
    due = next(step for step in record_steps(200) if step > began)
    stored = store.points()
    assert {point.seed: point.status for point in stored.points} == {0: "diverged", 1: "done"}
    [excluded] = stored.excluded
    assert re.search(rf"diverged: training loss .*at step {due}\b", excluded.reason)
    assert reason in excluded.reason
    measured(
        f"loss x {spoil:g} from step {began + 1} of 200", f"diverged at step {due}, excluded with the reason"
    )


@pytest.mark.ci
def test_twenty_preempted_workers_use_no_retry(tmp_path, measured):
    calm = toy_sweep(tmp_path / "calm", 1, n_steps=600)
    work(calm.sweep_dir, train=train)
    store = toy_sweep(tmp_path / "sweep", 1, n_steps=600, max_failures=1)
    run_dir = next((store.sweep_dir / "runs").iterdir())
    for number in range(1, 21):
        worker = start_worker(store.sweep_dir, TOY_STEP_S="0.05")
        log = run_dir / "attempts" / str(number) / "metrics.jsonl"
        wait_until(log.exists)
        os.kill(worker.pid, (signal.SIGUSR1, signal.SIGTERM)[number % 2])
        worker.join(20)
        assert worker.exitcode == 75
    last = start_worker(store.sweep_dir)
    last.join(20)
    assert last.exitcode == 0
    assert [attempt.state for attempt in read_attempts(run_dir)] == ["preempted"] * 20 + ["done"]
    assert science(store) == science(calm)
    measured("20 preemptions in a row", "done at attempt 21 with max_failures=1, the same point")


def test_what_is_done_is_not_done_again(tmp_path, monkeypatch, measured):
    journal = tmp_path / "journal"
    monkeypatch.setenv("TOY_JOURNAL", str(journal))
    store = toy_sweep(tmp_path / "sweep", 5)
    arguments = [str(store.sweep_dir)]
    assert main(arguments, train=toy_trainer.train) == 0
    before, points = journal.read_text(), science(store)
    assert main(arguments, train=toy_trainer.train) == 0
    assert journal.read_text() == before
    victim = store.entries()[2]
    (store.sweep_dir / "runs" / victim.run_key / "result.json").unlink()
    assert main(arguments, train=toy_trainer.train) == 0
    assert journal.read_text() == before + f"{victim.name}\n"
    assert science(store) == points
    measured("finished sweep again; one result deleted", "0 trainings; 1 training")
