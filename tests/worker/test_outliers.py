"""Runs that are stopped while they train because their curve leaves the band of the finished ones."""

from dataclasses import replace

import numpy as np

from sweep.errors import Interrupted, Outlier
from sweep.launch.process import StopFlag
from sweep.records import CurvePoint
from sweep.report.text.status import status_text
from sweep.store.run_store import RunStore
from sweep.study.departures import departure_warnings
from sweep.worker.__main__ import main, work
from sweep.worker.outliers import OutlierWatch
from tests.toy_trainer import result, toy_plan

N_RUNS, N_STEPS, BAD = 14, 100, "run-12"


def sweep(directory, *, stop_outliers):
    plan = toy_plan(N_RUNS, N_STEPS)
    trainer = replace(plan.experiment.trainer, stop_outliers=stop_outliers)
    store = RunStore(directory)
    store.add_plan(replace(plan, experiment=replace(plan.experiment, trainer=trainer)))
    return store


def losses(run):
    x = np.arange(1, run.n_steps + 1) / run.n_steps
    loss = (2 + x**-0.3) * np.exp(np.random.default_rng(run.seed).normal(0, 0.005, run.n_steps))
    return loss * np.where(x > 0.4, 1.1, 1.0) if run.name == BAD else loss


def records(run):
    steps = enumerate(losses(run).tolist(), start=1)
    return [CurvePoint(step=s, n_tokens=s, flops=s, train_loss=loss, lr=0.1) for s, loss in steps]


def train(run, placement, session):
    for record in records(run):
        session.progress(record.step)
        session.log({"step": record.step, "train_loss": record.train_loss})
        if session.should_stop():
            raise Interrupted(f"stopped at step {record.step}")
    return result(run, curve=tuple(records(run)))


def test_a_run_above_the_band_of_the_finished_ones_is_stopped_and_not_tried_again(tmp_path):
    store, _ = finished(tmp_path)
    sweep(tmp_path, stop_outliers=True)
    summary = work(tmp_path, train=train)
    assert (summary.n_done, summary.n_failed) == (0, 1)
    status = store.status()
    assert status.finished
    shown = next(run for run in status.runs if run.name == BAD)
    assert shown.status == "failed:outlier"
    assert 0.4 * N_STEPS < shown.step < 0.7 * N_STEPS
    assert "left the band of its peers at step" in shown.reason
    assert "trainer.stop_outliers=false keeps it" in shown.reason
    assert main([str(tmp_path)], train=train) == 1
    assert len(store.points().points) == N_RUNS - 1
    (warning,) = departure_warnings(tmp_path)
    assert warning == f"1 run was stopped and not fitted: {BAD} ({shown.reason})"
    text = "".join(str(line) for line in status_text(status).renderables)
    assert "last lines of its log" not in text


def test_by_default_no_run_is_stopped(tmp_path):
    store = sweep(tmp_path, stop_outliers=False)
    assert work(tmp_path, train=train).n_done == N_RUNS
    assert store.status().counts == {"done": N_RUNS}


def finished(tmp_path):
    """A sweep without a result of the bad run, and its config."""
    store, stop = sweep(tmp_path, stop_outliers=False), StopFlag()

    def all_but_bad(run, placement, session):
        if run.name != BAD:
            return train(run, placement, session)
        if len(store.points().points) == N_RUNS - 1:
            stop.set("all others are done")
        raise Interrupted("left for later")

    work(tmp_path, train=all_but_bad, stop=stop)
    key = next(entry.run_key for entry in store.entries() if entry.name == BAD)
    return store, store.run_config(key)


def stopped_at(watch, curve):
    for record in curve:
        try:
            watch.check({"step": record.step, "train_loss": record.train_loss})
        except Outlier:
            return record.step
    return None


def test_a_resumed_run_is_judged_by_what_it_trains_now(tmp_path):
    store, run = finished(tmp_path)
    whole = stopped_at(OutlierWatch(store, run), records(run))
    resumed = stopped_at(OutlierWatch(store, run), records(run)[30:])
    assert whole is not None
    assert resumed is not None
    # found later: a shorter curve shows the noise of its run less well
    assert 0.4 * N_STEPS < whole <= resumed <= 0.65 * N_STEPS
    good = replace(run, name="good")
    assert stopped_at(OutlierWatch(store, run), records(good)) is None
    watch = OutlierWatch(store, run)
    watch.check({"event": "resumed", "step": 5})
    watch.check({"step": 6, "train_loss": None})


def test_results_that_cannot_be_read_stop_no_run(tmp_path, monkeypatch):
    store, run = finished(tmp_path)

    def unreadable():
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(store, "points", unreadable)
    assert stopped_at(OutlierWatch(store, run), records(run)) is None
