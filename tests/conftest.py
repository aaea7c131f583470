"""Real servers for the tests: on loopback, in temporary folders, ended by their own pid."""

import gc
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from acp_tasks.fleet.broker import BrokerServer
from acp_tasks.fleet.postgres import PostgresServer

_numbers = itertools.count()


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


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Each of the databases in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url
