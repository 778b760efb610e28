"""The estimated time left of a sweep, by hand for a few runs."""

import itertools

import pytest

from sweep.store.status import RunStatus, SweepStatus
from sweep.store.throughput import throughput

KEYS = itertools.count()


def run(status, flops, done=0.0, rate=None, time_s=0.0):
    return RunStatus(
        run_key=f"{next(KEYS):016x}",
        name="run",
        status=status,
        attempts=1,
        reason=None,
        finished=status == "done",
        excluded=None,
        flops=flops,
        flops_done=done,
        step=0,
        n_steps=1,
        flops_per_second=rate,
        loss=None,
        log_tail=(),
        time_s=time_s,
    )


def eta(*runs, n_workers=0):
    return SweepStatus(runs=runs, cancelled=False, throughput=throughput(()), n_workers=n_workers).eta_s


@pytest.mark.parametrize(
    ("runs", "seconds"),
    [
        ([run("running", 100, 40.0, 2.0), run("planned", 60)], 60),  # (60 + 60) / 2
        ([run("running", 100, 50.0, 2.0), run("running", 100, 50.0, 2.0), run("planned", 200)], 125),
        ([run("running", 100, 20.0, 1.0), run("running", 100, 95.0, 9.5)], 80),  # the slow one alone
        ([run("done", 10, 10.0, 4.0), run("running", 80)], 20),  # not measured yet: as fast as finished runs
        ([run("running", 80)], None),
        ([run("done", 10, 10.0, 4.0)], 0),
    ],
)
def test_the_time_left_by_rates_alone(runs, seconds):
    assert eta(*runs) == (seconds if seconds is None else pytest.approx(seconds))


def test_the_plan_gives_the_time_left_before_a_run_is_measured():
    runs = [
        run("planned", 400, time_s=40.0),
        run("planned", 300, time_s=40.0),
        run("planned", 100, time_s=20),
    ]
    assert eta(*runs) is None  # no worker
    assert eta(*runs, n_workers=2) == 60
    started = [run("running", 400, time_s=40.0), run("running", 300, time_s=40.0), runs[-1]]
    assert eta(*started) == 60


def test_the_time_left_moves_from_the_plan_to_the_measured_pace():
    def half_as_fast(seconds):
        done = 10.0 * seconds / 2 / 10.0  # of 1000 FLOPs planned for 1000 s
        return eta(run("running", 1000, done, done / seconds, time_s=1000.0)) / (1000.0 - done)

    paces = [half_as_fast(seconds) for seconds in (1, 10, 100, 1000)]
    assert 1.0 < paces[0] < 1.2
    assert paces == sorted(paces)
    assert paces[-1] == pytest.approx(2.0, rel=0.02)
