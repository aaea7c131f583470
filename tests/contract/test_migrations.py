"""Migrations: the same schema as the tables say, whoever runs them, however many at once."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from governance.errors import SchemaMismatch, SettingsInvalid, StateConflict, StoreUnavailable
from governance.store import epochs, guards, migrate
from governance.store.engine import Store
from governance.store.schema import metadata
from tests.support.first_rows import (
    ADDED,
    DECIDED,
    DROPPED,
    EMPTY,
    FIRST_ROWS,
    ONE_ROW,
    SHORT_US,
    action_row,
    insert,
    ticket_row,
)
from tests.support.forks import at_once
from tests.support.governed import make_governance


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Nothing is in it yet."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    store = Store(database_url)
    yield store
    store.close()


@pytest.fixture
def older(store: Store) -> Store:
    """A database that revision 0001 made and worked with."""
    assert migrate.upgrade(store, "0001") == "0001"
    with store.transaction() as connection:
        for table, rows in FIRST_ROWS.items():
            for row in rows:
                connection.execute(text(insert(table, row)), row)
    return store


def contents(store: Store) -> dict[str, list[dict[str, Any]]]:
    """Every row of the tables of FIRST_ROWS."""
    with store.statement() as connection:
        return {
            table: [dict(row) for row in connection.execute(text(f"SELECT * FROM {table} ORDER BY 1")).mappings()]
            for table in FIRST_ROWS
        }


def catalog(store: Store) -> set[tuple[str, ...]]:
    """Every table, column, constraint, index, trigger and function as the database itself describes it."""
    if not store.is_postgresql:
        rows = store.run("SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL", {})
        return {(str(r[0]), str(r[1]), str(r[2]), _definition(str(r[3]))) for r in rows if r[2] != "alembic_version"}
    described = store.run(
        """SELECT 'column', table_name, column_name, data_type, is_nullable, coalesce(column_default, '')
                FROM information_schema.columns WHERE table_schema = 'public'
            UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', ''
                FROM pg_constraint WHERE connamespace = 'public'::regnamespace
            UNION ALL SELECT 'index', tablename, indexname, indexdef, '', '' FROM pg_indexes WHERE schemaname = 'public'
            UNION ALL SELECT 'trigger', tgrelid::regclass::text, tgname, pg_get_triggerdef(oid), '', ''
                FROM pg_trigger WHERE NOT tgisinternal
            UNION ALL SELECT 'function', pg_get_functiondef(oid), proname, '', '', ''
                FROM pg_proc WHERE pronamespace = 'public'::regnamespace""",
        {},
    )
    return {tuple(map(str, row)) for row in described if row[1] != "alembic_version"}


def _definition(sql: str) -> str:
    """A CREATE statement with its table's parts in one order; SQLite keeps the text as it was written."""
    sql = " ".join(sql.replace('"', "").split())
    head, _, body = sql.partition(" (")
    parts = sorted(part.strip() for part in body.rstrip(")").split(", "))
    return f"{head} ({', '.join(parts)})"


def test_the_newest_revision_is_the_one_that_alembic_comes_to() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == migrate.newest()


def test_nobody_imports_alembic_who_does_not_migrate() -> None:
    code = "import sys, acp_tasks, acp_tasks.app, acp_tasks.cli; sys.exit('alembic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("start", ["store", "older"])
