"""A worker process: its log lines, its pool children's connections, and Celery's own commands on the fleet's app."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from acp_tasks.fleet.postgres import PostgresServer
from acp_tasks.publish import publish
from governance.core.ledger import Usage
from governance.core.policy import Risk
from governance.middleware.spool import Spool
from governance.operations import heartbeat
from governance.operations.finish import Finish, Succeeded
from governance.operations.relay import message_of
from tests.support.fleet import Shop, eventually
from tests.support.governed import Desk, ManualClock


@pytest.fixture
def shop(tmp_path: Path, postgres_url: str, broker_address: str) -> Iterator[Shop]:
    shop = Shop(tmp_path, postgres_url, broker_address, ACP_LOG_JSON="true")
    try:
        yield shop
    finally:
        shop.close()


def lines(shop: Shop) -> list[dict[str, object]]:
    found = []
    for line in shop.log("w").splitlines():
        try:
            parsed = json.loads(line)
        except ValueError:
            continue
        if isinstance(parsed, dict):
            found.append(parsed)
    return found


def test_a_line_written_in_a_body_says_which_action_it_belongs_to(shop: Shop) -> None:
    shop.worker(concurrency=1).ready()
    result = shop.tasks.says.apply_async(("hello from the body",), command_id="say-1")
    result.get(timeout=20)
    said = eventually(
        lambda: [line for line in lines(shop) if line.get("event") == "hello from the body"], "the line is written"
    )[0]
    session = shop.gov.store.read("SELECT session_id FROM actions", {})[0][0]
    assert {key: said[key] for key in ("action", "session", "correlation_id", "command_id", "attempt", "stream")} == {
        "action": result.id,
        "session": session,
        "correlation_id": result.id,
        "command_id": "say-1",
        "attempt": 1,
        "stream": "default",
    }


def test_every_line_about_an_action_names_it_wholly(shop: Shop) -> None:
    """Also those of the worker's main process, and those that come before an attempt or after it."""
    shop.worker(concurrency=1).ready()
    shop.beat()
    dies = shop.tasks.dies.apply_async((str(shop.folder),), command_id="dies-1")
    shop.until(dies.id, "succeeded")
    parked = shop.tasks.ask.apply_async(("c1",), command_id="asks-1")
    shop.until(parked.id, "parked")
    # The message once more: it is dropped.
    outgoing = message_of(shop.gov, dies.id)
    assert outgoing is not None
    publish(shop.tasks.app, shop.gov, outgoing)

    def said() -> dict[str, list[dict[str, object]]]:
        named: dict[str, list[dict[str, object]]] = {}
        for line in lines(shop):
            if "action" in line:
                named.setdefault(str(line["event"]), []).append(line)
        return named

    eventually(lambda: {"child lost", "message dropped"} <= said().keys(), "it is in the log")
    for event, found in said().items():
        for line in found:
            known = {dies.id: "dies-1", parked.id: "asks-1"}
            assert line["command_id"] == known[str(line["action"])], event
            assert line["correlation_id"] == line["action"], event
    assert all("session" in line for line in said()["child lost"])


def test_what_was_left_behind_is_looked_for_before_the_first_message_is_taken(shop: Shop) -> None:
    yesterday = ManualClock(shop.gov.clock.now_us() - 24 * 3600 * 1_000_000)
    then = Desk(replace(shop.gov, clock=yesterday, sessions={}, policies={}, boards=[]))
    overdue = then.submit(risk=Risk.HIGH)
    # Two attempts of a worker that died, the end of one of them in the spool of this machine.
    heartbeat.register(then.gov, then.lease.worker_id, 1)
    held, ended = (then.submit(idempotent=False) for _ in range(2))
    then.admitted(held)
    run = then.admitted(ended)
    spool = Spool(shop.folder / "state" / "spool")
    spool.keep(Finish(run.ref, run.holds, Succeeded("1"), Usage(), "test", yesterday.now_us()))
    then.arrive(then.submit(stream="patient"))
    deferred = then.submit(stream="patient")
    then.arrive(deferred)
    never_published = then.submit()
    assert [shop.state(made.action_id) for made in (overdue, held, ended, deferred, never_published)] == [
        *("parked", "running", "running", "deferred", "queued")
    ]
    yesterday.pass_s(60)

    sent = shop.tasks.add.delay(1, 2)
    shop.worker(concurrency=1).ready()
    assert sent.get(timeout=20) == 3
    trail = [
        (str(row[0]), str(row[1]))
        for row in shop.gov.store.read(
            "SELECT action_id, kind FROM events WHERE at_us > :at ORDER BY id", {"at": yesterday.now_us()}
        )
    ]
    before = trail[: trail.index((sent.id, "action.admitted"))]
    for found in (
        (overdue.action_id, "action.denied"),
        (held.action_id, "action.reclaimed"),
        (deferred.action_id, "action.released"),
    ):
        assert found in before, before
    assert (shop.state(held.action_id), shop.state(ended.action_id)) == ("in_doubt", "succeeded")
    published = shop.gov.store.read(
        "SELECT published_us FROM actions WHERE id = :id", {"id": never_published.action_id}
    )
    ready = shop.gov.store.read("SELECT ready_us FROM workers WHERE ready_us IS NOT NULL", {})
    admitted = "SELECT at_us FROM events WHERE action_id = :id AND kind = 'action.admitted'"
    assert published[0][0] <= ready[0][0] <= shop.gov.store.read(admitted, {"id": sent.id})[0][0]


def test_pool_children_do_not_share_their_parents_connections(shop: Shop) -> None:
    """A connection used on both sides of a fork answers one process with another one's rows."""
    shop.worker(concurrency=4).ready()
    results = [shop.tasks.add.delay(n, 1000) for n in range(120)]
    assert [result.get(timeout=60) for result in results] == [n + 1000 for n in range(120)]
    backends = shop.gov.store.read(
        "SELECT count(DISTINCT lease_child) FROM (SELECT DISTINCT payload::json->>'child' AS lease_child FROM events"
        " WHERE kind = 'action.admitted') AS children",
        {},
    )
    assert backends[0][0] >= 2


def celery(shop: Shop, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "celery", *arguments],
        env={**os.environ, "ACP_LOG_JSON": "false"},
        cwd=shop.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_our_commands_stand_under_celery_too(shop: Shop) -> None:
    shop.tasks.never.delay()
    listed = celery(shop, "-A", "tests.support.shop", "acp", "actions", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    assert [action["name"] for action in json.loads(listed.stdout)["actions"]] == ["t.never"]


def test_celery_finds_the_fleets_own_app(shop: Shop) -> None:
    report = celery(shop, "-A", "acp_tasks", "report")
    assert report.returncode == 0, report.stderr
    assert "task_acks_late: True" in report.stdout
    assert "acp.recovery" in report.stdout


def test_a_worker_refuses_a_database_that_is_behind(shop: Shop, postgres_server: PostgresServer) -> None:
    empty = postgres_server.create_database("worker_behind")
    refused = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "tests.support.shop", "worker", "-c", "1"],
        env={**os.environ, "ACP_DATABASE_URL": empty},
        cwd=shop.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode != 0
    assert "run `acp db upgrade`" in refused.stdout + refused.stderr
