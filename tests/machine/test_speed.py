"""The file of measured steps, and a measurement in a process."""

import json
import subprocess
import sys

import pytest

from sweep.machine import speed
from sweep.plan.speed import StepTime, step_terms
from tests.configs import tiny_run


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(speed, "_unsaved", {})
    return tmp_path / "sweep" / "speed.json"


def a_step(seconds: float) -> StepTime:
    run = tiny_run()
    return StepTime(terms=step_terms(run, run.batch_tokens), tokens=run.batch_tokens, seconds=seconds)


def test_steps_are_kept_by_machine_and_precision(cache):
    assert speed.known_speed("cpu", "fp32") is None
    speed.remember([a_step(0.002)], "cpu", "fp32", start_s=1.5)
    speed.remember([a_step(0.003), a_step(0.0)], "cpu", "fp32")
    found = speed.known_speed("cpu", "fp32")
    assert found is not None
    assert [step.seconds for step in found.steps] == [0.002, 0.003]
    assert found.start_s == 1.5
    assert speed.known_speed("cpu", "bf16") is None
    (key,) = json.loads(cache.read_text())["machines"]
    assert "1 threads, fp32" in key


@pytest.mark.parametrize(
    "content", ["", "[1]", '{"machines": {"x": 3}}', '{"machines": {"x": {"steps": 1}}}']
)
def test_a_damaged_file_counts_as_empty(cache, content):
    cache.parent.mkdir()
    cache.write_text(content)
    assert speed.known_speed("cpu", "fp32") is None
    speed.remember([a_step(0.002)], "cpu", "fp32")
    assert speed.known_speed("cpu", "fp32") is not None


@pytest.mark.parametrize("has_home", [False, True])
def test_without_a_writable_cache_steps_are_kept_for_the_process(has_home, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(speed, "cache_directory", lambda: tmp_path / "file" if has_home else None)
    speed.remember([a_step(0.002)], "cpu", "fp32")
    speed.remember([a_step(0.003)], "cpu", "fp32")
    found = speed.known_speed("cpu", "fp32")
    assert found is not None
    assert [step.seconds for step in found.steps] == [0.002, 0.003]


def test_invalid_steps_in_the_file_count_as_none(cache):
    speed.remember([a_step(0.002)], "cpu", "fp32")
    cache.write_text(cache.read_text().replace("0.002", '"fast"'))
    assert speed.known_speed("cpu", "fp32") is None


def test_steps_are_measured_in_other_processes(monkeypatch):
    monkeypatch.setattr(speed, "SECONDS", 0.3)
    found = speed.measure_speed([tiny_run()], "cpu", "fp32", n_workers=1, micro_batch_size=None)
    assert found is not None
    assert 1e-4 < found.step_s(tiny_run()) < 1.0
    assert found.start_s > 0.1


def test_a_process_that_cannot_train_measures_nothing(monkeypatch):
    real = subprocess.Popen

    def start(command, **options):
        return real([sys.executable, "-c", ""], **options)

    monkeypatch.setattr(speed.subprocess, "Popen", start)
    assert speed.measure_speed([tiny_run()], "cpu", "fp32", n_workers=1, micro_batch_size=None) is None


def test_measuring_can_be_ruled_out(monkeypatch):
    monkeypatch.setenv("SWEEP_MEASURE_SPEED", "0")
    assert not speed.may_measure()
