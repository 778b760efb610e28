"""Runs that share a trunk: waiting without deadlock, and deletion of the states."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from sweep.config import RunSchedule
from sweep.identity import trunk_key
from sweep.records import trunk_state
from sweep.store.run_store import RunStore
from sweep.worker.__main__ import work
from tests.configs import tiny_run
from tests.faults.processes import kill, start_worker
from tests.plans import planned
from tests.toy_trainer import result, science, toy_plan, train


def branch(n_steps, seed=0):
    schedule = RunSchedule(name="wsd", warmup_steps=2, decay_steps=n_steps // 5, final_lr_frac=0.0)
    return tiny_run(name=f"{n_steps}-s{seed}", seed=seed, n_tokens=64 * n_steps, schedule=schedule)


def branched_sweep(directory, *runs, **launch):
    store = RunStore(directory)
    plan = toy_plan(1, **launch)
    store.add_plan(replace(plan, runs=tuple(planned(run) for run in runs)))
    return store


def leave(store, run, step):
    trunk_state(store.sweep_dir / "trunks" / trunk_key(run), step).mkdir(parents=True)


def claimed(queue):
    found = queue.claim()
    return None if found is None else found[0].name


def test_branches_wait_for_their_state_while_the_trunk_is_trained(tmp_path):
    runs = [branch(n) for n in (20, 30, 50)]
    store = branched_sweep(tmp_path, *runs, branch(20, seed=1))
    first, second = store.queue("first"), store.queue("second")
    assert claimed(first) == "50-s0"
    assert claimed(second) == "20-s1"  # other runs first
    assert claimed(second) is None
    assert not second.finished
    leave(store, runs[0], 16)
    assert claimed(second) == "20-s0"
    assert claimed(second) is None
    leave(store, runs[0], 24)
    assert claimed(second) == "30-s0"


def test_a_trunk_that_ends_or_is_given_up_is_waited_for_no_more(tmp_path):
    for how in ("committed", "given up"):
        store = branched_sweep(tmp_path / how, branch(20), branch(50), max_failures=1)
        first, second = store.queue("first"), store.queue("second")
        _, attempt = first.claim()
        assert claimed(second) is None
        if how == "committed":
            attempt.commit({})
        else:
            attempt.end("failed:code", "a bug", 0)
        assert claimed(second) == "20-s0"


def test_a_preempted_trunk_is_taken_up_before_its_branches(tmp_path):
    store = branched_sweep(tmp_path, branch(20), branch(50))
    _, attempt = store.queue("first").claim()
    attempt.end("preempted", "a signal", 3)
    second = store.queue("second")
    assert claimed(second) == "50-s0"
    assert claimed(second) is None


def test_the_trunk_of_a_claimed_run(tmp_path):
    runs = [branch(n) for n in (20, 30, 50)]
    store = branched_sweep(tmp_path, *runs, branch(40, seed=1))
    queue = store.queue("w")
    entries = {entry.name: entry for entry in store.entries()}
    trunk = queue.trunk(entries["50-s0"])
    assert (trunk.key, trunk.own_step, trunk.other_steps) == (trunk_key(runs[0]), 40, (16, 24))
    assert queue.trunk(entries["30-s0"]).other_steps == (16,)
    assert queue.trunk(entries["40-s1"]) is None  # the only run on its trunk


def test_equal_branch_points_do_not_wait_for_each_other(tmp_path):
    """Two decays from one step: the longer run first, the other from its state or after it."""
    one = branch(50)
    two = replace(one, name="two", n_tokens=64 * 55, schedule=replace(one.schedule, decay_steps=15))
    assert trunk_key(one) == trunk_key(two)
    store = branched_sweep(tmp_path, one, two)
    queue, other = store.queue("first"), store.queue("second")
    assert claimed(queue) == "two"
    assert claimed(other) is None
    leave(store, one, 40)
    assert claimed(other) == "50-s0"


def test_states_are_deleted_once_every_run_of_the_trunk_is_done(tmp_path):
    runs = [branch(n) for n in (20, 30, 50)]
    store = branched_sweep(tmp_path, *runs)
    directory = tmp_path / "trunks" / trunk_key(runs[0])
    seen = []

    def leaving(run, placement, session):
        for step in placement.trunk.other_steps:
            trunk_state(placement.trunk.directory, step).mkdir(parents=True, exist_ok=True)
        seen.append((run.name, directory.exists()))
        return result(run)

    assert work(tmp_path, train=leaving).n_done == 3
    assert seen == [("50-s0", True), ("30-s0", True), ("20-s0", True)]
    assert not directory.exists()
    assert store.status().counts == {"done": 3}


def test_workers_at_once_finish_without_deadlock_also_when_trunks_fail(tmp_path):
    runs = [branch(n, seed) for n in (20, 30, 40, 50) for seed in range(4)]
    store = branched_sweep(tmp_path, *runs, max_failures=2)

    def failing(run, placement, session):
        if run.name in ("50-s0", "40-s0", "50-s2"):
            raise ValueError("a bug")
        return train(run, placement, session)

    workers = [threading.Thread(target=work, args=(tmp_path,), kwargs={"train": failing}) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert not any(worker.is_alive() for worker in workers)
    assert store.status().counts == {"done": 13, "failed:code": 3}


@pytest.mark.parametrize("n_rounds", [6])
def test_killed_workers_leave_no_run_waiting(tmp_path, n_rounds):
    runs = [branch(n, seed) for n in (20, 30, 50) for seed in range(2)]
    calm = branched_sweep(tmp_path / "calm", *runs)
    work(calm.sweep_dir, train=train)
    store = branched_sweep(tmp_path / "stormy", *runs)
    for _ in range(n_rounds):
        workers = [start_worker(store.sweep_dir, TOY_STEP_S="0.004") for _ in range(2)]
        workers[0].join(0.15)
        kill(*workers)
    work(store.sweep_dir, train=train)
    assert science(store) == science(calm)


def test_a_retried_branch_starts_from_the_trunk_of_the_sweep_and_keeps_it(tmp_path):
    runs = [branch(n) for n in (20, 30, 50)]
    branched_sweep(tmp_path, *runs).retry(planned(runs[1]).run_key, "again")
    queue = RunStore(tmp_path, retry_group="again").queue("worker")
    found = queue.claim()
    assert found is not None  # it does not wait for the first run of the trunk, which no worker trains now
    entry, attempt = found
    assert entry.name == "30-s0"
    assert queue.trunk(entry).other_steps == (16,)
    leave(RunStore(tmp_path), runs[0], 16)
    attempt.commit({})
    queue.prune_trunk(entry)
    assert trunk_state(tmp_path / "trunks" / trunk_key(runs[0]), 16).is_dir()
