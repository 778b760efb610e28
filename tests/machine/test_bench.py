"""Measurement of packings on this machine's processor, MPS, and the number of workers."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from dataclasses import replace

import pytest

from sweep.errors import InputError
from sweep.machine import bench as packing
from sweep.machine import devices, mps, workers
from sweep.machine.bench import Bench, measure_packing, sizes_to_measure
from sweep.machine.packing import Packing, PackingRow, packing_file, packing_json
from sweep.machine.workers import WorkerCount, count_workers, measure_and_remember, worker_count
from tests.configs import tiny_run
from tests.plans import planned
from tests.toy_trainer import toy_plan


def sized(n_params, time_s, **others):
    return replace(planned(tiny_run()), n_params=n_params, time_s=time_s, **others)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_ends_and_the_middle_of_the_time_are_measured():
    runs = [sized(n, seconds) for n, seconds in ((10, 1), (20, 1), (30, 10), (40, 1), (20, 1))]
    assert [run.n_params for run in sizes_to_measure(runs)] == [10, 30, 40]
    assert [run.n_params for run in sizes_to_measure(runs[:1])] == [10]


@pytest.mark.ci
def test_processes_are_measured_together_and_the_choice_is_remembered(monkeypatch):
    monkeypatch.setattr("sweep.machine.workers.cores", lambda: devices.cores()[:2])
    plan = replace(toy_plan(1, n_workers=None), runs=(sized(10, 1.0),))
    before = worker_count([plan])
    seen = []
    chosen = measure_and_remember([plan], seen.append, seconds=0.1, n_rounds=1)
    n_cores = len(devices.cores()[:2])
    assert {row.n_workers for row in seen} == {1, n_cores}
    assert all(row.steps_per_second > 0 for row in seen)
    assert before.packing is None
    assert before.n_workers == before.speed == len(devices.cores())
    after = worker_count([plan])
    assert (after.packing, after.speed) == (chosen, chosen.speedup)
    assert json.loads(packing_file().read_text())["schema_version"] == 1


def test_configured_workers_override_the_measurement():
    device = devices.devices("cpu")[0].name
    packing_file().parent.mkdir(parents=True)
    measured = [PackingRow(n_params=10, n_workers=n, mps=False, steps_per_second=float(n)) for n in (1, 8)]
    packing_file().write_bytes(packing_json(device, measured))
    plan = replace(toy_plan(1, n_workers=None), runs=(sized(10, 1.0),))
    assert (worker_count([plan]).n_workers, worker_count([plan]).speed) == (8, 8.0)
    asked = worker_count([toy_plan(1, n_workers=3)])
    assert (asked.n_workers, asked.speed, asked.packing) == (3, 3.0, None)


def test_measurements_with_the_service_count_where_it_may_be_used():
    device = devices.devices("cpu")[0].name
    packing_file().parent.mkdir(parents=True)
    rates = {(1, False): 1.0, (2, False): 1.2, (4, True): 3.0}
    measured = [
        PackingRow(n_params=10, n_workers=n, mps=mps, steps_per_second=rate)
        for (n, mps), rate in rates.items()
    ]
    packing_file().write_bytes(packing_json(device, measured))
    plan = replace(toy_plan(1, n_workers=None), runs=(sized(10, 1.0),))
    for wanted, n_workers in ((None, 4), (True, 4), (False, 2)):
        launch = replace(plan.experiment.launch, mps=wanted)
        asked = replace(plan, experiment=replace(plan.experiment, launch=launch))
        assert worker_count([asked]).n_workers == n_workers


@pytest.mark.ci
def test_a_process_that_cannot_train_is_named(monkeypatch):
    bench = Bench(device=devices.devices("cpu")[0], cores=devices.cores(), micro_batch_size=None, n_rounds=1)
    broken = replace(planned(tiny_run()).config, precision="neither")
    with pytest.raises(InputError, match=r"packing cannot be measured: .*precision"):
        measure_packing([replace(planned(tiny_run()), config=broken)], bench)


def test_memory_and_cores_limit_how_many_are_tried(monkeypatch):
    tried = []
    monkeypatch.setattr(packing, "_warm_processes", lambda run, bench, n, service: nullcontext([None] * n))
    monkeypatch.setattr(
        packing, "_steps_per_second", lambda processes, bench: tried.append(len(processes)) or 1.0
    )
    device = devices.Device(visible="0", name="GPU", key="GPU-0", memory_bytes=10_000)
    monkeypatch.setattr(packing, "mps_daemon", mps.mps_daemon)
    monkeypatch.setenv("PATH", "")
    bench = Bench(device=device, cores=tuple(range(12)), micro_batch_size=None, n_rounds=1)
    measure_packing([sized(10, 1.0, memory_bytes=1_500)], bench)
    assert tried == [1, 2, 4, 6]
    tried.clear()
    measure_packing([sized(10, 1.0, memory_bytes=1)], bench)
    assert tried == [1, 2, 4, 8, 12]
    tried.clear()
    measure_packing([sized(10, 1.0, memory_bytes=10**9)], bench)
    assert tried == [1]


@pytest.fixture
def control(tmp_path, monkeypatch):
    """A fake MPS daemon that records its calls."""
    tool, notes = tmp_path / "bin" / mps.CONTROL, tmp_path / "notes"
    tool.parent.mkdir()
    tool.write_text(
        f"#!{sys.executable}\n"
        "import os, sys\n"
        "words = ' '.join(sys.argv[1:]) or sys.stdin.read().strip()\n"
        "there = os.path.isdir(os.environ['CUDA_MPS_PIPE_DIRECTORY'])\n"
        f"with open({str(notes)!r}, 'a') as notes:\n"
        "    notes.write(f\"{words} {os.environ['CUDA_VISIBLE_DEVICES']} {there}\\n\")\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent))
    return notes


def test_the_service_is_started_for_one_gpu_and_ended(control):
    with mps.mps_daemon("3") as service:
        assert set(service) == {"CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"}
    assert control.read_text().splitlines() == ["-d 3 True", "quit 3 True"]


def test_without_the_service_there_is_none(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with mps.mps_daemon("0") as service:
        assert service is None


def test_packing_multiplies_the_workers_of_each_gpu(monkeypatch):
    monkeypatch.setattr(workers, "gpus", lambda: ("0", "1"))
    packing = Packing(n_workers=4, mps=False, speedup=3.0)
    packed = count_workers(None, "auto", packing)
    assert (packed.n_workers, packed.speed, packed.packing) == (8, 6.0, packing)
    monkeypatch.setattr(workers, "cores", lambda: (0, 1, 2, 3, 4))
    assert count_workers(None, "auto") == WorkerCount(n_workers=4, speed=2.0, packing=None)
    for n_cores, n_workers in ((1, 2), (2, 2), (3, 3), (4, 4), (64, 4)):  # at least one a GPU, at most two
        monkeypatch.setattr(workers, "cores", lambda n_cores=n_cores: tuple(range(n_cores)))
        assert count_workers(None, "auto").n_workers == n_workers
    assert count_workers(5, "auto", packing) == WorkerCount(n_workers=5, speed=2.0, packing=None)
    assert count_workers(None, "auto", packing, n_devices=2).n_workers == 1


def test_workers_that_share_a_gpu_do_not_divide_the_time(monkeypatch):
    monkeypatch.setattr(workers, "gpus", lambda: ("0",))
    monkeypatch.setattr(workers, "cores", lambda: (0, 1, 2, 3))
    for shared in (count_workers(None, "auto"), count_workers(3, "auto")):
        assert shared.shares_devices
        assert shared.wall_s([4.0, 4.0, 2.0]) == 10.0
    alone = count_workers(3, "cpu")
    assert not alone.shares_devices
    assert alone.wall_s([4.0, 4.0, 2.0]) == 4.0
    assert alone.wall_s([]) == 0.0
    packed = count_workers(None, "auto", Packing(n_workers=4, mps=True, speedup=2.0))
    assert packed.wall_s([4.0, 4.0, 2.0]) == 5.0
