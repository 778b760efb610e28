"""Guarantees of one worker process: failures, retries, preemption, clock, heartbeat."""

import datetime
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sweep.errors import DataError, Interrupted, Outlier
from sweep.launch.process import StopFlag
from sweep.store.attempts.attempts import read_attempts
from sweep.store.files import read_records
from sweep.worker import __main__ as worker
from sweep.worker.__main__ import main, work
from sweep.worker.placement import placement
from tests.toy_trainer import result, science, toy_plan, toy_sweep, train

REPOSITORY = Path(__file__).parents[2]


def run_dir(store, index=0):
    keys = {entry.name: entry.run_key for entry in store.entries()}
    return store.sweep_dir / "runs" / keys[f"run-{index}"]


def states(store, index=0):
    return [attempt.state for attempt in read_attempts(run_dir(store, index))]


def raising(error, name="run-0"):
    def broken(run, placement, session):
        if run.name == name:
            raise error
        return train(run, placement, session)

    return broken


class OutOfMemoryError(RuntimeError):
    """Stand-in with the name of torch's error."""


def _wrapped_full_disk():
    error = RuntimeError("checkpoint")
    error.__cause__ = OSError(122, "Disk quota exceeded")
    return error


def _full_disk_beside():
    error = OSError(28, "No space left on device")
    error.__context__ = MemoryError()
    return error


def _broken_capture():
    """CUDA's error for a graph capture that failed because memory ran out."""
    error = RuntimeError("CUDA error: operation failed due to a previous error during capture")
    error.__context__ = OutOfMemoryError("CUDA out of memory")
    return error


@pytest.mark.parametrize(
    ("error", "state", "n_attempts"),
    [
        (ValueError("a bug"), "failed:code", 3),
        (SystemExit(0), "failed:code", 3),
        (FileNotFoundError(2, "no such file"), "failed:code", 3),
        (MemoryError(), "failed:oom", 1),
        (OutOfMemoryError("CUDA out of memory"), "failed:oom", 1),
        (RuntimeError("CUDA error: out of memory"), "failed:oom", 1),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), "failed:oom", 1),
        (_broken_capture(), "failed:oom", 1),
        (_full_disk_beside(), "failed:disk", 1),
        (OSError(12, "Cannot allocate memory"), "failed:oom", 1),
        (ValueError("out of memory"), "failed:code", 3),
        (OSError(28, "No space left on device"), "failed:disk", 1),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "failed:disk", 1),
        (_wrapped_full_disk(), "failed:disk", 1),
        (DataError("the shard is truncated"), "failed:data", 1),
        (Outlier("mis-tuned"), "failed:outlier", 1),
    ],
)
def test_a_failing_run_ends_by_its_class_and_the_others_finish(tmp_path, error, state, n_attempts):
    store = toy_sweep(tmp_path, 3, max_failures=3)
    summary = work(tmp_path, train=raising(error))
    assert (summary.n_done, summary.n_failed, summary.interrupted) == (2, n_attempts, False)
    assert states(store) == [state] * n_attempts
    shown = {run.name: run for run in store.status().runs}["run-0"]
    assert (shown.status, shown.finished, shown.attempts) == (state, True, n_attempts)
    assert type(error).__name__ in shown.reason
    assert "\n" not in shown.reason
    assert "Traceback" in (run_dir(store) / "attempts" / "1" / "error.txt").read_text()
    assert store.status().n_failed == 1
    assert main([str(tmp_path)], train=train) == 1


def test_a_pardoned_run_is_taken_up_again(tmp_path):
    store = toy_sweep(tmp_path, 1)
    work(tmp_path, train=raising(MemoryError()))
    assert work(tmp_path, train=train).n_done == 0
    store.retry(toy_plan(1).runs[0].run_key)
    assert work(tmp_path, train=train).n_done == 1
    assert main([str(tmp_path)], train=train) == 0


def test_a_result_that_is_not_finite_is_a_failure(tmp_path):
    store = toy_sweep(tmp_path, 1, max_failures=1)
    work(tmp_path, train=lambda run, placement, session: result(run, loss=float("nan")))
    assert states(store) == ["failed:code"]
    assert store.points().points == ()
    assert "loss=nan" in store.status().runs[0].reason


def test_a_live_queue_takes_up_what_was_pardoned_once_the_plan_is_written_again(tmp_path):
    plan = toy_plan(1, max_failures=1)
    store = toy_sweep(tmp_path, 1, max_failures=1)
    queue = store.queue("worker")
    _, attempt = queue.claim()
    attempt.end("failed:code", "a bug", 0)
    assert queue.claim() is None
    assert queue.finished
    store.retry(plan.runs[0].run_key)
    store.add_plan(plan)
    assert queue.claim() is not None


def test_twenty_preemptions_in_a_row_cost_no_retry_and_change_no_result(tmp_path):
    calm = toy_sweep(tmp_path / "calm", 1, n_steps=30)
    work(tmp_path / "calm", train=train)
    store = toy_sweep(tmp_path / "stormy", 1, n_steps=30, max_failures=1)
    for _ in range(20):
        stop = StopFlag()

        def train_one_step(run, placement, session, stop=stop):
            stop.set("preempted by the test")
            return train(run, placement, session)

        summary = work(tmp_path / "stormy", train=train_one_step, stop=stop)
        assert (summary.n_preempted, summary.interrupted) == (1, True)
        assert len(list(run_dir(store).glob("attempts/*/checkpoint"))) == 1
    assert store.status().runs[0].status == "preempted"
    work(tmp_path / "stormy", train=train)
    assert states(store) == ["preempted"] * 20 + ["done"]
    assert science(store) == science(calm)
    assert list(run_dir(store).glob("attempts/*/checkpoint")) == []  # nobody needs them any more


