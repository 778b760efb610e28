"""Wrong or backward wall clocks expire no lease and make no duration negative."""

import datetime
import os
import time

import pytest

from sweep.launch.process import hold_stop_signals
from sweep.store import plans
from sweep.store.attempts import claims
from sweep.store.attempts.attempts import read_attempts
from sweep.worker import __main__ as worker
from tests import toy_trainer
from tests.faults.processes import start
from tests.toy_trainer import science, toy_sweep, train

HOUR_S = 3600.0


def skewed(offset_s, pace):
    """A datetime class and a time function of a clock with an offset and another pace."""
    true_time, began = time.time, time.time()

    def now_s():
        return began + offset_s + pace * (true_time() - began)

    class Skewed(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.datetime.fromtimestamp(now_s(), tz)

    return Skewed, now_s


def _work(sweep_dir, offset_s, pace):
    clock, now_s = skewed(offset_s, pace)
    for module in (worker, claims, plans):
        module.datetime = clock
    time.time = now_s
    os.environ["TOY_STEP_S"] = "0.05"
    hold_stop_signals()
    os._exit(worker.main([str(sweep_dir)], train=toy_trainer.train))


@pytest.mark.ci
def test_workers_with_different_clocks_share_a_sweep(tmp_path, measured):
    """An hour ahead, an hour behind, and backwards at a thousand times the pace; leases last a second."""
    calm = toy_sweep(tmp_path / "calm", 6, n_steps=40)
    worker.work(tmp_path / "calm", train=train)
    store = toy_sweep(tmp_path / "sweep", 6, n_steps=40, lease_s=1)
    clocks = [(HOUR_S, 1.0), (-HOUR_S, 1.0), (0.0, -1000.0)]
    processes = [start(_work, store.sweep_dir, *clock) for clock in clocks]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert science(store) == science(calm)
    for run_dir in (store.sweep_dir / "runs").iterdir():
        assert [attempt.state for attempt in read_attempts(run_dir)] == ["done"]  # no lease expired
    for point in store.points().points:
        assert point.wall_time_s >= 0
        assert point.started_at <= point.finished_at
    starts = [point.started_at for point in store.points().points]
    skew = datetime.datetime.fromisoformat(max(starts)) - datetime.datetime.fromisoformat(min(starts))
    assert skew > datetime.timedelta(hours=1.5)  # the clocks did disagree
    measured("clock + and - 1 h, backwards", "0 false expiries, 0 negative durations of 6 runs")
