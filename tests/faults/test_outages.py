"""The database or the broker goes away and comes back: nothing runs ungoverned, is lost, or is done twice."""

import itertools
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from celery import chord

from acp_tasks.bootstrap import new_id
from acp_tasks.fleet.broker import BrokerServer
from acp_tasks.fleet.postgres import PostgresServer
from tests.faults.conftest import FAST, lose
from tests.support.fleet import Shop, assert_intact, eventually, settle

_numbers = itertools.count()


@pytest.fixture(scope="module")
def mortal_server(walkable_folder: Path) -> Iterator[PostgresServer]:
    """A PostgreSQL that tests may kill; what was committed outlives that without fsync, too."""
    server = PostgresServer(walkable_folder / f"mortal-{next(_numbers)}", fsync=False).start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def database(mortal_server: PostgresServer) -> Iterator[PostgresServer]:
    """It runs again after each test, whatever became of that."""
    yield mortal_server
    try:
        psycopg.connect(mortal_server.url).close()
    except psycopg.OperationalError:
        mortal_server.restart()


@pytest.fixture
def mortal(tmp_path: Path, database: PostgresServer, broker_address: str) -> Iterator[Shop]:
    shop = Shop(tmp_path, database.create_database(f"shop_{next(_numbers)}"), broker_address, **FAST)
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


def test_a_canvas_goes_on_although_the_database_is_away_when_its_tasks_end(
    mortal: Shop, database: PostgresServer
) -> None:
    mortal.worker(concurrency=4).ready()
    mortal.beat()
    tasks, folder = mortal.tasks, str(mortal.folder)
    waits = [tasks.waits.si(folder).set(task_id=new_id()) for _ in range(3)]
    chained = (waits[0] | tasks.add.si(2, 2)).apply_async()
    gathered = chord(waits[1:], tasks.total.s()).apply_async()
    eventually(lambda: len(mortal.effects()) == 3, "they run")
    database.kill()
    (mortal.folder / "go").touch()
    eventually(lambda: mortal.log("w").count("published before it is submitted") == 2, "both go on")
    database.restart()
    assert (chained.get(timeout=40), gathered.get(timeout=40)) == (4, 2)
    assert [tasks.app.AsyncResult(wait.id).state for wait in waits] == ["SUCCESS"] * 3
    settle(mortal)
    assert len(mortal.effects()) == 3
    assert_intact(mortal)


def test_nothing_runs_while_the_database_is_away_and_everything_when_it_is_back(
    mortal: Shop, database: PostgresServer
) -> None:
    folder = str(mortal.folder)
    worker = mortal.worker(concurrency=1).ready()
    os.kill(worker.process.pid, signal.SIGSTOP)
    results = [mortal.tasks.single_effect.delay(folder) for _ in range(5)]
    database.kill()
    os.kill(worker.process.pid, signal.SIGCONT)
    mortal.beat()
    eventually(lambda: mortal.log("w").count("message sent back") >= 5, "every message goes back with a delay")
    assert mortal.effects() == []
    database.restart()
    for result in results:
        assert result.get(timeout=40) == 1
    assert len(mortal.effects()) == 5
    assert_intact(mortal)


def test_a_worker_that_starts_without_its_database_takes_no_traffic_until_it_has_looked_around(
    mortal: Shop, database: PostgresServer
) -> None:
    result = mortal.tasks.single_effect.delay(str(mortal.folder))
    database.kill()
    mortal.worker(concurrency=1)
    eventually(lambda: mortal.log("w").count("no traffic yet: the database is away") >= 2, "it waits")
    with mortal.tasks.app.connection_for_read() as connection:
        assert connection.default_channel.client.llen("celery") == 1
    assert mortal.effects() == []
    database.restart()
    assert result.get(timeout=40) == 1
    log = mortal.log("w")
    assert log.index("no traffic yet") < log.index("takes traffic") < log.index("w@shop ready")
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
    settle(mortal, 90)
    done = Counter(line.split()[0] for line in mortal.effects())
    assert all(done[result.id] == 1 for result in once if mortal.state(result.id) == "succeeded")
    assert all(done[result.id] <= 1 for result in once)
    assert {mortal.state(result.id) for result in once} <= {"succeeded", "in_doubt"}
    assert all(done[result.id] >= 1 and mortal.state(result.id) == "succeeded" for result in again)
    assert_intact(mortal)


@pytest.fixture
def tiny_spool(mortal: Shop) -> Iterator[Path]:
    """The spool of a worker on a disk of 64 KiB."""
    spool = mortal.folder / "state" / "spool"
    spool.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(spool)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"nobody may mount a small disk here: {mounted.stderr.strip()}")
    try:
        yield spool
    finally:
        subprocess.run(["umount", "-l", str(spool)], check=True)


def fill(folder: Path) -> Path:
    """A file that takes all the room there is."""
    rest = folder / "rest"
    with suppress(OSError), rest.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    return rest


