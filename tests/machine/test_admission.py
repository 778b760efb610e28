"""Admission of runs on a shared device, and release of the memory of dead workers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

from sweep.machine.admission import DIRECTORY, MEMORY, Admission, admission_directory, admission_from
from sweep.worker.__main__ import work
from tests.toy_trainer import toy_sweep, train


def hold(admission, n_bytes):
    with admission.alone():
        admission.hold(n_bytes)


def free(admission):
    with admission.alone() as free_bytes:
        return free_bytes


def test_memory_of_others_is_not_free_until_released(tmp_path):
    first, second, third = (Admission(tmp_path / "gpu", 100) for _ in range(3))
    assert free(first) is None  # no other worker: no limit
    hold(first, 60)
    assert free(second) == 40
    hold(second, 30)
    assert free(third) == 10
    first.release()
    first.release()
    assert free(third) == 70
    second.release()
    assert free(third) is None


def test_more_than_there_is_leaves_nothing(tmp_path):
    first, second = Admission(tmp_path, 100), Admission(tmp_path, 100)
    hold(first, 250)
    assert free(second) == 0
    first.release()


def test_memory_of_a_killed_process_is_free_at_once(tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom sweep.machine.admission import Admission\n"
        "admission = Admission(Path(sys.argv[1]), 100)\n"
        "with admission.alone():\n    admission.hold(90)\n"
        "print('held', flush=True)\ntime.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout.readline() == "held\n"
        mine = Admission(tmp_path, 100)
        assert free(mine) == 10
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert free(mine) is None
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_a_file_in_the_way_is_never_followed(tmp_path, monkeypatch):
    monkeypatch.setattr("secrets.token_hex", lambda n: "name")
    (tmp_path / "name.bytes").symlink_to(tmp_path / "elsewhere")
    hold(Admission(tmp_path, 100), 1)
    assert not (tmp_path / "elsewhere").exists()


def test_a_directory_that_goes_is_made_again_and_one_that_cannot_be_had_limits_nothing(tmp_path):
    first, second = Admission(tmp_path / "gpu", 100), Admission(tmp_path / "gpu", 100)
    hold(first, 60)
    shutil.rmtree(tmp_path / "gpu")  # as when the temporary directory is cleared
    first.release()
    hold(first, 60)
    assert free(second) == 40
    first.release()
    (tmp_path / "file").touch()
    nowhere = Admission(tmp_path / "file" / "gpu", 100)
    hold(nowhere, 60)
    assert free(nowhere) is None
    nowhere.release()


def test_reservations_survive_a_logout(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert admission_directory("GPU-1").parent.parent == tmp_path


def test_without_variables_there_is_no_admission_control(tmp_path):
    assert admission_from({}) is None
    assert admission_from({DIRECTORY: str(tmp_path), MEMORY: "5"}) is not None


def test_a_worker_claims_runs_that_fit_next_to_the_others(tmp_path, monkeypatch):
    """With half the device reserved, small runs are trained first, the large one after the release."""
    store = toy_sweep(tmp_path / "toy", 4)
    largest = max(entry.memory_bytes for entry in store.entries())
    monkeypatch.setenv(DIRECTORY, str(tmp_path / "device"))
    monkeypatch.setenv(MEMORY, str(2 * largest))
    other = Admission(tmp_path / "device", 2 * largest)
    hold(other, largest)
    order = []

    def recorded(run, placement, session):
        order.append((run.name, free(other)))
        if len(order) == 3:
            other.release()
        return train(run, placement, session)

    entries = store.entries()
    monkeypatch.setattr(
        "sweep.store.queue.read_entries", lambda *_: [_larger(entries[0], largest + 1), *entries[1:]]
    )
    summary = work(tmp_path / "toy", train=recorded)
    other.release()
    assert summary.n_done == 4
    assert [name for name, _ in order][-1] == entries[0].name
    assert os.listdir(tmp_path / "device") == ["lock"]  # noqa: PTH208


def _larger(entry, n_bytes):
    from dataclasses import replace

    return replace(entry, memory_bytes=n_bytes)
