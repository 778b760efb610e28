"""Many processes on one sweep: each commit exists once, and the cost of a claim does not grow."""

from __future__ import annotations

import statistics
import time

import pytest

from sweep.store.queue import RunQueue
from sweep.store.run_store import RunStore
from sweep.worker.__main__ import work
from tests.faults.processes import start_worker
from tests.toy_trainer import result, toy_sweep


def drain(store: RunStore, n_workers: int, n_runs: int, journal) -> None:
    workers = [start_worker(store.sweep_dir, TOY_JOURNAL=str(journal)) for _ in range(n_workers)]
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * n_workers
    assert sorted(journal.read_text().split()) == sorted(f"run-{index}" for index in range(n_runs))
    points = store.points()
    assert len({point.run_key for point in points.points}) == n_runs
    assert points.excluded == ()
    assert {attempt.name for attempt in store.sweep_dir.glob("runs/*/attempts/*")} == {"1"}


@pytest.mark.ci
def test_eight_processes_commit_every_run_once(tmp_path):
    drain(toy_sweep(tmp_path / "sweep", 160), 8, 160, tmp_path / "journal")


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_64_processes_commit_200_runs_each(tmp_path):
    drain(toy_sweep(tmp_path / "sweep", 12_800), 64, 12_800, tmp_path / "journal")


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_claim_costs_the_same_at_the_end_of_10_000_runs(tmp_path, monkeypatch):
    seconds, claim = [], RunQueue.claim

    def timed(queue, *limits):
        start = time.perf_counter()
        claimed = claim(queue, *limits)
        seconds.append(time.perf_counter() - start)
        return claimed

    monkeypatch.setattr(RunQueue, "claim", timed)
    store = toy_sweep(tmp_path, 10_000)
    assert work(tmp_path, train=lambda run, placement, session: result(run)).n_done == 10_000
    first, last = statistics.median(seconds[:1000]), statistics.median(seconds[9000:10_000])
    assert last < 2 * first  # medians of a thousand, insensitive to a disk that is busy at times
    started = time.process_time()
    assert store.status().counts == {"done": 10_000}
    assert time.process_time() - started < 10
