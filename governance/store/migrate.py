"""Bringing a database to this release's schema; safe when many processes do it at once.

On PostgreSQL an advisory lock, on SQLite the write lock: the first one migrates, the others find nothing to do.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from governance.errors import SchemaMismatch
from governance.store.engine import Store

_LOCK = 0x61637064  # "acpd"
_FOLDER = Path(__file__).parent / "migrations"


def upgrade(store: Store) -> str:
    """Migrates to the newest revision and returns it. Raises StoreUnavailable."""
    with store.transaction() as connection:
        if store.is_postgresql:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return newest()


def check(store: Store) -> str:
    """The database's revision. Raises SchemaMismatch unless it is this release's."""
    with store.statement() as connection:
        found = current(connection)
    if found != newest():
        raise SchemaMismatch(store.masked_url, f"revision {found}" if found else "no schema", f"revision {newest()}")
    return found


def current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def newest() -> str:
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    return config
