"""kill -9 at every named place: then the books balance, nothing is stuck, nothing is lost, nothing is done twice."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from governance.core.actions import Lease
from governance.errors import ActionDenied, ActionFailed
from governance.faults import POINTS
from tests.faults.conftest import lose
from tests.support.fleet import ROOT, Shop, assert_intact, eventually, failure, settle
from tests.support.governed import Desk

# Which process has to die for the point to be reached.
IN_PRODUCER = {"after_submit_before_publish"}
IN_DECIDER = {"after_decision_before_publish"}
# What is pruned is over: tests/faults/test_retention.py.
IN_PRUNER = {"after_first_of_pruned"}


def elsewhere(shop: Shop, program: str, **environment: str) -> int:
    """Runs `program` in a process of its own; its return code."""
    done = subprocess.run(
        [sys.executable, "-c", program, str(shop.folder)],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def abandon(shop: Shop) -> Any:
    """An action whose worker was killed while it ran."""
    worker = shop.worker("doomed", 1).ready()
    result = shop.tasks.waits.delay(str(shop.folder))
    eventually(lambda: shop.state(result.id) == "running", "the doomed worker runs it")
    worker.kill()
    (shop.folder / "go").touch()
    return result


@pytest.mark.parametrize("point", [point for point in POINTS if point not in IN_PRUNER])
def test_a_kill_at_any_point_loses_and_doubles_nothing(shop: Shop, point: str) -> None:
    fault = {"ACP_FAULT": f"{point}:{shop.folder / 'died'}"}
    folder = str(shop.folder)
    tasks = shop.tasks
    orphans = [abandon(shop)] if point == "after_reclaim_before_publish" else []
    worker = shop.worker(environment={} if point in IN_PRODUCER | IN_DECIDER else fault)
    shop.beat()
    eventually(lambda: worker.is_ready or worker.process.poll() is not None, "the worker is ready, or has died")
    if worker.process.poll() is not None:
        # It looks for orphans before it takes traffic, and came to the point there: by then their lease had lapsed.
        shop.worker("next").ready()

    produce = "import sys; from tests.support.shop import *; "
    produce += "idempotent_effect.apply_async((sys.argv[1],), command_id='p')"
    elsewhere(shop, produce, **(fault if point in IN_PRODUCER else {}))
    again = [tasks.idempotent_effect.delay(folder) for _ in range(3)]
    once = [tasks.single_effect.delay(folder) for _ in range(3)]
    retried = tasks.flaky.delay(1)
    asked = tasks.ask.delay("c1", 5)
    dying = tasks.dies.delay(folder)
    # This is what makes the relay reach its point.
    lost = lose(shop)

    shop.until(asked.id, "parked")
    decide = (
        "import sys; from tests.support.shop import app; from acp_tasks import bootstrap;"
        "from acp_tasks.publish import deliver; from governance.operations import decide;"
        "from tests.support.governed import ANN;"
        f"decide.approve(bootstrap.governance(), '{asked.id}', by=ANN, reason='fine');"
        f"deliver(app, bootstrap.governance(), '{asked.id}')"
    )
    elsewhere(shop, decide, **(fault if point in IN_DECIDER else {}))

    settle(shop)
    assert (shop.folder / "died").exists(), "the fault was never reached"
    assert_intact(shop)
    done = Counter(line.split()[0] for line in shop.effects())
    assert all(done[a.id] >= 1 for a in [*again, dying])
    assert done["p"] >= 1
    assert all(shop.state(a.id) == "succeeded" for a in [*again, retried, asked, dying, *orphans])
    assert {shop.state(a.id) for a in once} <= {"succeeded", "in_doubt"}
    assert all(done[a.id] <= 1 for a in once)
    assert all(done[a.id] == 1 for a in once if shop.state(a.id) == "succeeded")
    assert shop.state(lost.id) == "succeeded"


def test_every_place_that_is_named_is_killed_at() -> None:
    placed = {
        name
        for package in ("governance", "acp_tasks")
        for path in (ROOT / package).rglob("*.py")
        for name in re.findall(r"\bpoint\(\"(\w+)\"\)", path.read_text())
    }
    assert placed == set(POINTS)


def test_a_killed_child_is_reported_and_its_action_runs_again(shop: Shop) -> None:
    shop.worker().ready()
    result = shop.tasks.dies.delay(str(shop.folder))
    # No beat, so no sweep and no relay: the worker itself reports its child, and the message comes back.
    assert result.get(timeout=15) == 2
    assert_intact(shop)


def test_a_killed_child_leaves_what_is_not_idempotent_in_doubt(shop: Shop) -> None:
    shop.worker().ready()
    shop.beat()
    result = shop.tasks.dies_once.delay(str(shop.folder))
    shop.until(result.id, "in_doubt")
    other = shop.tasks.add.delay(1, 2)
    assert other.get(timeout=15) == 3
    assert len(shop.effects()) == 1
    assert_intact(shop)


def test_what_a_dead_child_called_directly_is_not_left_behind(shop: Shop) -> None:
    shop.worker().ready()
    result = shop.tasks.calls.delay(str(shop.folder))
    assert result.get(timeout=15) == 2
    states = shop.gov.store.read("SELECT state FROM actions WHERE name = 't.dies'", {})
    assert [row[0] for row in states] == ["failed"]
    assert_intact(shop)


def test_a_map_whose_child_died_does_no_item_twice(shop: Shop) -> None:
    shop.worker(concurrency=1).ready()
    result = shop.tasks.item.starmap([(str(shop.folder), n) for n in range(3)]).delay()
    error = failure(result)
    assert isinstance(error, ActionDenied | ActionFailed)
    assert sorted(shop.effects()) == ["item 0", "item 1"]
    assert_intact(shop)


def test_a_living_worker_gives_up_an_attempt_that_has_no_body(shop: Shop) -> None:
    """As if its end had found neither the store nor the disk: admitted in the name of a child that does nothing."""
    shop.worker(concurrency=1).ready()
    shop.tasks.add.delay(1, 1).get(timeout=15)
    payload = shop.gov.store.read("SELECT payload FROM events WHERE kind = 'action.admitted'", {})[0][0]
    owner = json.loads(payload)
    left = Desk(shop.gov, Lease(owner["worker"], owner["child"]))
    made = left.submit(idempotent=False)
    left.admitted(made)
    shop.until(made.action_id, "in_doubt")
    assert_intact(shop)


def test_a_killed_workers_action_runs_on_another(shop: Shop) -> None:
    first = shop.worker("first", 1).ready()
    shop.beat()
    result = shop.tasks.waits.delay(str(shop.folder))
    eventually(lambda: shop.effects(), "the first worker runs it")
    first.kill()
    shop.worker("second", 1).ready()
    (shop.folder / "go").touch()
    shop.until(result.id, "succeeded")
    assert [line.split()[1] for line in shop.effects()] == ["1", "2"]
    assert_intact(shop)


def test_a_worker_that_was_frozen_cannot_write_when_it_wakes(shop: Shop) -> None:
    first = shop.worker("first", 1).ready()
    shop.beat()
    result = shop.tasks.waits.delay(str(shop.folder))
    eventually(lambda: shop.effects(), "the first worker runs it")
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(first.process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    for pid in [first.process.pid, *map(int, children)]:
        os.kill(pid, signal.SIGSTOP)
    shop.worker("second", 1).ready()
    eventually(lambda: len(shop.effects()) == 2, "the second worker runs it")
    (shop.folder / "go").touch()
    shop.until(result.id, "succeeded")
    for pid in [first.process.pid, *map(int, children)]:
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: "fenced" in shop.log("first"), "the zombie found itself fenced")
    assert result.get(timeout=10) == 2
    assert_intact(shop)


def test_a_worker_told_to_stop_ends_what_it_runs(shop: Shop) -> None:
    worker = shop.worker("first", 1).ready()
    result = shop.tasks.waits.delay(str(shop.folder))
    eventually(lambda: shop.effects(), "it runs")
    worker.process.terminate()
    (shop.folder / "go").touch()
    assert worker.stop() == 0
    assert shop.state(result.id) == "succeeded"
    stopped = shop.gov.store.read("SELECT count(*) FROM workers WHERE stopped_us IS NOT NULL", {})
    assert stopped[0][0] == 1
    assert_intact(shop)


def test_a_broker_that_lost_everything_loses_no_action(shop: Shop) -> None:
    results = [shop.tasks.add.delay(n, n) for n in range(5)]
    with shop.tasks.app.connection_for_write() as connection:
        connection.default_channel.client.flushdb()
    shop.worker().ready()
    shop.beat()
    for result in results:
        shop.until(result.id, "succeeded")
    assert_intact(shop)


def test_a_message_delivered_many_times_runs_once(shop: Shop) -> None:
    folder = str(shop.folder)
    results = [shop.tasks.single_effect.delay(folder) for _ in range(5)]
    for _ in range(3):
        for result in results:
            shop.tasks.app.send_task("t.once", (folder,), task_id=result.id)
    shop.worker("first", 2).ready()
    shop.worker("second", 2).ready()
    for result in results:
        assert result.get(timeout=20) == 1
    with shop.tasks.app.connection_for_read() as connection:
        queue = connection.default_channel.client
        eventually(lambda: queue.llen("celery") == 0 and queue.hlen("unacked") == 0, "every message is consumed")
    assert Counter(line.split()[0] for line in shop.effects()) == {r.id: 1 for r in results}
    assert_intact(shop)
