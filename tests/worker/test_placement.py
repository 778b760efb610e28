"""The device of a worker without a launcher."""

from dataclasses import replace
from importlib import import_module

import pytest

from sweep.worker.placement import placement
from tests.toy_trainer import toy_sweep

MODULE = import_module("sweep.worker.placement")


@pytest.mark.parametrize(("time_s", "compiles"), [(39.0, False), (44.0, True)])
def test_a_run_is_compiled_if_it_takes_long_by_its_plan(tmp_path, time_s, compiles):
    entry = replace(toy_sweep(tmp_path, 1).entries()[0], time_s=time_s)
    assert placement(entry).compile is compiles


@pytest.mark.parametrize(
    ("wanted", "n_gpus", "device"),
    [("auto", 0, "cpu"), ("auto", 2, "cuda:0"), ("cpu", 2, "cpu"), ("cuda", 0, "cuda:0")],
)
def test_a_worker_takes_the_first_gpu_if_the_experiment_allows(tmp_path, monkeypatch, wanted, n_gpus, device):
    monkeypatch.setattr(MODULE, "gpus", lambda: tuple(map(str, range(n_gpus))))
    monkeypatch.delenv("SWEEP_DEVICE", raising=False)
    entry = toy_sweep(tmp_path, 1).entries()[0]
    trainer = replace(entry.experiment.trainer, device=wanted)
    entry = replace(entry, experiment=replace(entry.experiment, trainer=trainer))
    assert placement(entry).device == device
    monkeypatch.setenv("SWEEP_DEVICE", "cuda:1")
    assert placement(entry).device == "cuda:1"
