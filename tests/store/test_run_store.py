"""Plans, points, status and exclusions of a sweep."""

import csv
import json
import math
import time
from dataclasses import replace

import pyarrow.parquet
import pytest

from sweep.config import to_dict
from sweep.errors import DataError, InputError, SafetyError
from sweep.identity import canonical_json
from sweep.records import POINT_COLUMNS
from sweep.store.points import Execution, ResultError, result_payload
from sweep.store.run_store import RunStore
from sweep.worker.__main__ import work
from tests.configs import tiny_run
from tests.toy_trainer import result, science, toy_plan, toy_sweep, train

EXECUTION = Execution(
    attempt=1, started_at="2026-01-01T00:00:00+00:00", finished_at="2026-01-01T00:00:01+00:00"
)
HOSTILE = ["", ".", "..", "../x", "/etc/passwd", "a/b", "A" * 16, "0" * 15, "0" * 17, "0" * 300]
HOSTILE += [
    "0123456789abcde\n",
    "0123456789abcdef\n",
    "\x000123456789abcde",
    "-rf",
    "０１２３４５６７８９ａｂｃｄｅｆ",
]


def test_a_sweep_is_the_union_of_its_plans_longest_run_first(tmp_path):
    store = toy_sweep(tmp_path, 3)
    store.add_plan(toy_plan(5, name="more", lease_s=77))
    entries = store.entries()
    assert [e.flops for e in entries] == sorted((e.flops for e in entries), reverse=True)
    assert len({e.run_key for e in entries}) == len(entries) == 5
    assert {e.experiment.launch.lease_s for e in entries} == {77}  # from the latest plan that lists a run
    store.add_plan(toy_plan(3))
    assert sum(e.experiment.launch.lease_s == 77 for e in store.entries()) == 2
    assert len(list((tmp_path / "plans").iterdir())) == 2


def test_a_config_is_canonical_and_never_rewritten(tmp_path):
    store = toy_sweep(tmp_path, 1)
    run = toy_plan(1).runs[0]
    path = tmp_path / "runs" / run.run_key / "config.json"
    assert path.read_text() == canonical_json(to_dict(run.config))
    before = path.stat()
    store.add_plan(toy_plan(1))
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert store.run_config(run.run_key) == run.config


def test_an_exchanged_config_is_refused_and_a_torn_one_repaired(tmp_path):
    store = toy_sweep(tmp_path, 1)
    run = toy_plan(1).runs[0]
    path = tmp_path / "runs" / run.run_key / "config.json"
    path.write_text(path.read_text()[:40])
    with pytest.raises(DataError, match="not a valid run config"):
        store.run_config(run.run_key)
    store.add_plan(toy_plan(1))
    assert store.run_config(run.run_key) == run.config
    path.write_text(canonical_json(to_dict(replace(run.config, seed=9))))
    with pytest.raises(DataError, match="restore it"):
        store.run_config(run.run_key)
    with pytest.raises(SafetyError, match="belongs to another run"):
        store.add_plan(toy_plan(1))


@pytest.mark.parametrize("key", HOSTILE)
def test_no_run_key_leads_out_of_the_sweep(tmp_path, key):
    store = toy_sweep(tmp_path / "sweep", 1)
    for call in (store.run_config, store.has_result, store.retry, lambda k: store.exclude(k, "why")):
        with pytest.raises(InputError, match="not a run key"):
            call(key)
    plan = json.loads(next((tmp_path / "sweep" / "plans").iterdir()).read_text())
    plan["runs"][0]["run_key"] = key
    next((tmp_path / "sweep" / "plans").iterdir()).write_text(json.dumps(plan))
    with pytest.raises(InputError, match="the invalid run key"):
        work(tmp_path / "sweep", train=train)
    assert [path.name for path in tmp_path.iterdir()] == ["sweep"]


