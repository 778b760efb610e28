"""System errors in a verb: one sentence that names the file, no traceback, existing files untouched."""

from __future__ import annotations

import errno
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweep.errors import DataError, InputError, SweepError, user_error
from sweep.store import files
from sweep.store.points import ResultError, read_result
from sweep.store.run_store import RunStore
from sweep.worker.__main__ import work
from tests.shell import command, environment, sweep
from tests.toy_trainer import toy_sweep, train
from tests.verbs import forked


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


@pytest.mark.parametrize(
    "words",
    [
        ("fit", "--json"),
        pytest.param(("exclude", "KEY", "--reason", "x"), marks=pytest.mark.ci),
        pytest.param(("cancel",), marks=pytest.mark.ci),
    ],
)
def test_a_verb_that_cannot_write_names_the_file_and_changes_nothing(finished, tmp_path, words):
    """With a limit on file sizes, which holds for root too."""
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
    if name == "fit":  # the laws are printed nevertheless
        assert json.loads(done.stdout)["points"]["n"] == 4


def test_new_files_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "runs.csv").write_text("n_params,n_tokens,flops,loss\n1e6,2e7,1.2e14,3.5\n")
    for words, named in (
        (("import", "runs.csv", "--into", "new"), r"new/runs/[0-9a-f]{16}/result\.json"),
        (("init", "x"), r"x/configs/experiment/x\.yaml"),
    ):
        done = in_shell(f"ulimit -f 0; exec {verb(*words)}", tmp_path)
        assert done.returncode == 1
        assert re.search(rf"^error: {named} cannot be read or written: File too large", done.stderr, re.M)
    assert not (tmp_path / "x").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_standard_output_is_an_error(tmp_path):
    done = in_shell(f"exec {verb('config', 'experiment=smoke')} > /dev/full", tmp_path)
    assert done.returncode == 1
    assert "error: standard output cannot be read or written: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_results_are_on_stdout_and_survive_a_pipe(finished, tmp_path):
    plan = verb("plan", "experiment=smoke", f"data_dir={tmp_path / 'data'}")
    cut = in_shell(f"{plan} | head -n 2", tmp_path)
    assert cut.stdout.splitlines()[0].split()[:4] == ["run", "N", "D", "D/N"]
    assert (len(cut.stdout.splitlines()), cut.stderr) == (2, "")
    for words, part in (
        (("status", finished.sweep_dir), "4 runs"),
        (("fit", finished.sweep_dir, "fit.n_bootstrap=20"), "4 points fitted"),
        (("doctor", "experiment=smoke", f"data_dir={tmp_path / 'data'}"), "torch"),
    ):
        done = forked(*words, cwd=tmp_path)
        assert part in done.stdout, words
        assert "\x1b" not in done.stdout
        assert done.stderr == ""


@pytest.mark.parametrize("name", ["report", "fit", "status"])
def test_a_file_in_place_of_a_sweep_is_bad_input(tmp_path, name):
    (tmp_path / "file").write_text("")
    done = forked(name, "file", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "file" in done.stderr
    assert done.stderr.count("\n") == 1


def test_ctrl_c_before_anything_runs(tmp_path):
    stop = "def stop(*_): raise KeyboardInterrupt"
    before = f"import sweep.config.compose as c\n{stop}\nc.compose_experiments = stop"
    done = sweep("plan", "experiment=smoke", cwd=tmp_path, before=before)
    assert done.returncode == 130
    assert done.stderr.strip().startswith("interrupted: ")


@pytest.fixture
def locked(monkeypatch) -> Iterator[set[str]]:
    """Names of files that cannot be read, for root too, which has every permission."""
    names: set[str] = set()
    real = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.name in names:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    return names


def test_a_result_without_permission_is_not_taken_for_damaged(finished, locked):
    entry = finished.entries()[0]
    path = finished.sweep_dir / "runs" / entry.run_key / "result.json"
    locked.add("result.json")
    with pytest.raises(ResultError, match=r"cannot be read, although .* valid: Permission denied$"):
        read_result(path, entry.run_key)
    assert finished.status().counts == {"failed:data": 4}
    assert all("delete" not in str(run.reason) for run in finished.status().runs)
    locked.clear()
    assert finished.status().counts == {"done": 4}


def test_a_plan_and_a_config_without_permission_are_not_to_be_deleted(finished, locked):
    entry = finished.entries()[0]
    locked.add("config.json")
    with pytest.raises(InputError, match=r"config.json cannot be read, although .* valid"):
        finished.run_config(entry.run_key)
    (plan,) = (finished.sweep_dir / "plans").glob("*.json")
    locked.add(plan.name)
    with pytest.raises(InputError, match=r"cannot be read, although .* valid: Permission denied$"):
        RunStore(finished.sweep_dir).entries()


def test_read_json_takes_an_unreadable_file_for_absent(tmp_path, locked):
    files.write_atomic(tmp_path / "beat.json", b"{}")
    locked.add("beat.json")
    assert files.read_json(tmp_path / "beat.json") is None
    with pytest.raises(DataError, match=r"may be valid"):
        files.read_kept(tmp_path / "beat.json")
    assert files.read_kept(tmp_path / "absent.json") is None


def test_only_errors_that_a_user_can_fix_get_a_sentence():
    full = user_error(OSError(errno.ENOSPC, "No space left on device"))
    assert str(full).startswith("a file cannot be read or written: No space left on device; ")
    assert (type(full), full and full.exit_code) == (SweepError, 1)
    assert isinstance(user_error(OSError(errno.ENOTDIR, "Not a directory", "x")), InputError)
    assert user_error(OSError(errno.EBADF, "Bad file descriptor")) is None
    assert user_error(FileNotFoundError(errno.ENOENT, "No such file", "x")) is None


def test_control_characters_of_a_path_are_shown(tmp_path):
    done = sweep("status", "a\x1b[31m\nb", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(r"error: a\x1b[31m\nb holds no sweep")
