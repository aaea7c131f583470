"""Connections: one place that knows how SQLite and PostgreSQL differ in transactions, and what "away" looks like.

Single statements run in autocommit, so that a wide statement is one round trip and holds its locks for no longer;
`transaction()` groups several. On SQLite every transaction is BEGIN IMMEDIATE: a reader that upgrades to a writer
half-way would fail with SQLITE_BUSY and no wait.
"""

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, Protocol, cast

import psycopg
from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry

from governance.errors import SchemaMismatch, StoreUnavailable
from governance.store.drivers import parse, postgresql, sqlite
from governance.store.fork_gate import ForkGate
from governance.store.held import Held

# PostgreSQL's codes for a table and a column that are not there.
_UNDEFINED = ("42P01", "42703")
_AWAY = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError, sqlite3.OperationalError)
# The smallest transaction whose commit writes to the log, and so waits for everything before it there.
_FLUSH = "SELECT pg_logical_emit_message(true, 'acp', '')"
_NAMED = re.compile(r"(?<!:):([a-z_0-9]+)")


class Reader(Protocol):
    """Whoever answers a statement that only reads: the store now, or a snapshot of it."""

    def read(self, sql: str, values: Mapping[str, Any]) -> Sequence[Any]: ...


class Store:
    """An engine with the project's transaction habits. Raises StoreUnavailable whenever the database is away."""

    def __init__(self, url: str, *, pool_size: int = 5) -> None:
        self.url, self.masked_url = parse(url)
        self.is_postgresql = self.url.get_backend_name() == "postgresql"
        self.engine = postgresql(self.url, pool_size) if self.is_postgresql else sqlite(self.url)
        self._grouped = (
            self.engine if not self.is_postgresql else self.engine.execution_options(isolation_level="READ COMMITTED")
        )
        self._gate = ForkGate()
        self._held = Held(self.engine, pool_size=pool_size)
        # For how many more writes an account counts as hot; an admission that waited for its lock starts them anew.
        self.queueing = 0
        self._statements: list[list[int]] = []
        event.listen(self.engine, "connect", self._count_statements_of)

    @property
    def round_trips(self) -> int:
        """Hand-written statements sent so far; for the benchmarks."""
        return sum(count for (count,) in self._statements)

    def before_fork(self) -> None:
        """SQLite must not be carried into a child: every thread leaves, every connection is closed."""
        if not self.is_postgresql:
            self._gate.shut()
            self.engine.dispose()

    def after_fork(self, *, in_child: bool) -> None:
        """A child drops its parent's connections without closing them: they are the parent's."""
        if in_child:
            self._gate.reset()
            self._held.forget()
            self.engine.dispose(close=False)
        elif not self.is_postgresql:
            self._gate.open()

    def close(self) -> None:
        self._held.let_go()
        self.engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Several statements, all or nothing. On PostgreSQL READ COMMITTED: guard every write."""
        self._held.let_go()
        with self._available(), self._grouped.connect() as connection:
            if self.is_postgresql:
                with connection.begin():
                    yield connection
                return
            with _immediate(connection):
                yield connection

    @contextmanager
    def reshaping(self) -> Iterator[Connection]:
        """A transaction that may recreate tables which others refer to: on SQLite nothing checks foreign keys in it.

        SQLite ignores the pragma inside a transaction: it is off before the first statement, and on again in any case.
        """
        if self.is_postgresql:
            with self.transaction() as connection:
                yield connection
            return
        with self._available(), self._grouped.connect() as connection:
            try:
                connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
                with _immediate(connection):
                    yield connection
            finally:
                if not connection.invalidated:
                    # Ends what a failed COMMIT left open.
                    connection.rollback()
                    connection.exec_driver_sql("PRAGMA foreign_keys=ON")

    @contextmanager
    def statement(self) -> Iterator[Connection]:
        """A connection in autocommit, for single statements."""
        self._held.let_go()
        with self._available(), self.engine.connect() as connection:
            yield connection

    def run(self, sql: str, values: Mapping[str, Any]) -> Sequence[Any]:
        """One hand-written statement (`:name` parameters), sent as it is, in autocommit; the rows it returns."""
        if not self.is_postgresql:
            with self.statement() as connection:
                return rows(connection, sql, values)
        with self._available():
            return self._held.run(sql, values)

    def run_then_flush(self, sql: str, values: Mapping[str, Any]) -> Sequence[Any]:
        """`run` for a PostgreSQL statement that sets `synchronous_commit` off: durable when this returns, too.

        Its commit gives its locks back before it is on disk; a second, empty commit, sent with it, waits for both.
        Whoever sees the first one in between commits behind it in the log, so a crash takes both or none.
        """
        with self.statement() as connection:
            return _rows_then_flush(connection, sql, values)

    def read(self, sql: str, values: Mapping[str, Any]) -> Sequence[Any]:
        """Like `run`, for statements that only read: tried a second time when the connection turns out to be stale."""
        try:
            return self.run(sql, values)
        except StoreUnavailable:
            return self.run(sql, values)

    @contextmanager
    def snapshot(self) -> Iterator[Reader]:
        """Any number of reads that all see the database as it was at the first one."""
        self._held.let_go()
        with self._available():
            if self.is_postgresql:
                frozen = self.engine.execution_options(isolation_level="REPEATABLE READ")
                with frozen.connect() as connection, connection.begin():
                    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
                    yield _Frozen(connection)
                return
            with self.engine.connect() as connection:
                connection.exec_driver_sql("BEGIN")
                try:
                    yield _Frozen(connection)
                finally:
                    connection.exec_driver_sql("ROLLBACK")

    @contextmanager
    def _available(self) -> Iterator[None]:
        try:
            with nullcontext() if self.is_postgresql else self._gate.inside():
                yield
        except (OperationalError, PoolTimeoutError) as problem:
            raise self._away(problem) from problem
        except (psycopg.Error, sqlite3.Error, DBAPIError) as problem:
            cause = getattr(problem, "orig", problem)
            # SQLite says plain DatabaseError of a file that is none; PostgreSQL InternalError of a replica it became.
            if isinstance(cause, _AWAY) or type(cause) is sqlite3.DatabaseError or _lacks(problem):
                raise self._away(problem) from problem
            raise

    def _away(self, problem: Exception) -> StoreUnavailable:
        said = _first_line(problem)
        if _lacks(problem):
            return SchemaMismatch(self.masked_url, f"another schema ({said})", "its own")
        return StoreUnavailable(self.masked_url, said)

    def _count_statements_of(self, _connection: object, record: ConnectionPoolEntry) -> None:
        record.info["statements"] = counter = [0]
        self._statements.append(counter)


class _Frozen:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def read(self, sql: str, values: Mapping[str, Any]) -> Sequence[Any]:
        return rows(self._connection, sql, values)


@contextmanager
def _immediate(connection: Connection) -> Iterator[None]:
    """A transaction on SQLite, a writer's from its start."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        # An interrupt inside a statement has thrown the connection away, and the transaction with it.
        if not connection.invalidated:
            with suppress(SQLAlchemyError):
                connection.exec_driver_sql("ROLLBACK")
        raise
    connection.exec_driver_sql("COMMIT")


