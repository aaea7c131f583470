"""The database's schema: brought to this release's revision, or found to be behind before anything reads it."""

from collections.abc import Iterator
from contextlib import contextmanager

from governance.operations.context import Governance
from governance.store import migrate
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


@contextmanager
def _opened(url: str) -> Iterator[Store]:
    store = Store(url, pool_size=1)
    try:
        yield store
    finally:
        store.close()
