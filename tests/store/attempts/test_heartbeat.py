"""Half a lease after its last written heartbeat, the holder of an attempt gives it up."""

import pytest

from sweep.store.attempts import heartbeat
from sweep.store.attempts.heartbeat import Heartbeat


class FakeAttempt:
    run_key = "0" * 16

    def __init__(self):
        self.lost = None

    def mark_lost(self, reason):
        self.lost = reason


@pytest.mark.parametrize(("silent_s", "lost"), [(4.9, None), (5.1, "no heartbeat for 5 s")])
def test_an_attempt_is_held_for_half_a_lease_after_the_last_beat(monkeypatch, silent_s, lost):
    attempt = FakeAttempt()
    monkeypatch.setattr(heartbeat, "seconds_since_boot", lambda: 100.0)
    beats = Heartbeat(attempt, lease_s=10, stall_s=900)
    monkeypatch.setattr(heartbeat, "seconds_since_boot", lambda: 100.0 + silent_s)
    assert beats.holds() == (lost is None)
    assert attempt.lost == lost