def test_a_cancelled_sweep_stops_with_its_state_saved_and_goes_on_when_cleared(tmp_path, monkeypatch):
    store = toy_sweep(tmp_path, 2, n_steps=150, lease_s=1)
    monkeypatch.setenv("TOY_STEP_S", "0.005")
    timer = threading.Timer(0.3, store.cancel)
    timer.start()
    assert main([str(tmp_path)], train=train) == 75
    timer.join()
    status = store.status()
    assert (status.cancelled, status.counts) == (True, {"planned": 1, "preempted": 1})
    assert 0 < max(run.step for run in status.runs) < 150
    assert work(tmp_path, train=train).n_done == 0
    store.clear_cancel()
    monkeypatch.setenv("TOY_STEP_S", "0")
    assert main([str(tmp_path)], train=train) == 0


def test_a_wall_clock_set_back_makes_no_duration_negative(tmp_path, monkeypatch):
    class Backwards(datetime.datetime):
        hours = 0

        @classmethod
        def now(cls, tz=None):
            cls.hours += 1
            return datetime.datetime(2026, 1, 2, tzinfo=tz) - datetime.timedelta(hours=cls.hours)

    monkeypatch.setattr(worker, "datetime", Backwards)
    store = toy_sweep(tmp_path, 2)
    work(tmp_path, train=train)
    for point in store.points().points:
        assert point.started_at <= point.finished_at


def test_a_silent_run_is_given_up_and_its_late_result_discarded(tmp_path):
    store = toy_sweep(tmp_path, 1, lease_s=1, stall_s=1, max_failures=1)
    stuck = threading.Event()

    def hang(run, placement, session):
        assert stuck.wait(20)
        return result(run)

    summary = work(tmp_path, train=hang, on_stuck=stuck.set)
    assert (summary.n_lost, summary.n_done) == (1, 0)
    assert states(store) == ["failed:host"]
    assert "no step for 1 s" in store.status().runs[0].reason
    assert not (run_dir(store) / "result.json").exists()


def test_a_worker_that_cannot_beat_counts_itself_out_before_others_may_take_over(tmp_path, monkeypatch):
    store = toy_sweep(tmp_path, 1, lease_s=2)
    attempts = []

    def long(run, placement, session):
        attempts.append(session)
        if len(attempts) > 1:
            return train(run, placement, session)
        monkeypatch.setattr(
            "sweep.store.attempts.active.ActiveAttempt.beat",
            lambda *_: (_ for _ in ()).throw(OSError(5, "EIO")),
        )
        started = time.monotonic()
        while not session.should_stop():
            session.progress(1)
            time.sleep(0.01)
        assert time.monotonic() - started < 2
        monkeypatch.undo()
        raise Interrupted("lost")

    summary = work(tmp_path, train=long)
    assert (summary.n_lost, summary.n_done) == (1, 1)
    assert states(store) == ["lost", "done"]


def test_metrics_of_a_run_are_readable(tmp_path):
    store = toy_sweep(tmp_path, 1)
    work(tmp_path, train=train)
    records = list(read_records(run_dir(store) / "attempts" / "1" / "metrics.jsonl"))
    assert [record["step"] for record in records] == list(range(1, 13))
    assert records[0]["train_loss"] is None


def test_a_plan_added_meanwhile_is_trained_too(tmp_path):
    store = toy_sweep(tmp_path, 1)

    def add(run, placement, session):
        if run.name == "run-0":
            store.add_plan(toy_plan(3, name="more"))
        return train(run, placement, session)

    assert work(tmp_path, train=add).n_done == 3


def test_the_launcher_overrules_the_plan_on_where_a_run_goes(tmp_path, monkeypatch):
    for name in ("SWEEP_DEVICE", "SWEEP_DATA_DIR", "SWEEP_N_THREADS"):
        monkeypatch.delenv(name, raising=False)
    entry = toy_sweep(tmp_path, 1).entries()[0]
    assert (placement(entry).device, placement(entry).n_threads) == ("cpu", 1)
    assert str(placement(entry).data_dir) == "unused"
    monkeypatch.setenv("SWEEP_DEVICE", "cuda:0")
    monkeypatch.setenv("SWEEP_N_THREADS", "5")
    monkeypatch.setenv("SWEEP_DATA_DIR", "/elsewhere")
    assert (placement(entry).device, placement(entry).n_threads) == ("cuda:0", 5)
    assert str(placement(entry).data_dir) == "/elsewhere"


@pytest.mark.parametrize("argv", [[], ["a", "b"], ["--help"]])
def test_bad_usage_and_bad_directories_exit_2(argv, tmp_path, capsys):
    assert main(argv, train=train) == 2
    assert main([str(tmp_path)], train=train) == 2
    assert "holds no sweep" in capsys.readouterr().err


def test_a_worker_that_does_not_see_the_data_refuses_and_fails_no_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SWEEP_DATA_DIR", str(tmp_path / "of-another-machine"))
    store = toy_sweep(tmp_path / "sweep", 2)
    assert main([str(store.sweep_dir)]) == 2
    assert f"{tmp_path / 'of-another-machine'} on " in capsys.readouterr().err
    assert store.status().counts == {"planned": 2}


def test_no_torch_is_loaded_for_a_train_function_of_ones_own():
    code = "import sys, tests.toy_trainer; print('torch' in sys.modules or 'hydra' in sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert out.stdout.strip() == "False"
