"""The estimated time left of a sweep, by hand for a few runs."""

import pytest

from sweep.store.status import RunStatus, SweepStatus
from sweep.store.throughput import throughput


def run(status, flops, done=0.0, rate=None):
    return RunStatus(
        run_key="0" * 16,
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
    )


@pytest.mark.parametrize(
    ("runs", "seconds"),
    [
        ([run("running", 100, 40.0, 2.0), run("planned", 60)], 60),  # (60 + 60) / 2
        ([run("running", 100, 0.0, 2.0), run("running", 100, 0.0, 2.0), run("planned", 200)], 100),
        (
            [run("running", 100, 0.0, 1.0), run("running", 100, 95.0, 9.0)],
            100,
        ),  # the slow one alone
        ([run("done", 10, 10.0, 4.0), run("running", 80)], 20),  # not measured yet: as fast as finished runs
        ([run("running", 80)], None),
        ([run("done", 10, 10.0, 4.0)], 0),
    ],
)
def test_the_time_left(runs, seconds):
    assert SweepStatus(runs=tuple(runs), cancelled=False, throughput=throughput(())).eta_s == seconds