def test_migrations_make_the_schema_that_the_tables_describe(
    store: Store, start: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(start)
    migrate.upgrade(store)
    migrated = catalog(store)
    if store.is_postgresql:
        store.run("DROP SCHEMA public CASCADE", {})
        store.run("CREATE SCHEMA public", {})
        described = store
    else:
        described = Store(f"sqlite:///{tmp_path / 'described.db'}")
        request.addfinalizer(described.close)
    with described.transaction() as connection:
        metadata.create_all(connection)
        for statement in (
            (*guards.POSTGRESQL, epochs.SWITCH_EPOCH, *guards.PRUNING_POSTGRESQL, *guards.SUMMED_POSTGRESQL)
            if store.is_postgresql
            else (*guards.SQLITE, *guards.PRUNING_SQLITE, *guards.SUMMED_SQLITE)
        ):
            connection.execute(text(statement))
    assert migrated == catalog(described)
    assert len(migrated) > 20


def test_a_database_that_was_never_migrated_is_refused(store: Store) -> None:
    expected = rf"has no schema, this release needs revision {migrate.newest()}: run `acp db upgrade`"
    with pytest.raises(SchemaMismatch, match=expected):
        migrate.check(store)
    assert migrate.upgrade(store) == migrate.check(store)


def test_an_upgrade_keeps_every_row_and_fills_the_new_columns(older: Store) -> None:
    expected = contents(older)
    assert {table: len(rows) for table, rows in expected.items()} == {t: len(rows) for t, rows in FIRST_ROWS.items()}
    for table, columns in EMPTY.items():
        expected[table] = [{**row, **dict.fromkeys(columns)} for row in expected[table]]
    for table, columns in DROPPED.items():
        expected[table] = [{name: row[name] for name in row if name not in columns} for row in expected[table]]
    expected["accounts"] = [{**row, "account": row["id"], **ONE_ROW} for row in expected["accounts"]]
    expected["tickets"] = [{**row, **ADDED[row["id"]]} for row in expected["tickets"]]
    assert migrate.upgrade(older) == migrate.newest()
    assert contents(older) == expected


def test_the_chain_of_an_older_ticket_is_the_text_that_its_hash_was_made_of(older: Store) -> None:
    migrate.upgrade(older)
    found = older.run("SELECT chain FROM tickets WHERE id = 't-pending'", {})
    assert found[0][0] == (
        '{"approvals":1,"levels":[{"roles":[],"within_us":900000000}],"requester_may_approve":false}'
    )


def test_a_second_upgrade_does_nothing(older: Store) -> None:
    migrate.upgrade(older)
    before = catalog(older), contents(older)
    assert migrate.upgrade(older) == migrate.upgrade(older, "0001") == migrate.check(older) == migrate.newest()
    assert (catalog(older), contents(older)) == before


def test_an_upgraded_database_still_defends_itself(older: Store) -> None:
    migrate.upgrade(older)
    before = contents(older)
    for statement in (
        "UPDATE events SET payload = '[]'",
        "UPDATE events SET hash = 'x' WHERE seq IS NOT NULL",
        "DELETE FROM events",
        "UPDATE entries SET held_delta = 0",
        "DELETE FROM entries",
    ):
        with pytest.raises((psycopg.Error, sqlite3.Error), match="append-only"):
            older.run(statement, {})
    added = ADDED["t-pending"]
    decided = ticket_row("t", "done", SHORT_US, state="approved", **DECIDED, **added)
    for table, row, refused in (
        ("tickets", {**decided, "action_id": "nobody"}, "foreign key"),
        ("actions", action_row("a", "nowhere", state="queued"), "foreign key"),
        ("actions", action_row("done", "default@0", state="queued"), "unique"),
        ("actions", action_row("a", "default@0", state="asleep"), "check"),
        ("actions", action_row("a", "default@0", state="running"), "check"),
        ("tickets", ticket_row("t", "parked", SHORT_US, **added), "unique"),
        ("tickets", {**decided, "told_step": 2}, "check"),
        ("tickets", {**decided, "chain": None}, "not.null"),
    ):
        with pytest.raises((psycopg.IntegrityError, sqlite3.IntegrityError), match=f"(?i){refused}"):
            older.run(insert(table, row), row)
    with pytest.raises((psycopg.IntegrityError, sqlite3.IntegrityError), match=r"(?i)foreign key"):
        older.run("DELETE FROM actions WHERE id = 'busy' OR id = 'parked'", {})
    assert contents(older) == before
    older.run(insert("tickets", decided), decided)
    older.run("UPDATE actions SET state = 'cancelled', delivered_us = 1 WHERE id = 'parked'", {})


def test_an_upgrade_that_fails_at_its_end_leaves_the_database_as_it_was(older: Store) -> None:
    older.run("CREATE TABLE alerts (id integer)", {})
    before = catalog(older), contents(older)
    with pytest.raises((StoreUnavailable, DBAPIError), match="alerts"):
        migrate.upgrade(older)
    assert (catalog(older), contents(older)) == before
    assert checks_foreign_keys(older)
    older.run("DROP TABLE alerts", {})
    assert migrate.upgrade(older) == migrate.newest()
    assert checks_foreign_keys(older)


def checks_foreign_keys(store: Store) -> bool:
    """Whether the connections that the pool lends, one that an upgrade used among them, refuse a dangling row."""
    entry = {**FIRST_ROWS["entries"][0], "account_id": "nobody's", "attempt": 2}
    try:
        store.run(insert("entries", entry), entry)
    except (psycopg.IntegrityError, sqlite3.IntegrityError):
        return True
    return False


def test_an_upgrade_refuses_rows_that_refer_to_nothing(sqlite_url: str, request: pytest.FixtureRequest) -> None:
    store = Store(sqlite_url)
    request.addfinalizer(store.close)
    migrate.upgrade(store, "0001")
    with store.reshaping() as connection:
        lost = action_row("a", "nowhere", state="queued")
        connection.execute(text(insert("actions", lost)), lost)
    before = catalog(store), contents(store)
    with pytest.raises(StateConflict, match=r"is incomplete \(1 of actions without their sessions\)"):
        migrate.upgrade(store)
    assert (catalog(store), contents(store)) == before
    assert checks_foreign_keys(store)


@pytest.mark.parametrize("start", ["store", "older"])
def test_eight_processes_may_upgrade_at_once(
    database_url: str, store: Store, start: str, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(start)
    # Which upgrades it.
    at_once(8, make_governance, database_url)
    assert migrate.check(store)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://x/y", "expected sqlite:///FILE or postgresql://"),
        ("not a url", "expected sqlite:///FILE or postgresql://"),
        ("sqlite:///:memory:", "name a file"),
    ],
)
def test_a_database_of_another_kind_is_refused(url: str, says: str) -> None:
    with pytest.raises(SettingsInvalid, match=says):
        Store(url)


def test_an_unreachable_database_is_named_without_its_password() -> None:
    store = Store("postgresql://acp:secret@127.0.0.1:1/acp")
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1/acp does not answer.*ACP_DATABASE_URL") as caught:
        store.run("SELECT 1", {})
    assert "secret" not in str(caught.value)
    store.close()


def test_a_database_without_our_tables_is_told_apart_from_one_that_is_away(store: Store) -> None:
    with pytest.raises(SchemaMismatch, match=r"has another schema .*run `acp db upgrade`"):
        store.run("SELECT * FROM actions", {})


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "governance.db").write_text("this is no database, however long one looks at it" * 100)
    store = Store(f"sqlite:///{tmp_path / 'governance.db'}")
    with pytest.raises(StoreUnavailable, match="file is not a database"):
        store.run("SELECT 1 FROM actions", {})
    store.close()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="missing does not exist"):
        Store(f"sqlite:///{tmp_path}/missing/governance.db")
