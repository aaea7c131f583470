"""The database's schema: brought to this release's revision, or found to be behind before anything reads it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from governance.clock import SystemClock
from governance.core.instants import SECOND_US
from governance.operations.context import Governance
from governance.store import migrate, server
from governance.store.engine import Store


def check(gov: Governance) -> str:
    """The revision of `gov`'s database. Raises SchemaMismatch unless it is this release's, StoreUnavailable."""
    return migrate.check(gov.store)


def check_at(url: str) -> str:
    """Like `check`, for a database that no process works with yet."""
    with _opened(url) as store:
        return migrate.check(store)


def upgrade_at(url: str) -> str:
    """Migrates the database to this release's revision and returns it; safe when many do it at once.

    Raises SettingsInvalid, StoreUnavailable.
    """
    with _opened(url) as store:
        return migrate.upgrade(store)


@dataclass(frozen=True, slots=True)
class Room:
    """Connections of a PostgreSQL server: those that anybody but an administrator may have, and those there are."""

    usable: int
    in_use: int


def room(gov: Governance) -> Room | None:
    """None for SQLite, which has no such limit."""
    found = server.connections(gov.store)
    return Room(*found) if found is not None else None


def server_ahead_s(gov: Governance) -> float | None:
    """How many real seconds the database server's clock is ahead of this machine's; None for SQLite, which has none."""
    machine = SystemClock()
    before_us = machine.now_us()
    server_us = server.clock_us(gov.store)
    if server_us is None:
        return None
    return (server_us - (before_us + machine.now_us()) / 2) / SECOND_US


@contextmanager
def _opened(url: str) -> Iterator[Store]:
    store = Store(url, pool_size=1)
    try:
        yield store
    finally:
        store.close()
