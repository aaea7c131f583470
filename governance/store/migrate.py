"""Bringing a database to this release's schema; safe when many processes do it at once.

On PostgreSQL an advisory lock, on SQLite the write lock: the first one migrates, the others find nothing to do.
All in one transaction: however a migration fails, the database is what it was before.

Every process asks for the revision and few migrate: Alembic, a fifth of a second to import, is left to those.
"""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from governance.errors import SchemaMismatch, StateConflict
from governance.store.engine import Store

_LOCK = 0x61637064  # "acpd"
_FOLDER = Path(__file__).parent / "migrations"


def upgrade(store: Store, revision: str = "head") -> str:
    """Migrates to `revision`, unless the database is there or beyond, and returns the one it is at then.

    Raises StoreUnavailable, and StateConflict when rows refer to rows that are not there.
    """
    from alembic import command
    from alembic.config import Config

    with store.reshaping() as connection:
        if store.is_postgresql:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        before = current(connection)
        config = Config()
        config.set_main_option("script_location", str(_FOLDER))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        after = current(connection)
        assert after is not None
        if after != before and not store.is_postgresql:
            _refuse_dangling(store, connection)
    return after


def _refuse_dangling(store: Store, connection: Connection) -> None:
    """The check of the foreign keys that SQLite did not check while tables were recreated."""
    dangling = connection.execute(
        text('SELECT "table", parent, count(*) FROM pragma_foreign_key_check GROUP BY 1, 2 ORDER BY 1, 2')
    )
    found = [f"{count} of {table} without their {parent}" for table, parent, count in dangling]
    if found:
        hint = "nothing was changed; restore the missing rows and upgrade again"
        raise StateConflict("database", store.masked_url, f"incomplete ({', '.join(found)})", "upgraded", hint)


def check(store: Store) -> str:
    """The database's revision. Raises SchemaMismatch unless it is this release's."""
    with store.statement() as connection:
        found = current(connection)
    if found != newest():
        raise SchemaMismatch(store.masked_url, f"revision {found}" if found else "no schema", f"revision {newest()}")
    return found


def current(connection: Connection) -> str | None:
    """The revision that Alembic left in its own table; None when nobody has migrated yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def newest() -> str:
    """This release's: a migration's file begins with its revision."""
    return max(path.name for path in (_FOLDER / "versions").glob("[0-9]*.py")).partition("_")[0]
