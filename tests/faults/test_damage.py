"""Damaged files: checkpoints cut or with flipped bits, truncated metrics, invalid numbers."""

import json
import math
import random

import pytest
import torch

from sweep.store.files import append_record, read_records
from sweep.train.checkpoint import Checkpoint, load_latest, save_checkpoint
from sweep.worker.__main__ import work
from tests.toy_trainer import result, toy_sweep, train


def state(step):
    generator = torch.Generator().manual_seed(step)
    return Checkpoint(step=step, tensors={"w": torch.randn(999, generator=generator)}, values={"note": "x"})


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_damage_to_a_checkpoint_at_200_offsets_is_seen(tmp_path, measured, suffix, damage):
    generator = random.Random(f"{suffix} {damage}")
    for step in (1, 2):
        save_checkpoint(tmp_path, state(step))
    victim = tmp_path / f"step-{2:012d}{suffix}"
    good, n_seen = victim.read_bytes(), 0
    for index in range(200):
        offset = index * len(good) // 200  # evenly from the first byte
        damaged = bytearray(good[:offset] if damage == "cut" else good)
        if damage == "flip":
            damaged[offset] ^= 1 << generator.randrange(8)
        victim.write_bytes(damaged)
        found = load_latest(tmp_path)
        n_seen += (
            found is not None and found.step == 1 and torch.equal(found.tensors["w"], state(1).tensors["w"])
        )
    assert n_seen == 200
    victim.write_bytes(good)
    assert load_latest(tmp_path).step == 2
    measured(f"checkpoint{suffix} {damage} at 200 offsets", f"{n_seen} of 200 seen, fell back")


def test_a_torn_tail_of_metrics_costs_no_whole_record(tmp_path, measured):
    path = tmp_path / "metrics.jsonl"
    records = [{"step": step, "train_loss": 1 / step, "note": "µ\n"} for step in range(1, 6)]
    for record in records:
        append_record(path, record)
    whole = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(whole) if byte == 10]
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        n_whole = sum(end - 1 <= cut for end in ends)  # a record without only its newline is complete
        for step in (6, 7):
            append_record(path, {"step": step})
        assert list(read_records(path)) == [*records[:n_whole], {"step": 6}, {"step": 7}], cut
    measured(
        "torn tail of metrics.jsonl, two appends", f"{len(whole)} of {len(whole)} cuts, every whole record"
    )


UNUSABLE = [None, "", " ", "1.5", math.nan, math.inf, -math.inf, True, 0, -1.0, [1.5], {"loss": 1.5}]


@pytest.mark.parametrize("column", ["loss", "train_loss"])
@pytest.mark.parametrize("value", UNUSABLE, ids=repr)
def test_an_unusable_metric_never_becomes_a_point(tmp_path, column, value):
    store = toy_sweep(tmp_path, 2, max_failures=1)

    def spoilt(run, placement, session):
        return result(run, **{column: value}) if run.name == "run-0" else train(run, placement, session)

    work(tmp_path, train=spoilt)
    assert [point.name for point in store.points().points] == ["run-1"]
    shown = {run.name: run for run in store.status().runs}["run-0"]
    assert shown.status == "failed:code"
    assert column in shown.reason


def test_a_metric_spoilt_on_disk_is_left_out_with_a_reason(tmp_path, measured):
    store = toy_sweep(tmp_path, 1)
    work(tmp_path, train=train)
    path = next(tmp_path.glob("runs/*/result.json"))
    sound = json.loads(path.read_text())
    for value in UNUSABLE:
        spoilt = {**sound, "point": {**sound["point"], "loss": value}}
        path.write_text(json.dumps(spoilt))
        stored = store.points()
        assert stored.points == ()
        assert "delete it to train the run again" in stored.excluded[0].reason
    del sound["point"]["loss"]
    path.write_text(json.dumps(sound))
    assert store.points().points == ()
    figure = f"0 points of {len(UNUSABLE)} values in 2 columns, and of {len(UNUSABLE) + 1} on disk"
    measured("missing, blank, non-finite metric", figure)
