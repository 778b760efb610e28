"""Several processes that observe an expired lease: at most one takes the run."""

import pytest

from sweep.store.attempts.active import ActiveAttempt
from sweep.store.attempts.attempts import read_attempts
from sweep.store.attempts.claims import MAX_OBSERVED_GAP_S, Claimer
from tests.faults.processes import CONTEXT

LEASE = {"lease_s": 10.0, "max_failures": 3}


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def _observe(directory, name, n_runs, barrier):
    """Observe the silent holder of each run for more than its lease, on a simulated clock; then claim it."""
    clock = Clock()
    claimer = Claimer(name, clock)
    with (directory / f"taken-by-{name}").open("w") as notes:
        for index in range(n_runs):
            run_dir = directory / "runs" / str(index)
            for _ in range(3):  # 0, 5 and 10 s of silence: not more than the lease yet
                assert not isinstance(claimer.claim(run_dir, **LEASE), ActiveAttempt)
                clock.now += MAX_OBSERVED_GAP_S
            barrier.wait(30)
            outcome = claimer.claim(run_dir, **LEASE)
            if isinstance(outcome, ActiveAttempt):
                notes.write(f"{index} {outcome.number} {outcome.is_ours()}\n")
    barrier.wait(30)  # a process that exits earlier is dead, and loses its claims


def watch_at_once(directory, n_runs):
    """Two observers of `n_runs` expired leases of a live process, which is this one."""
    silent = Claimer("silent")
    for index in range(n_runs):
        assert isinstance(silent.claim(directory / "runs" / str(index), **LEASE), ActiveAttempt)
    barrier = CONTEXT.Barrier(2)
    observers = [CONTEXT.Process(target=_observe, args=(directory, name, n_runs, barrier)) for name in "ab"]
    for observer in observers:
        observer.start()
    for observer in observers:
        observer.join()
    assert [observer.exitcode for observer in observers] == [0, 0]
    taken = [line.split() for path in directory.glob("taken-by-*") for line in path.read_text().splitlines()]
    runs = [index for index, _, _ in taken]
    for index in range(n_runs):
        states = [attempt.state for attempt in read_attempts(directory / "runs" / str(index))]
        assert states == (["lost", None] if str(index) in runs else ["lost"])
    assert {(number, ours) for _, number, ours in taken} == {("2", "True")}
    return len(runs), len(runs) - len(set(runs))


@pytest.mark.parametrize("n_runs", [100, pytest.param(1000, marks=pytest.mark.long)])
def test_two_observers_of_an_expired_lease_make_one_holder(tmp_path, measured, n_runs):
    n_taken, n_double = watch_at_once(tmp_path, n_runs)
    assert n_double == 0
    assert n_taken > 0.9 * n_runs
    measured(
        f"two observers of {n_runs} expired leases", f"{n_taken} taken at once, {n_double} double claims"
    )
