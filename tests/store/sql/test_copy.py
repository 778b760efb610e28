"""The SQL copy in SQLite: rows, catching up, and databases that are down, locked, slow or invalid."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from dataclasses import replace

import pytest

from sweep.config import StoreConfig, absolute_index_url, read_experiment, to_dict
from sweep.errors import IndexUnavailable, InputError
from sweep.records import POINT_COLUMNS
from sweep.store.run_store import RunStore
from sweep.store.sql import table as sql
from sweep.store.sql.copy import IndexWriter, catch_up, check_index, index_url, rebuild
from sweep.worker.__main__ import work
from tests.faults.processes import CONTEXT, wait_until
from tests.toy_trainer import result, toy_experiment, toy_plan, train


def indexed_sweep(tmp_path, n_runs=4, url=None, name="toy"):
    """A toy sweep with a SQL copy; returns its store and the file of the database."""
    database = tmp_path / "points.db"
    plan = toy_plan(n_runs, name=name)
    config = StoreConfig(index_url=url or f"sqlite:///{database}")
    store = RunStore(tmp_path / name)
    store.add_plan(replace(plan, experiment=replace(plan.experiment, store=config)))
    return store, database


def rows(database, where="1", columns="*"):
    connection = sqlite3.connect(database)
    connection.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in connection.execute(f"select {columns} from sweep_points where {where}")]
    finally:
        connection.close()


def test_every_point_is_a_row_with_every_column(tmp_path):
    store, database = indexed_sweep(tmp_path)
    assert work(store.sweep_dir, train=train).n_done == 4
    copied = {row["run_key"]: row for row in rows(database)}
    assert len(copied) == 4
    for point in store.points().points:
        row = copied[point.run_key]
        assert {name: row[name] for name in POINT_COLUMNS} == point.values()
        assert (row["sweep"], row["excluded"]) == ("toy", None)
        stored = json.loads((store.sweep_dir / "runs" / point.run_key / "result.json").read_text())
        assert json.loads(row["result"]) == stored
    kinds = rows(database, columns="typeof(loss) l, typeof(flops) f, typeof(n_layers) n, typeof(corpus) c")
    assert kinds[0] == {"l": "real", "f": "real", "n": "integer", "c": "text"}


def test_the_rollback_journal_is_used(tmp_path):
    store, database = indexed_sweep(tmp_path, 1)
    work(store.sweep_dir, train=train)
    connection = sqlite3.connect(database)
    assert connection.execute("pragma journal_mode").fetchone() == ("delete",)
    connection.close()


def test_excluded_and_diverged_runs_are_marked(tmp_path):
    def diverges(run, placement, session):
        if run.name != "run-1":
            return train(run, placement, session)
        nothing = dict.fromkeys(("loss", "loss_stderr", "bits_per_byte"))
        return result(run, status="diverged", reason="nan", **nothing)

    store, database = indexed_sweep(tmp_path, 3)
    work(store.sweep_dir, train=diverges)
    victim = next(point.run_key for point in store.points().points if point.name == "run-2")
    store.exclude(victim, "a spike")
    config = store.latest_experiment().store
    assert catch_up(store, config, "toy") is None
    marked = {row["name"]: row["excluded"] for row in rows(database)}
    assert marked == {"run-0": None, "run-1": "diverged: nan", "run-2": "a spike"}


def test_a_rebuild_writes_what_is_missing_and_deletes_what_is_gone(tmp_path):
    store, database = indexed_sweep(tmp_path)
    work(store.sweep_dir, train=train)
    keys = sorted(store.run_keys())
    connection = sqlite3.connect(database)
    connection.execute("delete from sweep_points where run_key = ?", (keys[0],))
    connection.execute("update sweep_points set loss = 99 where run_key = ?", (keys[1],))
    connection.execute("update sweep_points set sweep = 'other' where run_key = ?", (keys[3],))
    connection.commit()
    connection.close()
    (store.sweep_dir / "runs" / keys[2] / "result.json").unlink()
    assert rebuild(store, store.latest_experiment().store, "toy") == 3
    assert sorted(row["run_key"] for row in rows(database, "sweep = 'toy'")) == [keys[0], keys[1], keys[3]]
    assert rows(database, "loss = 99") == []
    assert len(rows(database, "sweep = 'other'")) == 1  # rows of another sweep are kept
    database.unlink()
    assert rebuild(store, store.latest_experiment().store, "toy") == 3
    assert len(rows(database)) == 3


def test_sweeps_share_a_database(tmp_path):
    first, database = indexed_sweep(tmp_path, 3)
    second, _ = indexed_sweep(tmp_path, 2, name="second")
    for store in (first, second):
        work(store.sweep_dir, train=train)
    counted = rows(database, columns="sweep, count(*) over (partition by sweep) n")
    assert {(row["sweep"], row["n"]) for row in counted} == {("toy", 3), ("second", 2)}


def test_a_locked_database_never_stops_the_sweep_and_is_caught_up(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(sql, "LOCK_S", 0.3)
    store, database = indexed_sweep(tmp_path)
    blocker = sqlite3.connect(database, isolation_level=None)
    blocker.execute("begin exclusive")
    assert work(store.sweep_dir, train=train).n_done == 4
    assert capfd.readouterr().err.count("the sweep continues") == 1
    problem = catch_up(store, store.latest_experiment().store, "toy")
    assert "locked" in problem
    assert "--reindex" in problem
    blocker.execute("commit")
    blocker.close()
    assert catch_up(store, store.latest_experiment().store, "toy") is None
    assert len(rows(database)) == 4


def test_points_missed_are_written_with_the_next_one(tmp_path, monkeypatch):
    store, database = indexed_sweep(tmp_path, 3)
    entries = store.entries()
    work(store.sweep_dir, train=train)
    database.unlink()
    messages = []
    writer = IndexWriter(store.sweep_dir, messages.append)
    database.mkdir()  # a directory cannot be opened as a database
    writer.offer(entries[0])
    wait_until(lambda: bool(messages))
    assert len(messages) == 1
    database.rmdir()
    writer.offer(entries[1])
    writer.close()
    assert {row["run_key"] for row in rows(database)} == {entry.run_key for entry in entries[:2]}


def test_a_database_that_hangs_costs_a_leaving_worker_a_bounded_time(tmp_path, monkeypatch):
    monkeypatch.setattr(IndexWriter, "_write", lambda *_: time.sleep(60))
    store, _ = indexed_sweep(tmp_path, 4)
    monkeypatch.setattr(IndexWriter.close, "__defaults__", (0.2,))
    started = time.monotonic()
    assert work(store.sweep_dir, train=train).n_done == 4
    assert time.monotonic() - started < 30
    monkeypatch.setattr("sweep.store.sql.copy._synchronise", lambda *_, **__: time.sleep(30))
    assert "in time" in catch_up(store, store.latest_experiment().store, "toy", timeout_s=0.2)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("create table sweep_points (sweep text, run_key text)", "lacks"),
        ("create table sweep_schema (name text primary key, version int)", None),
    ],
)
def test_a_database_with_other_tables_is_refused_or_completed(tmp_path, statement, message):
    store, database = indexed_sweep(tmp_path, 1)
    connection = sqlite3.connect(database)
    connection.execute(statement)
    connection.commit()
    connection.close()
    assert work(store.sweep_dir, train=train).n_done == 1
    if message is None:
        assert len(rows(database)) == 1
        return
    with pytest.raises(IndexUnavailable, match=message):
        rebuild(store, store.latest_experiment().store, "toy")


def test_a_database_of_another_schema_version_is_left_alone(tmp_path):
    store, database = indexed_sweep(tmp_path, 2)
    work(store.sweep_dir, train=train)
    connection = sqlite3.connect(database)
    connection.execute("update sweep_schema set version = 7")
    connection.execute("delete from sweep_points")
    connection.commit()
    connection.close()
    with pytest.raises(IndexUnavailable, match=r"schema 7, not 1.*drop the tables"):
        rebuild(store, store.latest_experiment().store, "toy")
    assert rows(database) == []


def test_not_a_database_at_all(tmp_path):
    store, database = indexed_sweep(tmp_path, 1)
    database.write_text("these are not the points you are looking for" * 100)
    assert work(store.sweep_dir, train=train).n_done == 1
    assert "not a database" in catch_up(store, store.latest_experiment().store, "toy")


# --- concurrent writers ---------------------------------------------------------------------------------


def _write_all(sweep_dir, url, keys, worker):
    for key in keys:
        sql.SqlIndex(url).write([sql.point_row(sweep_dir, f"sweep-{worker}", key)])
    os._exit(0)


def test_concurrent_writers_lose_nothing(tmp_path):
    store, database = indexed_sweep(tmp_path, 8, url=f"sqlite:///{tmp_path / 'elsewhere.db'}")
    work(store.sweep_dir, train=train)
    keys, url = sorted(store.run_keys()), f"sqlite:///{database}"
    writers = [
        CONTEXT.Process(target=_write_all, args=(store.sweep_dir, url, keys, worker)) for worker in range(4)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert len(rows(database)) == 32


# --- URLs and secrets -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:CANARY@db/points",
        "postgresql://me:CAN/ARY@db/points",
        "postgresql+psycopg://me:CAN@ARY@db:5432/points",
        "postgresql://me@db/points?password=CANARY",
        "postgresql://me@db/points?sslmode=require&%70assword=CANARY",
        "postgresql://db/points?user=me&sslpassword=CANARY",
        "mysql://me:CANARY@db/points",
        "CANARY",
    ],
)
def test_a_url_with_a_password_is_refused_and_never_quoted(url):
    values = to_dict(toy_experiment()) | {"store": {"index_url": url}}
    with pytest.raises(InputError) as refused:
        read_experiment(values)
    assert "CAN" not in str(refused.value)
    assert "store.index_url" in str(refused.value)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite://me:pw@host/x"])
def test_a_sqlite_url_without_a_file_is_refused(url):
    with pytest.raises(InputError, match="sqlite:///FILE"):
        StoreConfig(index_url=url)


def test_urls_that_are_taken(tmp_path, monkeypatch):
    for url in ("sqlite:///points.db", "postgresql://me@db:5432/points?sslmode=require", "postgresql:///x"):
        assert StoreConfig(index_url=url).index_url == url
    monkeypatch.chdir(tmp_path)
    assert absolute_index_url("sqlite:///a.db") == f"sqlite:///{tmp_path}/a.db"
    assert absolute_index_url(f"sqlite:///{tmp_path}/a.db") == f"sqlite:///{tmp_path}/a.db"


def test_the_environment_overrules_and_may_hold_a_password(tmp_path, monkeypatch):
    config = StoreConfig(index_url="sqlite:///a.db")
    assert index_url(config) == "sqlite:///a.db"
    monkeypatch.setenv("SWEEP_INDEX_URL", "postgresql://me:CANARY@db/points")
    assert index_url(config) == index_url(StoreConfig()) == "postgresql://me:CANARY@db/points"
    monkeypatch.setenv("SWEEP_INDEX_URL", "oracle://me:CANARY@db/points")
    with pytest.raises(InputError, match="SWEEP_INDEX_URL=oracle") as refused:
        index_url(config)
    assert "CANARY" not in str(refused.value)


def test_no_password_reaches_a_file_or_a_message(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("SWEEP_INDEX_URL", "postgresql://me:CANARY@127.0.0.1:9/points")  # no server
    store, _ = indexed_sweep(tmp_path, 2)
    assert work(store.sweep_dir, train=train).n_done == 2
    problem = catch_up(store, store.latest_experiment().store, "toy")
    messages = problem + capfd.readouterr().err
    assert "postgresql://127.0.0.1:9/points" in messages
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"CANARY" not in written
    assert "CANARY" not in messages


def test_without_sqlalchemy_a_copy_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_index(StoreConfig())
    with pytest.raises(InputError, match=r"needs sqlalchemy: pip install 'sweep\[sql\]'"):
        check_index(StoreConfig(index_url="sqlite:///a.db"))
    with pytest.raises(InputError, match="needs sqlalchemy and psycopg"):
        check_index(StoreConfig(index_url="postgresql://db/points"))
