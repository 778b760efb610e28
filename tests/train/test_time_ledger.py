"""The time ledger: every second is counted exactly once, across attempts too."""

import itertools

import pytest

from sweep.errors import Interrupted
from sweep.train.checkpoint import load_latest
from sweep.train.loop import train
from sweep.train.time_ledger import ACTIVITIES, TimeLedger
from tests.train.sessions import Session, placement, run_on


def test_every_second_is_counted_once():
    clock = itertools.count()
    ledger = TimeLedger(
        clock=lambda: float(next(clock))
    )  # made at 0; each reading of the clock takes a second
    with ledger.track("train"):  # 1
        with ledger.track("checkpoint"):  # 2, left at 3
            pass
        with ledger.track("checkpoint"):  # 4, left at 5
            pass
    seconds = ledger.seconds()  # left at 6, asked at 7
    assert seconds == {
        "start_up": 2.0, "compile": 0.0, "train": 3.0, "evaluate": 0.0, "checkpoint": 2.0, "idle": 0.0,
    }  # fmt: skip
    assert sum(seconds.values()) == 7


def test_an_error_closes_what_it_leaves():
    clock = itertools.count()
    ledger = TimeLedger(clock=lambda: float(next(clock)))
    with pytest.raises(ZeroDivisionError), ledger.track("train"):
        raise ZeroDivisionError
    assert (ledger.seconds()["train"], ledger.seconds()["start_up"]) == (1.0, 3.0)


def test_moving_keeps_the_sum_and_takes_no_more_than_there_is():
    clock = itertools.count()
    ledger = TimeLedger(clock=lambda: float(next(clock)))
    ledger.inherit({"train": 10.0, "unknown": 5.0})
    ledger.move("train", "compile", 4.0)
    ledger.move("train", "compile", 40.0)
    seconds = ledger.seconds()
    assert (seconds["train"], seconds["compile"]) == (0.0, 10.0)
    assert sum(seconds.values()) == 10 + 3


def test_a_runs_ledger_sums_to_its_wall_time_across_attempts(corpus, tmp_path):
    run = run_on(corpus)
    with pytest.raises(Interrupted):
        train(run, placement(corpus), Session(tmp_path, stop_after=30))
    inherited = load_latest(tmp_path).values["ledger"]
    result = train(run, placement(corpus), Session(tmp_path))
    assert tuple(result.ledger) == ACTIVITIES
    assert sum(result.ledger.values()) == pytest.approx(result.wall_time_s, rel=1e-9)
    assert all(result.ledger[activity] >= inherited[activity] for activity in ACTIVITIES)
    assert result.ledger["train"] > inherited["train"] > 0
    assert result.ledger["evaluate"] > 0 == inherited["evaluate"] == result.ledger["compile"]
    assert result.tokens_per_second == pytest.approx(run.n_tokens / result.ledger["train"])