_dialect_sql: dict[str, str] = {}


def rows(connection: Connection, sql: str, values: Mapping[str, Any]) -> Sequence[Any]:
    """Runs hand-written SQL on either driver and returns its rows, if it has any."""
    if connection.dialect.name == "postgresql":
        sql = _translated(sql)
    connection.info["statements"][0] += 1
    # The driver's own cursor: SQLAlchemy's result would describe every column again for every statement.
    raw = connection.connection
    cursor = raw.cursor()
    try:
        cursor.execute(sql, values)
        return cursor.fetchall() if _returns_rows(cursor) else ()
    except (psycopg.Error, sqlite3.Error) as problem:
        if connection.dialect.is_disconnect(cast(Any, problem), raw, cast(Any, cursor)):
            connection.invalidate(problem)
        raise
    finally:
        cursor.close()


def insert_each(connection: Connection, sql: str, values: Sequence[Mapping[str, Any]]) -> None:
    """One hand-written INSERT for each of `values`, on SQLite: many rows in one statement are journaled once more."""
    connection.info["statements"][0] += 1
    cursor = connection.connection.cursor()
    try:
        cursor.executemany(sql, values)
    finally:
        cursor.close()


def _rows_then_flush(connection: Connection, sql: str, values: Mapping[str, Any]) -> Sequence[Any]:
    connection.info["statements"][0] += 1
    raw = connection.connection
    driver = cast("psycopg.Connection[Any]", raw.driver_connection)
    try:
        with driver.pipeline() as pipeline, driver.cursor() as cursor, driver.cursor() as flush:
            cursor.execute(_translated(sql), values)
            pipeline.sync()
            flush.execute(_FLUSH)
            pipeline.sync()
            flush.fetchall()
            return cursor.fetchall()
    except psycopg.Error as problem:
        if connection.dialect.is_disconnect(cast(Any, problem), cast(Any, raw), None):
            connection.invalidate(problem)
        raise


def _translated(sql: str) -> str:
    """`:name` parameters as psycopg writes them."""
    translated = _dialect_sql.get(sql)
    if translated is None:
        translated = _dialect_sql[sql] = _NAMED.sub(r"%(\1)s", sql.replace("%", "%%"))
    return translated


def _returns_rows(cursor: Any) -> bool:
    if isinstance(cursor, psycopg.Cursor):
        # Its `description` makes an object of every column.
        return cursor.pgresult is not None and cursor.pgresult.nfields > 0
    return cursor.description is not None


def _lacks(problem: Exception) -> bool:
    """Whether the database misses a table or column that this release knows."""
    cause = getattr(problem, "orig", problem)
    if isinstance(cause, sqlite3.OperationalError):
        return str(cause).startswith("no such ") or " has no column named " in str(cause)
    return getattr(cause, "sqlstate", None) in _UNDEFINED


def _first_line(problem: BaseException) -> str:
    cause = getattr(problem, "orig", None) or problem
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]
