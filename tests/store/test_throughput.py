"""Rates and utilisation from the files of a sweep, and the log tails of failed runs."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from sweep.store.run_store import RunStore
from sweep.store.throughput import Occupancy, Work, throughput
from sweep.worker.__main__ import work
from tests.toy_trainer import result, toy_plan, toy_sweep, train

H200, UNKNOWN = "NVIDIA H200", "a toy"
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def done(flops, began, seconds, device=H200, place=None, **more):
    occupied = (Occupancy(place=place, began=began, seconds=seconds),)
    return Work(**({"flops": flops, "has_result": True, "device": device, "occupied": occupied} | more))


def test_rates_exclude_idle_hours():
    rates = throughput([done(6e15, 0, 1800), done(2e15, 1000, 800), done(4e15, 90_000, 1800)])
    assert rates.runs_per_hour == pytest.approx(3)
    assert rates.flops_per_hour == pytest.approx(12e15)


def test_utilisation_is_flops_over_device_seconds_over_peak():
    rates = throughput([done(989e12 * 50, 0, 100), done(989e12 * 30, 0, 100)])
    assert rates.device_s == 200
    assert rates.flops_per_device_second == pytest.approx(989e12 * 0.4)
    assert rates.utilisation == pytest.approx(0.4)


def test_time_of_lost_attempts_counts_and_so_do_live_runs():
    lost = Occupancy(place=None, began=0, seconds=100)
    wasted = done(989e12 * 100, 100, 100, occupied=(lost, replace(lost, began=100)))
    live = Work(flops=0, has_result=False, device=None, occupied=(lost,))
    assert throughput([wasted]).utilisation == pytest.approx(0.5)
    assert throughput([wasted, live]).utilisation == pytest.approx(1 / 3)


def test_runs_that_share_a_device_count_it_once():
    shared = [done(989e12 * 30, began, 100, place="host//0/cuda:0") for began in (0, 0, 50)]
    rates = throughput(shared)
    assert rates.device_s == 150
    assert rates.utilisation == pytest.approx(90 / 150)


def test_devices_have_their_own_peaks_and_one_unknown_means_no_utilisation():
    mixed = [done(989e12 * 50, 0, 100), done(312e12 * 50, 0, 100, device="NVIDIA A100-SXM4-80GB")]
    assert throughput(mixed).utilisation == pytest.approx(0.5)
    rates = throughput([*mixed, done(1e12, 0, 100, device=UNKNOWN)])
    assert rates.utilisation is None
    assert rates.flops_per_device_second == pytest.approx((989e12 * 50 + 312e12 * 50 + 1e12) / 300)


def test_without_measurements_rates_are_none():
    rates = throughput([Work(flops=0, has_result=False, device=None, occupied=())])
    assert (rates.runs_per_hour, rates.flops_per_hour, rates.utilisation, rates.device_s) == (
        None,
        None,
        None,
        0,
    )


def stamp(seconds):
    return (BEGAN + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def test_a_status_reads_them_from_the_files(tmp_path):
    store = toy_sweep(tmp_path, 2)
    work(tmp_path, train=train)
    flops = []
    for index, path in enumerate(sorted(tmp_path.glob("runs/*/result.json"))):
        stored = json.loads(path.read_text())
        stored["point"] |= {
            "started_at": stamp(100 * index),
            "finished_at": stamp(100 * (index + 1)),
            "device": H200,
        }
        path.write_text(json.dumps(stored))
        flops.append(stored["point"]["flops"])
    document = store.status().to_json()
    assert document["device_s"] == pytest.approx(200)
    assert document["runs_per_hour"] == pytest.approx(36)
    assert document["flops_per_hour"] == pytest.approx(sum(flops) * 18)
    assert document["utilisation"] == pytest.approx(sum(flops) / 200 / 989e12)


def test_a_diverged_run_counts_the_steps_it_did(tmp_path):
    def diverges(run, placement, session):
        session.progress(run.n_steps // 2)
        time.sleep(0.02)  # timestamps have milliseconds
        nothing = dict.fromkeys(("loss", "loss_stderr", "bits_per_byte"))
        return result(run, status="diverged", reason="nan", **nothing)

    store = RunStore(tmp_path)
    store.add_plan(toy_plan(1))  # of 12 steps
    work(tmp_path, train=diverges)
    seen = store.status()
    rate = seen.throughput.flops_per_device_second
    assert rate * seen.throughput.device_s == pytest.approx(seen.runs[0].flops / 2)


def test_the_status_of_a_failed_run_ends_with_its_traceback(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_FAULT", "bug:run-1")
    store = toy_sweep(tmp_path, 2, max_failures=1)
    work(tmp_path, train=train)
    tails = {run.name: run.log_tail for run in store.status().runs}
    assert tails["run-0"] == ()
    assert tails["run-1"][-2:] == ("ValueError: a bug", "in two lines")
    json.dumps(store.status().to_json())


def test_a_dead_workers_log_is_kept_with_its_attempt_and_not_its_successors(tmp_path):
    store = toy_sweep(tmp_path / "sweep", 1, max_failures=1)
    log = tmp_path / "worker.log"
    log.write_text("starting\n" + "x" * 20_000 + "\nFatal Python error: Segmentation fault\n")
    entry, _ = store.queue("host-1-0-abcd").claim()
    assert store.record_death("host-1-0-abcd", "its worker was killed by SIGSEGV", log) == entry.run_key
    log.write_text("the next worker's words\n")
    (run,) = store.status().runs
    assert run.status == "failed:host"
    assert run.log_tail[-1] == "Fatal Python error: Segmentation fault"
    assert len(run.log_tail) <= 12


def test_without_a_supervisor_the_workers_log_is_looked_up(tmp_path):
    store = toy_sweep(tmp_path, 1, max_failures=1)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "host-1-0.log").write_text("no step for 900 s\na run is stuck\n")
    _, attempt = store.queue("host-1-0-abcd").claim()
    attempt.end("failed:host", "no step for 900 s", 3)
    assert store.status().runs[0].log_tail == ("no step for 900 s", "a run is stuck")
