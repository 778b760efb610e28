"""Killed, stopped and signalled processes: each point exists once, as in an undisturbed sweep."""

import contextlib
import json
import os
import random
import shutil
import signal
import time

import pytest

from sweep.store.attempts.attempts import read_attempts
from sweep.store.files import read_json, read_records
from sweep.worker.__main__ import work
from tests.faults.processes import kill, start, start_worker, wait_until
from tests.toy_trainer import science, toy_sweep, train

STEPS = {"TOY_STEP_S": "0.004"}


def kill_and_restart(tmp_path, n_kills, seed):
    """Kill all workers of successive sweeps at random moments until `n_kills` have died.

    No run is given up: on a busy machine a dozen consecutive workers may die before their first step.
    """
    moments = random.Random(seed)
    calm = toy_sweep(tmp_path / "calm", 6, n_steps=20)
    work(calm.sweep_dir, train=train)
    expected, killed, n_sweeps = science(calm), 0, 0
    while killed < n_kills:
        n_sweeps += 1
        store = toy_sweep(tmp_path / f"sweep-{n_sweeps}", 6, n_steps=20, max_failures=n_kills)
        while not store.status().finished:
            workers = [start_worker(store.sweep_dir, **STEPS) for _ in range(2)]
            time.sleep(moments.uniform(0.03, 0.3))
            alive = sum(worker.is_alive() for worker in workers)
            kill(*workers)
            killed += alive
            if killed >= n_kills:
                work(store.sweep_dir, train=train)
        assert science(store) == expected
        assert store.status().counts == {"done": 6}
    return killed, n_sweeps


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("n_kills", [20, pytest.param(1000, marks=pytest.mark.long)])
def test_killed_workers_lose_and_double_nothing(tmp_path, measured, n_kills):
    killed, n_sweeps = kill_and_restart(tmp_path, n_kills, seed=n_kills)
    assert killed >= n_kills
    measured(
        "kill -9 of workers",
        f"{killed} kills in {n_sweeps} sweeps of 6 runs, 0 lost, 0 double, columns equal",
    )


@pytest.mark.ci
def test_a_stopped_worker_comes_back_to_find_it_has_lost(tmp_path, measured):
    """SIGSTOP for three leases; another worker takes over and saves checkpoints; then SIGCONT."""
    store = toy_sweep(tmp_path / "sweep", 1, n_steps=20, lease_s=1)
    run_dir = next((tmp_path / "sweep" / "runs").iterdir())
    zombie = start_worker(store.sweep_dir, TOY_STEP_S="0.2")
    wait_until(lambda: (run_dir / "attempts" / "1" / "checkpoint" / "state.json").exists())
    os.kill(zombie.pid, signal.SIGSTOP)
    log = run_dir / "attempts" / "1" / "metrics.jsonl"
    n_steps_stopped = len(list(read_records(log)))
    owner = start_worker(store.sweep_dir, TOY_STEP_S="0.15")
    state = run_dir / "attempts" / "2" / "checkpoint" / "state.json"
    wait_until(lambda: (read_json(state) or {}).get("writer") == owner.pid)
    time.sleep(1.5)
    os.kill(zombie.pid, signal.SIGCONT)
    deadline = time.monotonic() + 20
    while not (run_dir / "result.json").exists():
        assert time.monotonic() < deadline
        writer = (read_json(state) or {}).get("writer", owner.pid)  # the owner deletes it when it is done
        assert writer == owner.pid
        time.sleep(0.01)
    owner.join(20)
    zombie.join(20)
    assert (zombie.exitcode, owner.exitcode) == (0, 0)
    assert [attempt.state for attempt in read_attempts(run_dir)] == ["lost", "done"]
    assert [point.attempts for point in store.points().points] == [2]
    lost = run_dir / "attempts" / "1.lost"
    n_steps_more = len(list(read_records(lost / "metrics.jsonl"))) - n_steps_stopped
    assert n_steps_more <= 1
    figure = f"zombie left after {n_steps_more} steps, 0 stale commits, 0 checkpoints of the owner touched"
    measured("SIGSTOP for three leases", figure)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
