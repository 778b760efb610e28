"""A worker's time limit: no run is claimed that could not save, and a live run saves in time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from sweep.errors import InputError
from sweep.launch.process import read_deadline
from sweep.worker.__main__ import main
from tests.toy_trainer import toy_sweep, train


def test_by_default_there_is_no_deadline() -> None:
    deadline = read_deadline({})
    assert deadline.left_s == float("inf")
    assert not deadline.passed()
    assert not deadline.too_near_to_claim()


def test_a_deadline_counts_in_durations() -> None:
    deadline = read_deadline({"SWEEP_DEADLINE": str(time.time() + 30)})
    assert 28 < deadline.left_s <= 30
    assert deadline.too_near_to_claim()  # less than the minute that is the default
    roomy = read_deadline({"SWEEP_DEADLINE": str(time.time() + 30), "SWEEP_MIN_CLAIM_S": "10"})
    assert not roomy.too_near_to_claim()
    assert read_deadline({"SWEEP_DEADLINE": "1"}).passed()


def test_a_deadline_that_is_no_number_is_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SWEEP_DEADLINE", "tomorrow")
    with pytest.raises(InputError):
        read_deadline()
    toy_sweep(tmp_path, 1)
    assert main([str(tmp_path)], train=train) == 2
    assert "SWEEP_DEADLINE='tomorrow' is invalid: set it to a finite number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SWEEP_DEADLINE", "nan"),
        ("SWEEP_MIN_CLAIM_S", "inf"),
        ("SWEEP_ADMISSION_BYTES", "much"),
        ("SWEEP_N_THREADS", "0"),
    ],
)
def test_invalid_numbers_in_other_variables_are_bad_input(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
) -> None:
    monkeypatch.setenv("SWEEP_ADMISSION_DIR", str(tmp_path / "device"))
    monkeypatch.setenv(name, value)
    store = toy_sweep(tmp_path / "sweep", 1)
    assert main([str(tmp_path / "sweep")], train=train) == 2
    assert f"{name}={value!r} is invalid" in capsys.readouterr().err
    assert store.status().counts == {"planned": 1}


def test_no_run_is_claimed_that_could_not_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEP_DEADLINE", str(time.time() + 20))
    store = toy_sweep(tmp_path, 2)
    assert main([str(tmp_path)], train=train) == 75
    assert store.status().counts == {"planned": 2}
    assert list(tmp_path.glob("runs/*/attempts")) == []


def test_a_run_saves_when_the_time_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEP_DEADLINE", str(time.time() + 0.6))
    monkeypatch.setenv("SWEEP_MIN_CLAIM_S", "0.1")
    monkeypatch.setenv("TOY_STEP_S", "0.01")
    store = toy_sweep(tmp_path, 1, n_steps=1000)
    assert main([str(tmp_path)], train=train) == 75
    (seen,) = store.status().runs
    assert (seen.status, seen.reason) == ("preempted", "the time limit of this worker has been reached")
    assert 0 < seen.step < 1000
