"""The SQL copy of the points: one table that a team can query, written from the files and never read back.

A row is one point: the columns of points.csv with their types, the name of the sweep, the reason why the run
is not fitted (`excluded`), and the whole result.json (`result`). Rows are keyed by sweep and run key, so
sweeps in one database need distinct names. The tables can be dropped and written again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    URL,
    BigInteger,
    Column,
    Connection,
    Double,
    Integer,
    MetaData,
    NullPool,
    String,
    Table,
    Text,
    create_engine,
    delete,
    event,
    func,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.schema import CreateTable

from sweep.errors import IndexUnavailable
from sweep.records import POINT_COLUMNS
from sweep.store.files import read_json
from sweep.store.plans import run_directory
from sweep.store.points import COLUMN_TYPES, ResultError, not_fitted, read_result

SCHEMA_VERSION = 1
"""Incremented when the meaning of a row changes; a database of another version is not written."""

CONNECT_S, LOCK_S, STATEMENT_S = 3, 5, 30  # timeouts of one write
BATCH_ROWS = 500
_CREATION_LOCK = 0x73776565  # PostgreSQL advisory lock for the creation of the tables

_SQL_TYPES = {str: Text, int: BigInteger, float: Double}
_METADATA = MetaData()
SCHEMA = Table(
    "sweep_schema",
    _METADATA,
    Column("name", String(32), primary_key=True),
    Column("version", Integer, nullable=False),
)
POINTS = Table(
    "sweep_points",
    _METADATA,
    Column("sweep", Text, primary_key=True),
    Column("run_key", String(16), primary_key=True),
    *(Column(name, _SQL_TYPES[COLUMN_TYPES[name]]()) for name in POINT_COLUMNS if name != "run_key"),
    Column("excluded", Text),
    Column("result", JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
)

Row = Mapping[str, Any]


def point_row(sweep_dir: Path, sweep: str, key: str) -> Row | None:
    """Return the row of a run; None without a valid result.

    Large counts are rounded to the nearest double in their columns, and exact in `result`.
    """
    run_dir = run_directory(sweep_dir, key)
    try:
        stored = read_result(run_dir / "result.json", key)
    except ResultError:
        return None
    values = {
        name: float(value) if COLUMN_TYPES.get(name, float) is float and value is not None else value
        for name, value in stored.point.values().items()
    }
    extras = {"excluded": not_fitted(run_dir, stored), "result": read_json(run_dir / "result.json")}
    return {"sweep": sweep, **values, **extras}


class SqlIndex:
    """One database. Each write uses a new connection, since hundreds of workers may share the database.

    Every method raises IndexUnavailable, with a message without credentials, if the database is down, locked,
    slow, or has another schema.
    """

    def __init__(self, url: str) -> None:
        """Prepare the engine; `url` is as in `store.index_url`, but may contain a password."""
        try:
            self._url = make_url(url)
        except (ArgumentError, ValueError):
            raise IndexUnavailable(
                "the URL of the SQL copy is invalid: give store.index_url as in sqlite:///points.db"
            ) from None
        if self._url.get_backend_name() == "postgresql":
            self._url = self._url.set(drivername="postgresql+psycopg")
        self._prepared = False
        with self._explained():
            self._engine = create_engine(
                self._url, poolclass=NullPool, connect_args=_patience(self._url), hide_parameters=True
            )
        if self._url.get_backend_name() == "postgresql":
            event.listen(self._engine, "begin", _bound_waits)

    @property
    def place(self) -> str:
        """URL of the database without user and password."""
        host = f"{self._url.host or ''}{f':{self._url.port}' if self._url.port else ''}"
        return f"{self._url.get_backend_name()}://{host}/{self._url.database or ''}"

    def write(self, rows: Iterable[Row]) -> int:
        """Insert or replace rows, with one transaction per batch; return their number.

        Columns of evaluation sets are added to the table where it lacks them.
        """
        n_written, left = 0, iter(rows)
        while batch := list(islice(left, BATCH_ROWS)):
            of_sets = sorted({name for row in batch for name in row} - {column.name for column in POINTS.c})
            with self._connected() as connection:
                _add_columns(connection, of_sets)
                connection.execute(
                    self._upsert(of_sets), [{**dict.fromkeys(of_sets), **row} for row in batch]
                )
            n_written += len(batch)
        return n_written

    def _upsert(self, of_sets: Sequence[str]) -> Any:
        insert = postgresql.insert if self._url.get_backend_name() == "postgresql" else sqlite.insert
        columns = [
            *(Column(column.name, column.type, primary_key=column.primary_key) for column in POINTS.c),
            *(Column(name, Double()) for name in of_sets),
        ]
        table = Table(POINTS.name, MetaData(), *columns)
        statement = insert(table)
        new = {column.name: statement.excluded[column.name] for column in table.c if not column.primary_key}
        return statement.on_conflict_do_update(index_elements=[table.c.sweep, table.c.run_key], set_=new)

    def known(self, sweep: str) -> dict[str, tuple[str | None, str | None]]:
        """Return finished_at and excluded of every row by run key, which show if a row is outdated."""
        wanted = select(POINTS.c.run_key, POINTS.c.finished_at, POINTS.c.excluded)
        with self._connected() as connection:
            found = connection.execute(wanted.where(POINTS.c.sweep == sweep)).all()
        return {row.run_key: (row.finished_at, row.excluded) for row in found}

    def remove(self, sweep: str, keys: Sequence[str]) -> None:
        """Delete the rows of the runs `keys`."""
        for start in range(0, len(keys), BATCH_ROWS):
            batch = keys[start : start + BATCH_ROWS]
            with self._connected() as connection:
                connection.execute(
                    delete(POINTS).where(POINTS.c.sweep == sweep).where(POINTS.c.run_key.in_(batch))
                )

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Connection]:
        """Open a transaction on the database, with the tables created."""
        with self._explained():
            if not self._prepared:
                with self._engine.begin() as connection:
                    self._prepare(connection)
                self._prepared = True
            with self._engine.begin() as connection:
                yield connection

    def _prepare(self, connection: Connection) -> None:
        """Create missing tables; an advisory lock makes one of several processes do it."""
        there = inspect(connection)
        if there.has_table(POINTS.name) and there.has_table(SCHEMA.name) and _version(connection) is not None:
            self._check_schema(connection)
            return
        insert = sqlite.insert(SCHEMA)
        if connection.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(_CREATION_LOCK)))
            insert = postgresql.insert(SCHEMA)  # type: ignore[assignment]
        connection.execute(CreateTable(POINTS, if_not_exists=True))
        connection.execute(CreateTable(SCHEMA, if_not_exists=True))
        row = {"name": POINTS.name, "version": SCHEMA_VERSION}
        connection.execute(insert.values(row).on_conflict_do_nothing())
        self._check_schema(connection)

    def _check_schema(self, connection: Connection) -> None:
        version = _version(connection)
        there = {column["name"] for column in inspect(connection).get_columns(POINTS.name)}
        missing = [column.name for column in POINTS.c if column.name not in there]
        if version == SCHEMA_VERSION and not missing:
            return
        problem = f"lacks {', '.join(missing)}" if missing else f"has schema {version}, not {SCHEMA_VERSION}"
        raise IndexUnavailable(
            f"the SQL copy at {self.place} was created by another version of sweep (table {POINTS.name} "
            f"{problem}): drop the tables {POINTS.name} and {SCHEMA.name}, or set another database"
        )

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, ImportError) as error:
            self._prepared = False  # the tables may have been dropped
            cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
            first = (str(cause).strip() or type(cause).__name__).splitlines()[0]
            for secret in _secrets(self._url):
                first = first.replace(secret, "***")
            raise IndexUnavailable(f"the SQL copy at {self.place} cannot be written ({first})") from None


def _add_columns(connection: Connection, names: Sequence[str]) -> None:
    """Add columns of numbers to the table of points; names of evaluation sets are safe identifiers."""
    if not names:
        return
    there = {column["name"] for column in inspect(connection).get_columns(POINTS.name)}
    if set(names) <= there:
        return
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_CREATION_LOCK)))
        there = {column["name"] for column in inspect(connection).get_columns(POINTS.name)}
    for name in names:
        if name not in there:
            connection.execute(text(f"ALTER TABLE {POINTS.name} ADD COLUMN {name} DOUBLE PRECISION"))


def _version(connection: Connection) -> int | None:
    """Return the version of the schema; None also while another process creates the tables."""
    return connection.scalar(select(SCHEMA.c.version).where(SCHEMA.c.name == POINTS.name))


def _patience(url: URL) -> dict[str, Any]:
    """Return the connection timeouts of the driver."""
    if url.get_backend_name() == "sqlite":
        return {"timeout": LOCK_S}
    return {"connect_timeout": CONNECT_S, "tcp_user_timeout": 1000 * STATEMENT_S}


def _bound_waits(connection: Connection) -> None:
    """Set timeouts for this transaction only, which also works through a connection pooler."""
    for setting, seconds in (("lock_timeout", LOCK_S), ("statement_timeout", STATEMENT_S)):
        connection.execute(select(func.set_config(setting, f"{seconds}s", True)))


def _secrets(url: URL) -> Iterator[str]:
    if url.password:
        yield str(url.password)
    yield from (str(value) for key, value in url.query.items() if "password" in key.lower() and value)
    if os.environ.get("PGPASSWORD"):
        yield os.environ["PGPASSWORD"]
