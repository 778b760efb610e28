"""Claims of free, live, ended and expired runs; no run is ever claimed twice."""

import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sweep.store.attempts import claims
from sweep.store.attempts.active import ActiveAttempt, AttemptLost
from sweep.store.attempts.attempts import read_attempts
from sweep.store.attempts.claims import Claimer, Verdict
from sweep.store.attempts.host import is_gone, this_process

LEASE = {"lease_s": 10.0, "max_failures": 3}


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def run_dir(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def take(run_dir, worker="w", clock=time.monotonic):
    held = Claimer(worker, clock).claim(run_dir, **LEASE)
    assert isinstance(held, ActiveAttempt)
    return held


def watch(claimer, clock, run_dir, seconds, every=1.0):
    """Try to claim regularly for some time; return the last outcome."""
    outcome = claimer.claim(run_dir, **LEASE)
    for _ in range(int(seconds / every)):
        clock.now += every
        outcome = claimer.claim(run_dir, **LEASE)
    return outcome


def test_a_free_run_is_taken_and_a_held_one_is_busy(run_dir):
    held = take(run_dir)
    assert (held.number, held.is_ours()) == (1, True)
    assert Claimer("other").claim(run_dir, **LEASE) is Verdict.BUSY


def test_an_ended_attempt_frees_the_run_and_a_result_finishes_it(run_dir):
    first = take(run_dir)
    first.end("preempted", None, 3)
    second = take(run_dir)
    assert second.number == 2
    second.commit({"loss": 1.0})
    assert Claimer("other").claim(run_dir, **LEASE) is Verdict.FINISHED


def test_a_beating_attempt_never_expires_and_a_silent_one_does(run_dir):
    held, clock = take(run_dir), Clock()
    other = Claimer("other", clock)
    for counter in range(1, 50):
        assert watch(other, clock, run_dir, 5) is Verdict.BUSY
        held.beat({"counter": counter, "step": 0})
    assert watch(other, clock, run_dir, 9) is Verdict.BUSY
    taken = watch(other, clock, run_dir, 2)
    assert isinstance(taken, ActiveAttempt)
    assert taken.number == 2
    assert not held.is_ours()
    assert [a.state for a in read_attempts(run_dir)] == ["lost", None]


def test_a_suspended_observer_has_observed_nothing(run_dir):
    take(run_dir)
    clock = Clock()
    other = Claimer("other", clock)
    other.claim(run_dir, **LEASE)
    clock.now += 3600  # as if suspended together with the holder
    assert other.claim(run_dir, **LEASE) is Verdict.BUSY


def test_the_wall_clock_has_no_effect(run_dir, monkeypatch):
    take(run_dir)
    clock = Clock()
    other = Claimer("other", clock)
    for jump in (3600, -3600, 1e9):
        monkeypatch.setattr(time, "time", lambda jump=jump: jump)
        assert watch(other, clock, run_dir, 1) is Verdict.BUSY


def test_the_holders_lease_counts_when_it_is_the_longer(run_dir):
    Claimer("patient").claim(run_dir, lease_s=100.0, max_failures=3)
    clock = Clock()
    assert watch(Claimer("other", clock), clock, run_dir, 50) is Verdict.BUSY


def test_a_dead_holder_is_replaced_at_once(run_dir, monkeypatch):
    take(run_dir)
    monkeypatch.setattr(claims, "is_gone", lambda holder: True)
    assert take(run_dir).number == 2


def test_only_a_process_of_this_boot_and_namespace_is_known_to_be_dead():
    alive = this_process()
    assert not is_gone(alive)
    if alive.boot_id is None:
        pytest.skip("this system has no /proc")
    reused = replace(alive, start_ticks=-7)  # the same PID, another process
    assert is_gone(reused)
    others = ({"boot_id": "other"}, {"pid_namespace": "pid:[1]"}, {"start_ticks": None}, {"host": "a clone"})
    for elsewhere in others:
        assert not is_gone(replace(reused, **elsewhere))


def test_a_holder_that_was_set_aside_can_do_nothing_any_more(run_dir, monkeypatch):
    held = take(run_dir)
    held.inherit_checkpoint()
    (held.checkpoint_dir / "old").write_text("old")
    monkeypatch.setattr(claims, "is_gone", lambda holder: True)
    new = take(run_dir)
    new.inherit_checkpoint()
    assert (new.checkpoint_dir / "old").read_text() == "old"
    with pytest.raises(AttemptLost):
        held.commit({"loss": 0.0})
    with pytest.raises(FileNotFoundError):
        held.beat({"counter": 9})
    with pytest.raises(FileNotFoundError):
        held.end("done", None, 9)
    with pytest.raises(FileNotFoundError):
        (held.checkpoint_dir / "stale").write_text("stale")
    held.checkpoint_dir.mkdir(parents=True)  # a trainer recreates the directory: still no commit
    with pytest.raises(AttemptLost):
        held.commit({"loss": 0.0})
    assert not (run_dir / "result.json").exists()
    assert [a.state for a in read_attempts(run_dir)] == ["lost", None]
    new.commit({"loss": 1.0})
    assert (run_dir / "result.json").read_text() == '{"loss":1.0}\n'


def test_a_claimer_suspended_between_check_and_rename_withdraws(run_dir, monkeypatch):
    """While it was suspended, others claimed its number, lost it, and continued with the next one."""
    slow, prepare = Claimer("slow"), Claimer._prepare
    monkeypatch.setattr(claims, "is_gone", lambda holder: True)

    def sleep_first(self, directory, token, lease_s):
        prepare(self, directory, token, lease_s)
        if self is slow:
            assert [take(run_dir).number, take(run_dir).number] == [1, 2]

    monkeypatch.setattr(Claimer, "_prepare", sleep_first)
    assert slow.claim(run_dir, **LEASE) is Verdict.BUSY
    assert [(a.number, a.state) for a in read_attempts(run_dir)] == [(1, "lost"), (2, None)]
    assert {path.name for path in (run_dir / "attempts").iterdir()} == {"1.lost", "2"}


def test_a_claimer_suspended_during_the_commit_withdraws(run_dir, monkeypatch):
    slow, prepare = Claimer("slow"), Claimer._prepare

    def sleep_first(self, directory, token, lease_s):
        prepare(self, directory, token, lease_s)
        if self is slow:
            held = take(run_dir)
            held.commit({})
            (run_dir / "attempts" / "1").rename(run_dir / "attempts" / "1.lost")

    monkeypatch.setattr(Claimer, "_prepare", sleep_first)
    assert slow.claim(run_dir, **LEASE) is Verdict.BUSY


def test_a_name_whose_taker_withdrew_at_this_moment_counts_as_taken(run_dir, monkeypatch):
    """Two claimers were suspended during a commit; one is refused the name that the other releases."""
    rename = Path.rename
    attempt = run_dir / "attempts" / "1"

    def refused(source, target):
        if Path(target) != attempt:
            return rename(source, target)
        attempt.mkdir()
        (attempt / "claim.json").write_text("{}")
        try:
            return rename(source, target)
        finally:
            shutil.rmtree(attempt)

    monkeypatch.setattr(Path, "rename", refused)
    assert Claimer("late").claim(run_dir, **LEASE) is Verdict.BUSY
    assert list((run_dir / "attempts").iterdir()) == []
    monkeypatch.undo()
    assert take(run_dir).number == 1


def test_one_expired_lease_and_many_observers_give_one_new_holder(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "is_gone", lambda holder: holder.pid == -1)
    dead = Claimer("dead")
    dead._holder = replace(dead._holder, pid=-1)
    observers = [Claimer(f"w{i}") for i in range(4)]
    for repeat in range(50):
        run_dir = tmp_path / str(repeat)
        dead.claim(run_dir, **LEASE)
        barrier, won = threading.Barrier(4), []

        def observe(claimer, run_dir=run_dir, barrier=barrier, won=won):
            barrier.wait()
            outcome = claimer.claim(run_dir, **LEASE)
            if isinstance(outcome, ActiveAttempt):
                won.append(outcome)

        threads = [threading.Thread(target=observe, args=(c,)) for c in observers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # a loser finds the run busy and never holds it; the holder has the newest attempt
        assert len(won) <= 1
        held = won[0] if won else take(run_dir)
        assert held.is_ours()
        assert read_attempts(run_dir)[-1].number == held.number


def test_a_checkpoint_is_copied_from_the_newest_attempt_that_has_one(run_dir):
    first = take(run_dir)
    first.inherit_checkpoint()
    (first.checkpoint_dir / "state").write_text("1")
    first.end("preempted", None, 1)
    second = take(run_dir)  # killed before it copied anything
    second.end("failed:host", None, 0)
    third = take(run_dir)
    third.inherit_checkpoint()
    assert (third.checkpoint_dir / "state").read_text() == "1"
    assert not first.checkpoint_dir.exists()


def test_a_copy_cut_short_leaves_the_source(run_dir, monkeypatch):
    first = take(run_dir)
    first.inherit_checkpoint()
    (first.checkpoint_dir / "state").write_text("1")
    first.end("preempted", None, 1)
    second = take(run_dir)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(OSError, match="full"):
            second.inherit_checkpoint()
    second.end("failed:disk", "full", 0)
    third = ActiveAttempt(run_dir=run_dir, number=3, token="x")
    third.path.mkdir()
    third.inherit_checkpoint()
    assert (third.checkpoint_dir / "state").read_text() == "1"