@pytest.mark.parametrize("times", [1, 2, 10])
def test_a_signalled_worker_saves_once_and_leaves_with_75(tmp_path, measured, number, times):
    """One, two or ten signals."""
    store = toy_sweep(tmp_path, 1, n_steps=2000)
    run_dir, saves = next((tmp_path / "runs").iterdir()), tmp_path / "saves"
    worker = start_worker(tmp_path, TOY_STEP_S="0.005", TOY_CHECKPOINT_STEPS="5000", TOY_SAVES=str(saves))
    wait_until(lambda: (run_dir / "attempts" / "1" / "metrics.jsonl").exists())
    with contextlib.suppress(ProcessLookupError):  # it may have exited before the last
        for _ in range(times):
            os.kill(worker.pid, number)
            time.sleep(0.002)
    worker.join(20)
    assert worker.exitcode == 75
    [attempt] = read_attempts(run_dir)
    assert attempt.state == "preempted"
    assert number.name in store.status().runs[0].reason
    assert saves.read_text() == f"{attempt.step}\n"  # one checkpoint
    saved = json.loads((run_dir / "attempts" / "1" / "checkpoint" / "state.json").read_text())
    assert saved["step"] == attempt.step < 2000
    measured(f"{number.name} x {times}", "1 checkpoint, exit 75")


def test_runs_that_hang_or_die_unseen_do_not_loop_for_ever(tmp_path):
    """Without a supervisor every death is an expiry without progress, which counts after ten."""
    store = toy_sweep(tmp_path, 2, n_steps=6, max_failures=2)
    starts = 0
    while not store.status().finished:
        worker = start_worker(tmp_path, TOY_FAULT="leak:run-0")
        worker.join(20)
        starts += 1
        assert starts < 20
    shown = {run.name: run for run in store.status().runs}
    assert (shown["run-0"].status, shown["run-1"].status) == ("failed:host", "done")
    # ten may expire, and two more use up the retries; a slow machine lets the first one show progress
    assert shown["run-0"].attempts in (10 + 2, 1 + 10 + 2)
    assert "without progress" in shown["run-0"].reason


def _claim_all(sweep_dir, index, n_workers):
    """Claim every free run, and record each claim in a file of this worker."""
    from sweep.store.run_store import RunStore

    queue = RunStore(sweep_dir).queue(f"w{index}")
    (sweep_dir / f"ready-{index}").touch()
    while len(list(sweep_dir.glob("ready-*"))) < n_workers:
        time.sleep(0.001)
    with (sweep_dir / f"claims-{index}").open("w") as notes:
        while (claimed := queue.claim()) is not None:
            notes.write(f"{claimed[0].run_key} {claimed[1].number}\n")
            claimed[1].commit({"by": index})


def claim_at_once(tmp_path, n_workers, n_runs):
    """Return the number of results, after checking that every run was claimed exactly once."""
    store = toy_sweep(tmp_path, n_runs, n_steps=5)
    processes = [start(_claim_all, tmp_path, index, n_workers) for index in range(n_workers)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    claims = [line for path in tmp_path.glob("claims-*") for line in path.read_text().splitlines()]
    assert sorted(claims) == sorted(f"{entry.run_key} 1" for entry in store.entries())
    n_results = len(list(tmp_path.glob("runs/*/result.json")))
    shutil.rmtree(tmp_path)  # up to a hundred thousand files
    return n_results


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("n_runs", "repeats"), [(40, 1), pytest.param(100, 50, marks=pytest.mark.long)])
def test_eight_schedulers_claim_every_run_once(tmp_path, measured, n_runs, repeats):
    directories = [tmp_path / str(index) for index in range(repeats)]
    n_claims = sum(claim_at_once(directory, n_workers=8, n_runs=n_runs) for directory in directories)
    assert n_claims == n_runs * repeats
    measured(f"8 schedulers x {n_runs} runs x {repeats}", f"{n_claims} claims, 0 double")


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("n_workers", "n_runs"),
    [pytest.param(16, 320, marks=pytest.mark.ci), pytest.param(64, 12_800, marks=pytest.mark.long)],
)
def test_many_processes_commit_every_result(tmp_path, measured, n_workers, n_runs):
    n_results = claim_at_once(tmp_path, n_workers, n_runs)
    assert n_results == n_runs
    measured(f"{n_workers} processes x {n_runs // n_workers} commits", f"{n_results:,} of {n_runs:,}")
