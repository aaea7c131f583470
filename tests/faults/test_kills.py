"""kill -9 at every named place: then the books balance, nothing is stuck, nothing is lost, nothing is done twice."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from governance.faults import POINTS
from tests.faults.conftest import lose
from tests.support.fleet import ROOT, Shop, assert_intact, eventually, settle

# Which process has to die for the point to be reached.
IN_PRODUCER = {"after_submit_before_publish"}
IN_DECIDER = {"after_decision_before_publish"}
# What is pruned is over: tests/faults/test_retention.py.
IN_PRUNER = {"after_first_of_pruned"}
# No agent runs here: tests/agents/test_agent_task.py.
IN_AGENT = {point for point in POINTS if point.startswith("after_agent_")}


PRODUCE = """
import sys
from tests.support.shop import idempotent_effect
idempotent_effect.apply_async((sys.argv[1],), command_id="p")
"""
DECIDE = """
import sys
from acp_tasks import bootstrap
from acp_tasks.publish import deliver
from governance.operations import decide
from tests.support.governed import ANN
from tests.support.shop import app
decide.approve(bootstrap.governance(), sys.argv[1], by=ANN, reason="fine")
deliver(app, bootstrap.governance(), sys.argv[1])
"""


def elsewhere(shop: Shop, program: str, argument: str, **environment: str) -> int:
    """Runs `program` in a process of its own; its return code."""
    done = subprocess.run(
        [sys.executable, "-c", program, argument],
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


@pytest.mark.parametrize("point", [point for point in POINTS if point not in IN_PRUNER | IN_AGENT])
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

    if point in IN_PRODUCER:
        elsewhere(shop, PRODUCE, folder, **fault)
    else:
        tasks.idempotent_effect.apply_async((folder,), command_id="p")
    again = [tasks.idempotent_effect.delay(folder) for _ in range(3)]
    once = [tasks.single_effect.delay(folder) for _ in range(3)]
    retried = tasks.flaky.delay(1)
    asked = tasks.ask.delay("c1", 5)
    dying = tasks.dies.delay(folder)
    # This is what makes the relay reach its point.
    lost = lose(shop)

    shop.until(asked.id, "parked")
    if point in IN_DECIDER:
        elsewhere(shop, DECIDE, asked.id, **fault)
    else:
        shop.approve(asked.id)

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
