"""What the system refuses a verb: one sentence with the place, no traceback, what is there untouched."""

from __future__ import annotations

import errno
import json
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweep.errors import DataError, InputError, SweepError, told_to_user
from sweep.store import files
from sweep.store.points import ResultError, read_result
from sweep.store.run_store import RunStore
from sweep.worker.__main__ import work
from tests.shell import command, environment, sweep
from tests.toy_trainer import toy_sweep, train


@pytest.fixture
def finished(tmp_path: Path) -> RunStore:
    store = toy_sweep(tmp_path / "sweep", 4)
    work(store.sweep_dir, train=train)
    return store


def in_shell(line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", line], cwd=cwd, env=environment(), capture_output=True, text=True, check=False
    )


def verb(*words: object) -> str:
    return shlex.join(map(str, command(*words)))


def content(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("words", [("fit", "--json"), ("exclude", "KEY", "--reason", "x"), ("cancel",)])
def test_a_verb_that_may_not_write_says_where_and_leaves_all_as_it_was(finished, tmp_path, words):
    """The system's own refusal: no file may grow, which costs root an error too."""
    key = finished.entries()[0].run_key
    name, *rest = [key if word == "KEY" else word for word in words]
    before = content(finished.sweep_dir)
    done = in_shell(f"ulimit -f 0; exec {verb(name, finished.sweep_dir, *rest)}", tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: {finished.sweep_dir}")
    assert "cannot be read or written: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert ".tmp" not in done.stderr
    assert content(finished.sweep_dir) == before
    if name == "fit":  # what was computed is shown all the same
        assert json.loads(done.stdout)["points"]["n"] == 4


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("words", [("config", "experiment=smoke"), ("plan", "experiment=smoke", "--json")])
def test_a_document_that_does_not_arrive_is_said(tmp_path, words):
    done = in_shell(f"exec {verb(*words)} > /dev/full", tmp_path)
    assert done.returncode == 1
    assert "error: standard output cannot be read or written: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("name", ["report", "fit", "status"])
def test_a_file_in_place_of_a_sweep_is_bad_input(tmp_path, name):
    (tmp_path / "file").write_text("")
    done = sweep(name, "file", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "file" in done.stderr
    assert done.stderr.count("\n") == 1


def test_ctrl_c_where_there_is_nothing_to_save(tmp_path):
    stop = "def stop(*_): raise KeyboardInterrupt"
    before = f"import sweep.config.compose as c\n{stop}\nc.compose_experiments = stop"
    done = sweep("plan", cwd=tmp_path, before=before)
    assert done.returncode == 130
    assert done.stderr.strip().startswith("interrupted: ")


@pytest.fixture
def locked(monkeypatch) -> Iterator[set[str]]:
    """Names of files that the system does not show: for root there is no permission to take away."""
    names: set[str] = set()
    real = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.name in names:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    return names


def test_a_result_that_may_not_be_read_is_not_taken_for_a_broken_one(finished, locked):
    entry = finished.entries()[0]
    path = finished.sweep_dir / "runs" / entry.run_key / "result.json"
    locked.add("result.json")
    with pytest.raises(ResultError, match=r"cannot be read, although .* valid: Permission denied$"):
        read_result(path, entry.run_key)
    assert finished.status().counts == {"failed:data": 4}
    assert all("delete" not in str(run.reason) for run in finished.status().runs)
    locked.clear()
    assert finished.status().counts == {"done": 4}


def test_a_plan_and_a_config_that_may_not_be_read_are_not_to_be_deleted(finished, locked):
    entry = finished.entries()[0]
    locked.add("config.json")
    with pytest.raises(InputError, match=r"config.json cannot be read, although .* valid"):
        finished.run_config(entry.run_key)
    (plan,) = (finished.sweep_dir / "plans").glob("*.json")
    locked.add(plan.name)
    with pytest.raises(InputError, match=r"cannot be read, although .* valid: Permission denied$"):
        RunStore(finished.sweep_dir).entries()


def test_read_json_takes_what_is_not_shown_for_absent(tmp_path, locked):
    files.write_atomic(tmp_path / "beat.json", b"{}")
    locked.add("beat.json")
    assert files.read_json(tmp_path / "beat.json") is None
    with pytest.raises(DataError, match=r"may be valid"):
        files.read_kept(tmp_path / "beat.json")
    assert files.read_kept(tmp_path / "absent.json") is None


def test_only_what_somebody_can_mend_is_told_in_a_sentence():
    full = told_to_user(OSError(errno.ENOSPC, "No space left on device"))
    assert str(full).startswith("a file cannot be read or written: No space left on device; ")
    assert (type(full), full and full.exit_code) == (SweepError, 1)
    assert isinstance(told_to_user(OSError(errno.ENOTDIR, "Not a directory", "x")), InputError)
    assert told_to_user(OSError(errno.EBADF, "Bad file descriptor")) is None
    assert told_to_user(FileNotFoundError(errno.ENOENT, "No such file", "x")) is None