def test_a_directory_without_a_plan_is_bad_input(tmp_path):
    for call in (RunStore(tmp_path).entries, RunStore(tmp_path).status, lambda: work(tmp_path, train=train)):
        with pytest.raises(InputError, match="holds no sweep"):
            call()
    assert RunStore(tmp_path / "absent").points().points == ()


@pytest.mark.parametrize("name", ["loss", "loss_stderr", "bits_per_byte", "train_loss", "wall_time_s", "mfu"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "1.0", True])
def test_a_metric_that_is_no_finite_number_never_becomes_a_point(name, value):
    run = tiny_run()
    with pytest.raises(ResultError, match=name):
        result_payload(run, result(run, **{name: value}), EXECUTION)


@pytest.mark.parametrize("changes", [{"loss": None}, {"loss": 0.0}, {"loss": -1.0}, {"train_loss": None}])
def test_a_done_run_needs_its_losses(changes):
    with pytest.raises(ResultError, match="loss"):
        result_payload(tiny_run(), result(tiny_run(), **changes), EXECUTION)


def test_a_curve_with_a_hole_is_no_result_unless_the_run_diverged():
    run = tiny_run()
    broken = replace(result(run).curve[0], train_loss=math.nan)
    with pytest.raises(ResultError, match="curve"):
        result_payload(run, result(run, curve=(broken,)), EXECUTION)
    diverged = result(
        run, status="diverged", reason="loss is nan", loss=None, train_loss=None, curve=(broken,)
    )
    assert result_payload(run, diverged, EXECUTION)["curve"] == []
    with pytest.raises(ResultError, match="diverged"):
        result_payload(run, result(run, status="diverged"), EXECUTION)


