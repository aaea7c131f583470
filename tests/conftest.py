"""Real servers for the tests: on loopback, in temporary folders, ended by their own pid."""

import gc
import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from acp_tasks.fleet.broker import BrokerServer
from acp_tasks.fleet.postgres import PostgresServer
from governance.store import migrate
from governance.store.engine import Store

_numbers = itertools.count()
# The folders whose files take longest, first; the short files of all others even out what is left at the end.
_LONGEST = ("acceptance", "faults", "agents", "fleet", "tasks", "contract")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files are given to the processes in this order, each to the one that is free."""
    places = {folder: place for place, folder in enumerate(_LONGEST)}
    items.sort(key=lambda item: places.get(item.path.parent.name, len(places)))


@pytest.fixture(scope="session")
def postgres_server(walkable_folder: Path) -> Iterator[PostgresServer]:
    """One PostgreSQL for all tests; each has a database of its own in it."""
    server = PostgresServer(walkable_folder / "shared", fsync=False, connections_max=200).start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def walkable_folder() -> Iterator[Path]:
    """Not below pytest's own folder: every start of pytest closes that to other users, and PostgreSQL may be one."""
    with tempfile.TemporaryDirectory(prefix="acp-tests-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def broker_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerServer]:
    """One broker for all tests; who uses it empties it first, who kills it starts it again."""
    server = BrokerServer(tmp_path_factory.mktemp("broker")).start()
    try:
        yield server
    finally:
        # Results that nobody holds any more unsubscribe when they are collected: while it is there.
        gc.collect()
        server.stop()


@pytest.fixture(scope="session")
def broker_address(broker_server: BrokerServer) -> str:
    """Where it is, for fixtures that outlive one test."""
    return broker_server.url


@pytest.fixture
def broker_url(broker_address: str) -> str:
    """The broker, emptied."""
    with redis.Redis.from_url(broker_address) as client:
        client.flushall()
    return broker_address


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """An empty database."""
    name = f"test_{next(_numbers)}"
    yield postgres_server.create_database(name)
    postgres_server.drop_database(name)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A file that is not there yet."""
    return f"sqlite:///{tmp_path / 'governance.db'}"


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite database of this release's schema, to be copied: it takes a tenth of a second to make one."""
    path = tmp_path_factory.mktemp("migrated") / "governance.db"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def migrated_name(postgres_server: PostgresServer) -> str:
    """The same in PostgreSQL, which copies it by itself."""
    _migrate(postgres_server.create_database("migrated"))
    return "migrated"


@pytest.fixture
def migrated_sqlite_url(tmp_path: Path, migrated_file: Path) -> str:
    path = tmp_path / "governance.db"
    shutil.copyfile(migrated_file, path)
    return f"sqlite:///{path}"


@pytest.fixture
def migrated_postgres_url(postgres_server: PostgresServer, migrated_name: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    yield postgres_server.create_database(name, template=migrated_name)
    postgres_server.drop_database(name)


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Each of the databases in turn, of this release's schema."""
    url: str = request.getfixturevalue(f"migrated_{request.param}_url")
    return url


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def module_database_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Each of the databases in turn, empty, for all tests of a file together."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path_factory.mktemp('database') / 'governance.db'}"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.create_database(f"module_{next(_numbers)}")


def _migrate(url: str) -> None:
    store = Store(url)
    migrate.upgrade(store)
    store.close()
