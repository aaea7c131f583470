"""The drivers: which one a URL names, and how an engine is made of it."""

import sqlite3
from pathlib import Path
from typing import Final

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from governance.errors import SettingsInvalid, StoreUnavailable

SQLITE_BUSY_MS: Final = 30_000
STATEMENT_MS: Final = 30_000
# A process that is suspended in the middle of a transaction holds its locks, the admissions' side of the epochs' lock
# among them, and with that every stop and the whole fleet.
_SUSPENDED_MS: Final = 5_000


def parse(url: str) -> tuple[URL, str]:
    """The URL with its driver, and as people wrote it, without the password."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise SettingsInvalid(
            [f"ACP_DATABASE_URL={url!r}: expected sqlite:///FILE or postgresql://USER@HOST/NAME"]
        ) from None
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise SettingsInvalid(
            [f"ACP_DATABASE_URL names {parsed.get_backend_name()!r}: expected sqlite:///FILE or postgresql://..."]
        )
    shown = parsed.render_as_string(hide_password=True)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    return parsed, shown


def postgresql(url: URL, pool_size: int) -> Engine:
    try:
        return create_engine(
            url,
            isolation_level="AUTOCOMMIT",
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=30,
            connect_args={
                "connect_timeout": 5,
                "prepare_threshold": 1,
                "application_name": "acp",
                # A server that hangs is away; nothing here takes long but audits and migrations, which say so.
                # Whatever an action touches is found by its key and in memory; by the server's default, made for
                # turning disks, a whole table of up to some thousand accounts would be read four times instead.
                "options": f"-c statement_timeout={STATEMENT_MS}"
                f" -c idle_in_transaction_session_timeout={_SUSPENDED_MS} -c random_page_cost=1.1",
                "keepalives_idle": 15,
                "tcp_user_timeout": 15_000,
            },
        )
    except NoSuchModuleError as problem:
        raise SettingsInvalid([f"ACP_DATABASE_URL={url.render_as_string()}: {problem}"]) from problem


def sqlite(url: URL) -> Engine:
    if not url.database or url.database == ":memory:":
        raise SettingsInvalid(["ACP_DATABASE_URL: an in-memory SQLite is seen by one process only; name a file"])
    folder = Path(url.database).parent
    if not folder.is_dir():
        raise StoreUnavailable(url.render_as_string(), f"the folder {folder} does not exist")
    engine = create_engine(url, connect_args={"timeout": SQLITE_BUSY_MS / 1000, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        # The driver must not open transactions by itself; Store.transaction() does.
        connection.isolation_level = None
        # PostgreSQL's name for the order of bytes, so that one statement says on both how accounts are locked.
        connection.create_collation("C", lambda one, other: (one > other) - (one < other))
        for pragma in (
            f"busy_timeout={SQLITE_BUSY_MS}",
            "journal_mode=WAL",
            # An admission that was answered must survive a power cut: its effect does.
            "synchronous=FULL",
            "foreign_keys=ON",
            # An action writes to the pages of many accounts, the next one to the same: they are copied back together.
            "wal_autocheckpoint=4000",
        ):
            connection.execute(f"PRAGMA {pragma}")

    return engine
