"""Expired attempts count as failures only without progress, and only after ten consecutive ones."""

from pathlib import Path

from sweep.store.attempts.attempts import LOST, Attempt, given_up


def expired(steps):
    return [
        Attempt(number=number, path=Path(), state=LOST, reason=None, step=step)
        for number, step in enumerate(steps, 1)
    ]


def test_a_run_that_never_gets_further_is_given_up():
    assert given_up(expired([5] * 13), 3, 0) is None  # the first one made progress
    assert given_up(expired([5] * 14), 3, 0) == (
        "failed:host",
        "13 consecutive attempts expired without progress",
    )
    assert given_up(expired([5] * 14), 3, 4) is None  # four of them were before a retry


def test_a_run_that_gets_further_is_tried_again():
    assert given_up(expired(range(1, 40)), 3, 0) is None
    assert given_up(expired([5] * 12 + [6] + [6] * 12), 3, 0) is None
