"""Migrations: the same schema as the tables say, whoever runs them, however many at once."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from governance.errors import SchemaMismatch, SettingsInvalid, StoreUnavailable
from governance.store import guards, migrate
from governance.store.engine import Store
from governance.store.schema import metadata


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    store = Store(database_url)
    yield store
    store.close()


def catalog(store: Store) -> set[tuple[str, ...]]:
    """Every table, column, constraint and index as the database itself describes it."""
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
                FROM pg_trigger WHERE NOT tgisinternal""",
        {},
    )
    return {tuple(map(str, row)) for row in described if row[1] != "alembic_version"}


def _definition(sql: str) -> str:
    """A CREATE statement with its table's parts in one order; SQLite keeps the text as it was written."""
    sql = " ".join(sql.replace('"', "").split())
    head, _, body = sql.partition(" (")
    parts = sorted(part.strip() for part in body.rstrip(")").split(", "))
    return f"{head} ({', '.join(parts)})"


def test_migrations_make_the_schema_that_the_tables_describe(
    store: Store, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
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
        for statement in guards.POSTGRESQL if store.is_postgresql else guards.SQLITE:
            connection.execute(text(statement))
    assert migrated == catalog(described)
    assert len(migrated) > 20


def test_a_database_that_was_never_migrated_is_refused(store: Store) -> None:
    with pytest.raises(SchemaMismatch, match=r"has no schema, this release needs revision 0001: run `acp db upgrade`"):
        migrate.check(store)
    assert migrate.upgrade(store) == migrate.check(store)


def test_eight_processes_may_upgrade_at_once(database_url: str, store: Store) -> None:
    program = (
        "import sys; from governance.store.engine import Store; from governance.store import migrate;"
        "store = Store(sys.argv[1]); sys.stdin.readline(); migrate.upgrade(store); store.close()"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", program, database_url], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(8)
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    for racer in racers:
        _, errors = racer.communicate(timeout=60)
        assert racer.returncode == 0, errors
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