@pytest.mark.parametrize("damage", ["truncate", "nan", "no point", "other key", "text loss", "no loss"])
def test_a_damaged_result_is_shown_and_never_a_point(tmp_path, damage):
    store = toy_sweep(tmp_path, 2)
    work(tmp_path, train=train)
    key = toy_plan(1).runs[0].run_key
    path = tmp_path / "runs" / key / "result.json"
    stored = json.loads(path.read_text())
    changed = {"nan": ("loss", math.nan), "text loss": ("loss", "1"), "no loss": ("loss", None)}
    changed["other key"] = ("run_key", "0" * 16)
    if damage in changed:
        name, value = changed[damage]
        stored["point"][name] = value
    elif damage == "no point":
        del stored["point"]
    text = json.dumps(stored)
    path.write_text(text[: len(text) // 2] if damage == "truncate" else text)
    points = store.points()
    assert [point.run_key for point in points.points] == [toy_plan(2).runs[1].run_key]
    assert [(e.run_key, "delete it" in e.reason) for e in points.excluded] == [(key, True)]
    assert store.status().counts == {"done": 1, "failed:data": 1}


def test_tables_hold_every_point_in_full_precision(tmp_path):
    store = toy_sweep(tmp_path, 3)
    work(tmp_path, train=train)
    csv_path, parquet_path = store.write_points()
    with csv_path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = pyarrow.parquet.read_table(parquet_path).to_pylist()
    points = store.points().points
    assert len(rows) == len(table) == len(points) == 3
    assert tuple(rows[0]) == tuple(table[0]) == POINT_COLUMNS
    for row, record, point in zip(rows, table, points, strict=True):
        assert float(row["loss"]) == record["loss"] == point.loss
        assert int(row["flops"]) == record["flops"] == point.flops
        assert (row["mfu"], record["mfu"]) == ("", None)
        assert row["name"] == record["name"] == point.name


def test_a_diverged_or_excluded_run_is_shown_and_never_fitted(tmp_path):
    def diverge(run, placement, session):
        if run.name != "run-0":
            return train(run, placement, session)
        return result(run, status="diverged", reason="loss is nan", loss=None, train_loss=None)

    store = toy_sweep(tmp_path, 3)
    assert work(tmp_path, train=diverge).n_diverged == 1
    keys = [run.run_key for run in toy_plan(3).runs]
    store.exclude(keys[1], "the disk was swapped")
    with pytest.raises(InputError, match="--reason"):
        store.exclude(keys[1], " ")
    with pytest.raises(InputError, match="no run"):
        store.exclude("0" * 16, "why")
    points = store.points()
    assert len(points.points) == 3
    reasons = {e.run_key: e.reason for e in points.excluded}
    assert reasons == {keys[0]: "diverged: loss is nan", keys[1]: "the disk was swapped"}
    shown = {run.run_key: run for run in store.status().runs}
    assert (shown[keys[0]].status, shown[keys[0]].reason) == ("diverged", "loss is nan")
    assert (shown[keys[1]].status, shown[keys[1]].excluded) == ("done", "the disk was swapped")
    assert store.status().finished
    assert work(tmp_path, train=diverge).n_diverged == 0  # it has a result: not tried again


def test_status_weighs_what_is_left_by_flops(tmp_path):
    store = toy_sweep(tmp_path, 2, n_steps=10)
    big, small = store.entries()
    assert store.status().counts == {"planned": 2}
    assert store.status().eta_s is None
    claimed = store.queue("w").claim()
    assert claimed is not None
    assert claimed[0] == big
    claimed[1].beat({"counter": 1, "first_step": 0, "step": big.n_steps // 2, "elapsed_s": 3.0})
    status = store.status()
    assert status.counts == {"running": 1, "planned": 1}
    done = big.flops * (big.n_steps // 2) / big.n_steps
    assert status.flops_done == pytest.approx(done)
    assert status.eta_s == pytest.approx((big.flops + small.flops - done) / (done / 3.0))
    document = json.loads(json.dumps(status.to_json(), allow_nan=False))
    assert {"counts", "flops_done", "flops_total", "eta_s", "runs"} <= document.keys()
    assert {"run_key", "name", "status", "attempts", "reason"} <= document["runs"][0].keys()


def test_status_of_a_thousand_runs_takes_less_than_a_second(tmp_path):
    store = RunStore(tmp_path)
    plan = toy_plan(1000, n_steps=5)
    store.add_plan(plan)
    payload = result_payload(plan.runs[0].config, result(plan.runs[0].config), EXECUTION)
    for run in plan.runs[:500]:
        run_dir = tmp_path / "runs" / run.run_key
        payload["point"]["run_key"] = run.run_key
        (run_dir / "result.json").write_text(json.dumps(payload))
        (run_dir / "attempts" / "1").mkdir(parents=True)
        (run_dir / "attempts" / "1" / "end.json").write_text('{"state":"done"}')
    started = time.process_time()
    status = store.status()
    assert time.process_time() - started < 1
    assert status.counts == {"done": 500, "planned": 500}


def test_a_deleted_result_is_trained_again_alone_and_comes_out_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_JOURNAL", str(tmp_path / "journal"))
    store = toy_sweep(tmp_path / "sweep", 4)
    work(tmp_path / "sweep", train=train)
    before = science(store)
    work(tmp_path / "sweep", train=train)
    assert len((tmp_path / "journal").read_text().split()) == 4  # finished: no run is trained
    (tmp_path / "sweep" / "runs" / toy_plan(4).runs[2].run_key / "result.json").unlink()
    work(tmp_path / "sweep", train=train)
    assert (tmp_path / "journal").read_text().split()[4:] == ["run-2"]
    assert science(store) == before


@pytest.mark.parametrize("key", ["retry_group", "pardon"])
def test_a_store_can_be_limited_to_a_retry_group_also_of_earlier_versions(tmp_path, key):
    store = toy_sweep(tmp_path, 2)
    retried, other = (entry.run_key for entry in store.entries())
    store.retry(retried, "group")
    store.retry(other)
    path = tmp_path / "runs" / retried / "retry.json"
    path.write_text(path.read_text().replace('"retry_group"', f'"{key}"'))
    assert [entry.run_key for entry in RunStore(tmp_path, retry_group="group").entries()] == [retried]
    assert RunStore(tmp_path, retry_group="another").entries() == []
