"""Checkpoints: whole or not there, two kept, damage passed over."""

import contextlib
import os
import random

import pytest
import torch

from sweep.train.checkpoint import Checkpoint, load_latest, save_checkpoint


def state(step):
    generator = torch.Generator().manual_seed(step)
    tensors = {"a": torch.randn(50, generator=generator), "b": torch.arange(7)}
    return Checkpoint(step=step, tensors=tensors, values={"note": f"step {step}", "curve": [1.5, None]})


def assert_same(one, other):
    assert (one.step, one.values) == (other.step, other.values)
    assert one.tensors.keys() == other.tensors.keys()
    assert all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)


def test_the_newest_comes_back_and_two_are_kept(tmp_path):
    assert load_latest(tmp_path) is None
    for step in (1, 9, 10, 200):
        save_checkpoint(tmp_path, state(step))
        assert_same(load_latest(tmp_path), state(step))
    assert sorted(path.name[:17] for path in tmp_path.iterdir()) == [
        "step-000000000010", "step-000000000010", "step-000000000200", "step-000000000200",
    ]  # fmt: skip


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_any_damage_is_seen_and_the_older_one_used(tmp_path, suffix):
    generator = random.Random(0)
    save_checkpoint(tmp_path, state(1))
    save_checkpoint(tmp_path, state(2))
    victim = tmp_path / f"step-{2:012d}{suffix}"
    good = victim.read_bytes()
    for _ in range(100):
        offset = generator.randrange(len(good))
        flipped = bytearray(good)
        flipped[offset] ^= 1 << generator.randrange(8)
        for damaged in (bytes(flipped), good[:offset], b""):
            victim.write_bytes(damaged)
            assert_same(load_latest(tmp_path), state(1))
    victim.write_bytes(good)
    assert_same(load_latest(tmp_path), state(2))


@pytest.mark.parametrize("failing", ["open", "write", "fsync", "replace"])
@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_a_failure_while_saving_leaves_the_last_one_and_no_litter(tmp_path, monkeypatch, failing, at):
    save_checkpoint(tmp_path, state(1))
    calls = 0

    def failing_once(real):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == at + 1:
                raise OSError(28, "No space left on device")
            return real(*args, **kwargs)

        return call

    monkeypatch.setattr(os, failing, failing_once(getattr(os, failing)))
    with contextlib.suppress(OSError):
        save_checkpoint(tmp_path, state(2))
    monkeypatch.undo()
    assert list(tmp_path.glob("*.tmp")) == []
    found = load_latest(tmp_path)
    assert_same(found, state(found.step))
    save_checkpoint(tmp_path, state(3))
    assert_same(load_latest(tmp_path), state(3))


def test_what_a_death_while_saving_left_goes_with_the_next_save(tmp_path):
    save_checkpoint(tmp_path, state(1))
    (tmp_path / "step-000000000002.safetensors").write_bytes(b"no header came")
    (tmp_path / ".step-000000000002.json.1-ab.tmp").write_bytes(b"{")
    save_checkpoint(tmp_path, state(3))
    assert sorted({path.stem for path in tmp_path.iterdir()}) == ["step-000000000001", "step-000000000003"]


def test_checkpoints_of_a_future_that_was_given_up_do_not_displace_new_ones(tmp_path):
    """After a restart from the beginning, because the code changed, the new ones have smaller steps."""
    for step in (900, 990):
        save_checkpoint(tmp_path, state(step))
    for step in (5, 10):
        save_checkpoint(tmp_path, state(step))
        assert_same(load_latest(tmp_path), state(step))
    assert len(list(tmp_path.iterdir())) == 4


def test_a_disk_that_does_not_give_the_newest_back_falls_back(tmp_path, monkeypatch):
    for step in (1, 2):
        save_checkpoint(tmp_path, state(step))
    whole = type(tmp_path).open

    def bad_sector(path, *arguments, **named):
        if path.name == "step-000000000002.safetensors":
            raise OSError(5, "Input/output error")
        return whole(path, *arguments, **named)

    monkeypatch.setattr(type(tmp_path), "open", bad_sector)
    assert_same(load_latest(tmp_path), state(1))


def test_a_symbolic_link_in_the_way_is_replaced_not_followed(tmp_path):
    (tmp_path / "victim").write_text("keep")
    directory = tmp_path / "checkpoint"
    directory.mkdir()
    for name in ("step-000000000001.json", "step-000000000001.safetensors"):
        (directory / name).symlink_to(tmp_path / "victim")
        (directory / f"{name}.tmp").symlink_to(tmp_path / "victim")
    save_checkpoint(directory, state(1))
    assert_same(load_latest(directory), state(1))
    assert (tmp_path / "victim").read_text() == "keep"
