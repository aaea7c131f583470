"""The database or the broker goes away and comes back: nothing runs ungoverned, is lost, or is done twice."""

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from acp_tasks.fleet.broker import BrokerServer
from acp_tasks.fleet.postgres import PostgresServer
from tests.faults.conftest import FAST
from tests.support.fleet import Shop, assert_intact, eventually, settled

_numbers = itertools.count()


@pytest.fixture
def database(walkable_folder: Path) -> Iterator[PostgresServer]:
    """A PostgreSQL that a test may kill."""
    server = PostgresServer(walkable_folder / f"mortal-{next(_numbers)}").start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def mortal(tmp_path: Path, database: PostgresServer, broker_address: str) -> Iterator[Shop]:
    shop = Shop(tmp_path, database.create_database("shop"), broker_address, **FAST)
    try:
        yield shop
    finally:
        shop.close()


def test_an_action_that_ends_while_the_database_is_away_is_settled_once(mortal: Shop, database: PostgresServer) -> None:
    worker = mortal.worker(concurrency=1).ready()
    mortal.beat()
    result = mortal.tasks.waits.delay(str(mortal.folder))
    eventually(lambda: mortal.effects(), "it runs")
    database.kill()
    (mortal.folder / "go").touch()
    spool = mortal.folder / "state" / "spool"
    eventually(lambda: list(spool.glob("*.json")), "its end is on disk")
    assert result.get(timeout=20) == 1
    database.restart()
    eventually(lambda: not list(spool.glob("*.json")), "its end is in the store")
    mortal.until(result.id, "succeeded")
    assert len(mortal.effects()) == 1
    assert_intact(mortal)
    assert worker.stop() == 0


def test_nothing_runs_while_the_database_is_away_and_everything_when_it_is_back(
    mortal: Shop, database: PostgresServer
) -> None:
    folder = str(mortal.folder)
    results = [mortal.tasks.single_effect.delay(folder) for _ in range(5)]
    database.kill()
    mortal.worker(concurrency=1).ready()
    mortal.beat()
    eventually(lambda: mortal.log("w").count("message sent back") >= 5, "every message goes back with a delay")
    assert mortal.effects() == []
    database.restart()
    for result in results:
        assert result.get(timeout=40) == 1
    assert len(mortal.effects()) == 5
    assert_intact(mortal)


def test_a_database_restarted_under_load_loses_and_doubles_nothing(mortal: Shop, database: PostgresServer) -> None:
    folder = str(mortal.folder)
    for name in ("first", "second"):
        mortal.worker(name, 2).ready()
    mortal.beat()
    once = [mortal.tasks.single_effect.delay(folder) for _ in range(40)]
    again = [mortal.tasks.idempotent_effect.delay(folder) for _ in range(40)]
    eventually(lambda: len(mortal.effects()) >= 10, "the load runs")
    database.kill()
    database.restart()
    eventually(lambda: settled(mortal), "everything settled", 90)
    done = Counter(line.split()[0] for line in mortal.effects())
    assert all(done[result.id] == 1 for result in once if mortal.state(result.id) == "succeeded")
    assert all(done[result.id] <= 1 for result in once)
    assert {mortal.state(result.id) for result in once} <= {"succeeded", "in_doubt"}
    assert all(done[result.id] >= 1 and mortal.state(result.id) == "succeeded" for result in again)
    assert_intact(mortal)


def test_what_is_submitted_while_the_broker_is_away_runs_when_it_is_back_empty(
    shop: Shop, broker_server: BrokerServer
) -> None:
    shop.worker(concurrency=1).ready()
    shop.beat()
    before = shop.tasks.add.delay(1, 1)
    assert before.get(timeout=20) == 2
    broker_server.kill()
    try:
        during = shop.tasks.add.delay(2, 2)
        assert shop.state(during.id) == "queued"
    finally:
        broker_server.restart(empty=True)
    shop.until(during.id, "succeeded", 60)
    assert_intact(shop)
