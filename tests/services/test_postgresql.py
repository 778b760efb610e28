"""The SQL copy in a real PostgreSQL: concurrent writers, and a server that is restarted during a sweep."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest

from sweep.config import StoreConfig
from sweep.errors import IndexUnavailable
from sweep.records import POINT_COLUMNS
from sweep.store.run_store import RunStore
from sweep.store.sql.copy import catch_up, rebuild
from sweep.store.sql.table import SqlIndex, point_row
from sweep.worker.__main__ import work
from tests.faults.processes import CONTEXT, start_worker, wait_until
from tests.toy_trainer import toy_plan, train

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]

N_WRITERS = 16
PORT = 54329


@dataclass(frozen=True, kw_only=True)
class Server:
    """A private PostgreSQL on the loopback, with one role that needs a password."""

    programs: Path
    directory: Path

    url = f"postgresql://team@127.0.0.1:{PORT}/postgres"

    def start(self) -> None:
        options = f"-h 127.0.0.1 -p {PORT} -k {self.directory} -c fsync=off"
        self._run("pg_ctl", "-D", "data", "-l", "log", "-w", "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "-D", "data", "-m", mode, "-w", "stop")

    def create(self) -> None:
        self._run("initdb", "-D", "data", "-A", "trust", "-U", "postgres", "--no-sync")
        access = self.directory / "data" / "pg_hba.conf"
        access.write_text(
            "local all all trust\nhost all postgres all trust\nhost all all all scram-sha-256\n"
        )
        self.start()
        with self.admin() as connection:
            connection.execute("create role team login password 'CANARY-tea pot'")
            connection.execute("grant all on schema public to team")

    def admin(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(f"host=127.0.0.1 port={PORT} user=postgres dbname=postgres", autocommit=True)

    def _run(self, program: str, *arguments: str) -> None:
        """Run as the user postgres if we are root: the server refuses to run as root."""
        command = [str(self.programs / program), *arguments]
        if os.geteuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        with (self.directory / "output").open("ab") as output:  # no pipe: the server would keep it open
            done = subprocess.run(command, cwd=self.directory, stdout=output, stderr=output, timeout=60)
        assert done.returncode == 0, (self.directory / "output").read_text()[-3000:]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    directory = Path(tempfile.mkdtemp(prefix="sweep-postgresql-"))  # a path short enough for its socket
    try:
        if os.geteuid() == 0:
            shutil.chown(directory, "postgres", "postgres")
        server = Server(programs=_programs(), directory=directory)
        server.create()
        yield server
        server.stop()
    finally:
        shutil.rmtree(directory)


def _programs() -> Path:
    """Return the path of a server program, which Debian does not put on PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    assert found or on_path, "no PostgreSQL: scripts/service-tests installs it"
    return found[-1].parent if found else Path(str(on_path)).resolve().parent


@pytest.fixture(autouse=True)
def _password(monkeypatch):
    monkeypatch.setenv("PGPASSWORD", "CANARY-tea pot")


def sweep_with_copy(directory: Path, server: Server, n_runs: int, name: str, n_steps: int = 12) -> RunStore:
    plan = toy_plan(n_runs, n_steps, name=name)
    config = StoreConfig(index_url=server.url)
    store = RunStore(directory / name)
    store.add_plan(replace(plan, experiment=replace(plan.experiment, store=config)))
    return store


def n_rows(server: Server, sweep: str) -> int:
    with server.admin() as connection:
        there = connection.execute("select to_regclass('sweep_points')").fetchone()
        if there is None or there[0] is None:
            return 0
        row = connection.execute("select count(*) from sweep_points where sweep = %s", (sweep,)).fetchone()
    assert row is not None
    return int(str(row[0]))


def _write(sweep_dir: Path, url: str, sweep: str, keys: list[str]) -> None:
    index = SqlIndex(url)
    for _ in range(2):  # the second time every row exists already
        for key in keys:
            row = point_row(sweep_dir, sweep, key)
            assert row is not None
            index.write([row])
    os._exit(0)


def test_sixteen_writers_that_come_at_once_lose_nothing(tmp_path, server):
    """They also race to create the tables, and write the same rows in opposite order."""
    store = sweep_with_copy(tmp_path, server, 20, "calm")
    work(store.sweep_dir, train=train)
    with server.admin() as connection:
        connection.execute("drop table if exists sweep_points, sweep_schema")
    keys = sorted(store.run_keys())
    writers = [
        CONTEXT.Process(target=_write, args=(store.sweep_dir, server.url, "calm", keys[:: 1 - 2 * (n % 2)]))
        for n in range(N_WRITERS)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0] * N_WRITERS
    assert n_rows(server, "calm") == 20
    points = {point.run_key: point.values() for point in store.points().points}
    with server.admin() as connection:
        wanted = ", ".join(POINT_COLUMNS)
        found = connection.execute(f"select {wanted}, result->'point'->>'flops' from sweep_points").fetchall()
    for row in found:
        copied = dict(zip(POINT_COLUMNS, row, strict=False))
        assert copied == points[copied["run_key"]]
        assert row[-1] == str(copied["flops"]).removesuffix(".0")


def test_a_server_restarted_in_mid_sweep_has_all_rows_at_the_end(tmp_path, server, monkeypatch):
    """Sixteen workers continue without waiting while it is down; catching up once completes the copy."""
    store = sweep_with_copy(tmp_path, server, 320, "restarted", n_steps=20)
    workers = [start_worker(store.sweep_dir, TOY_STEP_S="0.005") for _ in range(N_WRITERS)]
    wait_until(lambda: store.status().counts.get("done", 0) >= 40, 120)
    server.stop()
    before = store.status().counts["done"]
    wait_until(lambda: store.status().counts["done"] >= before + 60, 120)
    server.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * N_WRITERS
    assert store.status().counts == {"done": 320}
    assert catch_up(store, store.latest_experiment().store, "restarted") is None
    assert n_rows(server, "restarted") == 320


def test_a_locked_row_is_given_up_in_seconds_and_caught_up(tmp_path, server):
    store = sweep_with_copy(tmp_path, server, 3, "locked")
    work(store.sweep_dir, train=train)
    config = store.latest_experiment().store
    assert rebuild(store, config, "locked") == 3
    with server.admin() as connection, connection.transaction():
        connection.execute("lock table sweep_points in access exclusive mode")
        started = time.monotonic()
        with pytest.raises(IndexUnavailable, match="lock timeout"):
            rebuild(store, config, "locked")
        assert time.monotonic() - started < 15
    assert rebuild(store, config, "locked") == 3


def test_the_message_of_a_wrong_password_does_not_contain_it(tmp_path, server, monkeypatch):
    store = sweep_with_copy(tmp_path, server, 1, "secret")
    work(store.sweep_dir, train=train)
    monkeypatch.setenv("PGPASSWORD", "CANARY-wrong")
    problem = catch_up(store, store.latest_experiment().store, "secret")
    assert problem is not None
    assert "password authentication failed" in problem
    monkeypatch.setenv("SWEEP_INDEX_URL", server.url.replace("team@", "team:CANARY-other@"))
    problem += str(catch_up(store, store.latest_experiment().store, "secret"))
    assert "CANARY" not in problem
    written = b"".join(path.read_bytes() for path in store.sweep_dir.rglob("*") if path.is_file())
    assert b"CANARY" not in written
