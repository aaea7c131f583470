"""Beat's jobs in a queue of their own: who takes them, and that busy agents do not keep them waiting."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from celery import Celery

from acp_tasks.control import JOBS
from acp_tasks.control.relay import _waiting
from acp_tasks.control_queue import CONTROL
from acp_tasks.stop import agent_workers, pool_workers
from governance.operations.processes import list_beats, list_workers
from tests.support.fleet import Shop, assert_intact, eventually
from tests.support.governed import Desk


@pytest.fixture
def shop(tmp_path: Path, sqlite_url: str, broker_address: str) -> Iterator[Shop]:
    shop = Shop(tmp_path, sqlite_url, broker_address, ACP_HEARTBEAT_S="0.5", ACP_LEASE_S="2", ACP_RELAY_S="2")
    try:
        yield shop
    finally:
        shop.close()


def lengths(shop: Shop) -> dict[str, int]:
    with redis.Redis.from_url(shop.environment["ACP_BROKER_URL"]) as client:
        return {queue: int(client.llen(queue)) for queue in ("celery", CONTROL)}


def ticked(shop: Shop, since_us: int) -> set[str]:
    """The jobs that were done since then."""
    return {row[0] for row in shop.gov.store.read("SELECT job FROM ticks WHERE claimed_us > :at", {"at": since_us})}


def test_the_jobs_run_on_the_control_worker_while_every_agent_slot_is_busy(shop: Shop) -> None:
    agents = shop.worker("agents", concurrency=1, queues="celery").ready()
    control = shop.worker("control", concurrency=1, queues=CONTROL).ready()
    folder = str(shop.folder)
    busy = shop.tasks.waits.delay(folder)
    shop.until(busy.id, "running")
    behind = [shop.tasks.add.delay(n, 1) for n in range(3)]
    lost = shop.tasks.add.apply_async((1, 1), countdown=3600)
    shop.gov.store.run("UPDATE actions SET not_before_us = NULL, published_us = NULL WHERE id = :id", {"id": lost.id})
    since_us = shop.gov.clock.now_us()
    shop.beat()

    eventually(lambda: ticked(shop, since_us) == set(JOBS), "every job is done")
    sent = "SELECT published_us FROM actions WHERE id = :id"
    eventually(lambda: shop.gov.store.read(sent, {"id": lost.id})[0][0] is not None, "the relay published")
    eventually(lambda: not shop.gov.store.read("SELECT 1 FROM events WHERE seq IS NULL", {}), "every event is sealed")
    assert [shop.state(action_id) for action_id in (busy.id, *(one.id for one in behind), lost.id)] == [
        "running",
        *["queued"] * 4,
    ]
    assert "Task acp.sealing" not in shop.log("agents")
    assert pool_workers(shop.gov) == sorted([*agent_workers(shop.gov), *_ids(shop, "control")])
    assert agent_workers(shop.gov) == _ids(shop, "agents")

    (shop.folder / "go").touch()
    for result in (*behind, lost):
        result.get(timeout=20)
    assert control.stop() == agents.stop() == 0
    assert_intact(shop)


def test_a_worker_that_was_not_told_its_queues_does_both_and_beat_is_counted(shop: Shop) -> None:
    for name in ("one", "two"):
        shop.beat(name)
    eventually(lambda: lengths(shop)[CONTROL] >= len(JOBS), "the jobs wait in their own queue")
    assert lengths(shop)["celery"] == 0

    def alive() -> int:
        return sum(beat.alive for beat in list_beats(shop.gov, silent_s_max=5))

    eventually(lambda: alive() == 2, "two beats are alive")
    since_us = shop.gov.clock.now_us()
    shop.worker(concurrency=3).ready()
    result = shop.tasks.add.delay(1, 2)
    assert result.get(timeout=20) == 3
    eventually(lambda: ticked(shop, since_us) == set(JOBS), "every job is done")
    worker = list_workers(shop.gov, silent_s_max=5)[0]
    assert worker.queues is not None
    assert (set(worker.queues), worker.slots, worker.host) == ({"celery", CONTROL}, 3, os.uname().nodename)

    for process in shop.processes[:2]:
        process.terminate()
        # Celery's beat ends with 0 or, when the signal finds it sending, with 1.
        process.wait(timeout=20)
    assert list_beats(shop.gov, silent_s_max=60) == []


def test_control_messages_are_no_backlog_of_actions(shop: Shop) -> None:
    shop.beat()
    eventually(lambda: lengths(shop)[CONTROL] >= len(JOBS), "the jobs wait")
    assert _waiting(shop.tasks.app) == 0
    shop.tasks.add.delay(1, 1)
    assert _waiting(shop.tasks.app) == 1


def test_an_app_that_names_its_queues_consumes_the_control_queue_too(sqlite_url: str) -> None:
    app = Celery("strict", task_cls="acp_tasks:GovernedTask", broker="memory://", set_as_current=False)
    app.conf.task_queues = {"fast": {}, "slow": {}}
    app.conf.task_create_missing_queues = False
    app.finalize()
    assert set(app.amqp.queues.consume_from) == {"fast", "slow", CONTROL}
    assert app.amqp.router.route({"queue": CONTROL}, "acp.relay")["queue"].name == CONTROL
    app.amqp.queues.select(["fast"])
    assert set(app.amqp.queues.consume_from) == {"fast"}


def test_an_app_that_was_used_before_its_tasks_were_bound_consumes_it_too() -> None:
    app = Celery("early", task_cls="acp_tasks:GovernedTask", broker="memory://", set_as_current=False)
    assert set(app.amqp.queues.consume_from) == {"celery"}
    app.finalize()
    assert set(app.amqp.queues.consume_from) == {"celery", CONTROL}


def test_a_process_that_is_no_worker_says_nothing_of_queues(shop: Shop) -> None:
    desk = Desk(shop.gov)
    desk.submit()
    shop.tasks.add(1, 2)
    direct = list_workers(shop.gov, silent_s_max=60)[0]
    assert (direct.host, direct.queues, direct.slots) == (None, None, None)
    assert agent_workers(shop.gov) == []


def _ids(shop: Shop, name: str) -> list[str]:
    heard = list_workers(shop.gov, silent_s_max=60)
    return sorted(worker.id for worker in heard if worker.id.startswith(f"{name}@"))