@pytest.mark.parametrize("back", ["database", "disk"])
def test_an_end_that_finds_no_database_and_a_full_disk_is_not_lost(
    mortal: Shop, database: PostgresServer, tiny_spool: Path, back: str
) -> None:
    mortal.worker(concurrency=2).ready()
    mortal.beat()
    result = mortal.tasks.waits.delay(str(mortal.folder))
    eventually(lambda: mortal.effects(), "it runs")
    rest = fill(tiny_spool)
    database.kill()
    (mortal.folder / "go").touch()
    eventually(lambda: "neither the store nor room on disk" in mortal.log("w"), "the worker says so")
    assert list(tiny_spool.iterdir()) == [rest], "half a note takes the room that the next try needs"
    if back == "disk":
        rest.unlink()
        eventually(lambda: list(tiny_spool.glob("*.json")), "its end is on disk")
        # Nobody waits for the database any more.
        assert result.get(timeout=20) == 1
    database.restart()
    # A lease and a half after the database is back it would have been given up: it was not, nor run again.
    mortal.until(result.id, "succeeded")
    assert result.get(timeout=20) == 1
    rest.unlink(missing_ok=True)
    eventually(lambda: not list(tiny_spool.iterdir()), "nothing is left on disk")
    assert len(mortal.effects()) == 1
    assert_intact(mortal)


@pytest.mark.parametrize("shop", ["postgres"], indirect=True)
def test_a_broker_that_was_unreachable_for_30_s_has_stopped_nobody(shop: Shop, broker_server: BrokerServer) -> None:
    """Frozen: connections stay open and nobody answers, which takes clients longer to notice than a refusal."""
    shop.worker().ready()
    shop.beat()
    folder = str(shop.folder)
    running = shop.tasks.waits.delay(folder)
    asked = shop.tasks.asked.delay(folder)
    shop.until(asked.id, "parked")
    eventually(lambda: shop.effects(), "it runs")
    frozen_s = time.monotonic()
    broker_server.freeze()
    try:
        (shop.folder / "go").touch()
        # What has its message goes on: the end is in the store, whoever is waiting hears of it later.
        shop.until(running.id, "succeeded")
        during = shop.tasks.single_effect.delay(folder)
        assert time.monotonic() - frozen_s < 30, "a producer is told in time that nobody answers"
        shop.approve(asked.id)
        time.sleep(max(30 - (time.monotonic() - frozen_s), 0))
    finally:
        broker_server.thaw()
    for result in (running, asked, during):
        assert result.get(timeout=60) == 1
    settle(shop)
    assert_intact(shop)


@pytest.mark.parametrize("shop", ["postgres"], indirect=True)
def test_a_broker_killed_under_load_and_back_empty_loses_and_doubles_nothing(
    shop: Shop, broker_server: BrokerServer
) -> None:
    for name in ("first", "second"):
        shop.worker(name, 2)
    shop.beat()
    folder = str(shop.folder)
    made = [task.delay(folder, 0.2) for task in (shop.tasks.takes, shop.tasks.takes_once) for _ in range(20)]
    asked = shop.tasks.asked.delay(folder)
    eventually(lambda: len(shop.effects()) >= 5, "the load runs")
    broker_server.kill()
    broker_server.restart(empty=True)
    shop.until(asked.id, "parked")
    shop.approve(asked.id)
    settle(shop)
    assert {shop.state(result.id) for result in (*made, asked)} == {"succeeded"}
    assert_intact(shop)


def test_a_clock_that_is_put_forward_and_back_by_an_hour_stops_and_doubles_nothing(shop: Shop) -> None:
    doomed = shop.worker("doomed", 1).ready()
    folder = str(shop.folder)
    orphan = shop.tasks.waits.delay(folder)
    shop.until(orphan.id, "running")
    shop.worker("steady", 3).ready()
    shop.beat()
    slow = shop.tasks.waits.delay(folder)
    shop.until(slow.id, "running")

    shop.put_clock(3600)
    # Every heartbeat is an hour old now. The living say that they live before anybody is given up.
    ahead_us = shop.gov.clock.now_us()
    sweeps = "SELECT count(*) FROM ticks WHERE job = 'acp.recovery' AND claimed_us > :ahead"
    eventually(lambda: shop.gov.store.read(sweeps, {"ahead": ahead_us})[0][0] > 4, "recovery sweeps go on")
    during = [shop.tasks.single_effect.delay(folder), shop.tasks.idempotent_effect.delay(folder)]
    for result in during:
        shop.until(result.id, "succeeded")
    assert (shop.state(orphan.id), shop.state(slow.id)) == ("running", "running")
    assert len(shop.effects()) == 4, "nothing was given up and run again"

    doomed.kill()
    shop.put_clock(0)
    # Its last heartbeat lies an hour ahead; that is no life sign.
    eventually(lambda: len(shop.effects()) == 5, "what the dead worker held runs again")
    lost = lose(shop)
    shop.until(lost.id, "succeeded")
    (shop.folder / "go").touch()
    settle(shop)
    assert [line.split()[1] for line in shop.effects() if line.startswith(slow.id)] == ["1"]
    assert [line.split()[1] for line in shop.effects() if line.startswith(orphan.id)] == ["1", "2"]
    assert_intact(shop)


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
    settle(shop)
    assert_intact(shop)
