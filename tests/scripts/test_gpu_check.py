"""scripts/gpu_check: every step on a CPU, time limits, and steps that are skipped."""

import json
import subprocess
import sys

import pytest

from scripts.benchmarks import gpu_check
from scripts.benchmarks.gpu_check import PARTS, Check, run_part
from tests.shell import ROOT


@pytest.mark.ci
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("part", PARTS)
def test_every_step_runs_on_a_cpu(tmp_path, part):
    command = [sys.executable, str(ROOT / "scripts" / "gpu_check"), part, "--device", "cpu", "--tiny"]
    done = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    documents = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in PARTS[part]}
    assert {document["state"] for document in documents.values()} == {"done"}
    assert all(document["results"] for document in documents.values())
    if part == "B":
        assert documents["sweep"]["results"]["killed_a_worker"]
        assert documents["evidence"]["results"]["status"]["finished"]
        assert documents["resume"]["results"]["default"]["difference"] == 0


@pytest.fixture
def check(tmp_path):
    return Check(device="cpu", tiny=True, out=tmp_path, peer=None)


def test_a_step_at_its_limit_is_killed_and_leaves_a_document(check, monkeypatch):
    monkeypatch.setattr(gpu_check, "PARTS", {"A": {"environment": 0.05}})
    assert run_part("A", check, 60) == 1
    document = json.loads((check.out / "environment.json").read_text())
    assert (document["state"], document["results"]) == ("timed out", {})
    assert document["seconds"] < 20


def test_steps_find_packages_on_the_callers_path(check, monkeypatch, tmp_path):
    """On a machine where missing packages lie in a directory of their own."""
    monkeypatch.setattr(gpu_check, "PARTS", {"A": {"unknown": 60}})
    elsewhere = tmp_path / "site"
    elsewhere.mkdir()
    (elsewhere / "sitecustomize.py").write_text("print('found on the path')\n")
    monkeypatch.setenv("PYTHONPATH", str(elsewhere))
    run_part("A", check, 100)
    assert "found on the path" in (check.out / "unknown.log").read_text()
    monkeypatch.setenv("PYTHONPATH", "")
    assert gpu_check.python_path() == str(ROOT)


def test_a_step_without_enough_time_is_skipped(check, capsys):
    assert run_part("A", check, 0.2) == 0
    assert capsys.readouterr().out.count("skipped") == len(PARTS["A"])
    assert not list(check.out.iterdir())


@pytest.mark.ci
def test_a_failed_step_is_reported_with_the_end_of_its_log(check, monkeypatch):
    monkeypatch.setattr(gpu_check, "PARTS", {"A": {"unknown": 60}})
    assert run_part("A", check, 100) == 1
    document = json.loads((check.out / "unknown.json").read_text())
    assert document["state"] == "failed"
    assert "KeyError: 'unknown'" in document["log"][-1]
