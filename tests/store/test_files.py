"""Atomic writes, hard-link commits and appended records, as seen by a reader after any failure."""

import errno
import os
from pathlib import Path

import pytest

from sweep.errors import SafetyError
from sweep.store import files


def fail(*_: object, **__: object) -> None:
    raise OSError(errno.EIO, "injected")


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.mark.parametrize("broken", ["open", "write", "fsync", "replace"])
def test_a_failed_write_leaves_the_old_content_and_nothing_else(tmp_path, monkeypatch, broken):
    path = tmp_path / "file"
    files.write_atomic(path, b"old")
    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="injected"):
        files.write_atomic(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {"file"}


def test_a_short_write_is_continued(tmp_path, monkeypatch):
    whole = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: whole(fd, data[:3]))
    files.write_atomic(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_only_the_first_of_two_commits_counts(tmp_path):
    for name in ("one", "two"):
        files.create(tmp_path / name, name.encode())
    assert files.publish(tmp_path / "one", tmp_path / "result")
    assert not files.publish(tmp_path / "two", tmp_path / "result")
    assert (tmp_path / "result").read_bytes() == b"one"


@pytest.mark.parametrize("reply", [errno.EIO, errno.EEXIST, errno.ENOENT])
def test_a_link_whose_reply_is_lost_counts(tmp_path, monkeypatch, reply):
    link = os.link

    def lose_reply(*args, **kwargs):
        link(*args, **kwargs)
        raise OSError(reply, "lost reply")

    files.create(tmp_path / "temporary", b"x")
    monkeypatch.setattr(os, "link", lose_reply)
    assert files.publish(tmp_path / "temporary", tmp_path / "result")


def test_a_link_that_failed_is_an_error(tmp_path, monkeypatch):
    files.create(tmp_path / "temporary", b"x")
    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(OSError, match="injected"):
        files.publish(tmp_path / "temporary", tmp_path / "result")
    assert not (tmp_path / "result").exists()


def test_a_symbolic_link_in_the_way_is_not_followed(tmp_path):
    (tmp_path / "victim").write_text("keep")
    (tmp_path / "result.tmp").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="result"):
        files.create(tmp_path / "result.tmp", b"overwritten")
    (tmp_path / "metrics.jsonl").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="metrics"):
        files.append_record(tmp_path / "metrics.jsonl", {"step": 1})
    assert (tmp_path / "victim").read_text() == "keep"


@pytest.mark.parametrize("torn_at", range(1, 12))
def test_a_torn_tail_costs_its_own_record_only(tmp_path, torn_at):
    path = tmp_path / "metrics.jsonl"
    files.append_record(path, {"step": 1})
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:torn_at])
    for step in (2, 3):
        files.append_record(path, {"step": step})
    steps = [record["step"] for record in files.read_records(path)]
    assert steps in ([1, 2, 3], [1, 1, 2, 3])  # without its newline, the second record is still complete
    assert steps == [1, 2, 3] or torn_at >= len(whole) - 1


def test_a_number_that_is_not_finite_is_stored_as_unknown(tmp_path):
    files.append_record(tmp_path / "m", {"loss": float("nan"), "nested": [float("inf"), 1.0]})
    assert list(files.read_records(tmp_path / "m")) == [{"loss": None, "nested": [None, 1.0]}]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"a": 1', b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_object_is_none(tmp_path, content):
    (tmp_path / "f").write_bytes(content)
    assert files.read_json(tmp_path / "f") is None
    assert files.read_json(tmp_path / "absent") is None


def test_a_sound_file_system_passes_the_probe_and_keeps_nothing_of_it(tmp_path):
    files.check_filesystem(tmp_path / "sweep")
    assert names(tmp_path / "sweep") == set()


def test_a_file_system_without_hard_links_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(SafetyError, match="hard links"):
        files.check_filesystem(tmp_path)
    assert names(tmp_path) == set()


def test_a_file_system_that_renames_over_directories_in_use_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "rename", lambda *_: None)
    with pytest.raises(SafetyError, match="renames over"):
        files.check_filesystem(tmp_path)
