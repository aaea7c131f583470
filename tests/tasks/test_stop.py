"""The kill switch on real workers: what runs stops, what waits never starts, and everything else goes on."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from acp_tasks.interrupt import Nudge, nudge
from acp_tasks.publish import deliver
from acp_tasks.run import Halt
from acp_tasks.stop import StopReport, stop
from governance.core.switches import Mode, Scope, Switch
from governance.errors import ActionCancelled
from governance.operations import audit, clearing
from governance.operations.audit import seal
from governance.operations.context import Governance
from governance.operations.resolve import resolve
from tests.support.fleet import Shop, eventually, failure
from tests.support.governed import ANN


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, broker_address: str
) -> Iterator[Shop]:
    shop = Shop(tmp_path_factory.mktemp("shop"), request.getfixturevalue(request.param), broker_address)
    try:
        yield shop
    finally:
        shop.close()


def halt(shop: Shop, scope: Scope, scope_id: str, *, mode: Mode = Mode.KILL, grace_s: float = 10.0) -> StopReport:
    return stop(shop.tasks.app, shop.gov, scope, scope_id, mode=mode, reason="it misbehaves", by=ANN, grace_s=grace_s)


def started(shop: Shop) -> dict[str, list[str]]:
    """What each body that began has written behind its id."""
    lines = [line.split() for line in shop.effects() if line.startswith("started")]
    return {line[1]: line[2:] for line in lines}


def until_started(shop: Shop, count: int) -> dict[str, list[str]]:
    return eventually(lambda: started(shop) if len(started(shop)) >= count else {}, f"{count} bodies began")


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def settle(shop: Shop, cut: Any, why: str) -> None:
    """A person says what became of an action in doubt, and its caller hears it."""
    resolve(shop.gov, cut.id, outcome="failed", by=ANN, reason="nothing was done", command_id=None)
    deliver(shop.tasks.app, shop.gov, cut.id)
    assert why in str(failure(cut))


def assert_sound(shop: Shop) -> None:
    seal(shop.gov)
    assert audit.verify(shop.gov).problems == ()


def test_every_kind_of_body_stops_and_other_work_goes_on(shop: Shop) -> None:
    tasks, folder = shop.tasks, str(shop.folder)
    shop.beat()
    workers = [shop.worker(name, concurrency=4) for name in ("w1", "w2")]
    for worker in workers:
        worker.ready()
    kinds = [shop.lasting.cooperates, shop.lasting.sleeps, shop.lasting.sleeps_once, shop.lasting.starts]
    in_scope = [kind.apply_async((folder,), stream="bad") for kind in kinds]
    bystander = tasks.waits.apply_async((folder,), stream="good")
    begun = until_started(shop, len(in_scope))
    eventually(lambda: shop.state(bystander.id) == "running", "the bystander runs")
    queued = [shop.lasting.sleeps.apply_async((folder,), stream="bad", countdown=30) for _ in range(20)]

    report = halt(shop, Scope.STREAM, "bad")

    assert {one.action_id: one.state for one in report.ended} == {
        in_scope[0].id: "cancelled",
        in_scope[1].id: "cancelled",
        in_scope[2].id: "in_doubt",
        in_scope[3].id: "cancelled",
    }
    assert report.still_running == 0
    assert report.last_stop_ms is not None
    assert report.last_stop_ms < 10_000, "nobody was left to the end of the grace"
    assert len(report.acknowledged) == 2
    assert report.silent == ()
    assert report.cancelled == len(queued)
    assert f"cleaned {in_scope[0].id}" in shop.effects()
    assert not alive(int(begun[in_scope[3].id][0]))
    for told in (in_scope[0], in_scope[1], in_scope[3], *queued):
        error = failure(told)
        assert isinstance(error, ActionCancelled)
        assert (error.rule, error.reason) == ("switch:stream:bad", "it misbehaves")

    settle(shop, in_scope[2], "ActionStopped")

    late = shop.lasting.sleeps.apply_async((folder,), stream="bad")
    assert isinstance(failure(late), ActionCancelled)
    assert set(started(shop)) == set(begun)
    (shop.folder / "go").touch()
    assert bystander.get(timeout=20) == 1
    assert tasks.add.delay(1, 2).get(timeout=20) == 3
    assert_sound(shop)


def test_who_does_not_listen_is_killed_after_the_grace_with_what_it_started(shop: Shop) -> None:
    tasks, folder = shop.tasks, str(shop.folder)
    shop.beat()
    shop.worker(concurrency=2).ready()
    deaf = shop.lasting.stubborn.delay(folder)
    bystander = tasks.waits.apply_async((folder,), stream="good")
    begun = until_started(shop, 1)
    eventually(lambda: shop.state(bystander.id) == "running", "the bystander runs")

    report = halt(shop, Scope.ACTION, deaf.id, grace_s=1.0)

    (one,) = report.ended
    assert one.state == "in_doubt"
    assert one.after_ms is not None
    assert 1000 <= one.after_ms < 5000
    eventually(lambda: not alive(int(begun[deaf.id][0])), "its subprocess is gone")
    settle(shop, deaf, "killed after the grace of switch:action")
    (shop.folder / "go").touch()
    assert bystander.get(timeout=20) == 1
    assert_sound(shop)


def test_a_worker_that_missed_the_word_stops_too(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(shop.folder)
    shop.beat()
    shop.worker(concurrency=1).ready()
    asleep = shop.lasting.sleeps.delay(folder)
    until_started(shop, 1)
    monkeypatch.setattr("acp_tasks.stop.halt", lambda app, workers: [])
    report = halt(shop, Scope.SYSTEM, "*")
    assert [one.state for one in report.ended] == ["cancelled"]
    assert len(report.silent) == 1
    assert isinstance(failure(asleep), ActionCancelled)


def test_what_beat_cancels_first_is_in_the_report(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    before = shop.lasting.sleeps.apply_async((str(shop.folder),), stream="bad", countdown=60)
    earlier = halt(shop, Scope.STREAM, "bad")
    clearing.release(shop.gov, earlier.switch_id, reason="once more", by=ANN)
    waiting = [shop.lasting.sleeps.apply_async((str(shop.folder),), stream="bad", countdown=60) for _ in range(3)]

    def beat_first(gov: Governance, switch: Switch, actor: str) -> list[str]:
        clearing.sweep(gov, "switches")
        return clearing.cancel_waiting(gov, switch, actor)

    monkeypatch.setattr("acp_tasks.stop.cancel_waiting", beat_first)
    report = halt(shop, Scope.STREAM, "bad")
    assert (earlier.cancelled, report.cancelled) == (1, len(waiting))
    assert {shop.state(one.id) for one in (before, *waiting)} == {"cancelled"}


def test_a_pause_holds_up_what_is_in_scope_until_the_release(shop: Shop) -> None:
    tasks = shop.tasks
    shop.beat()
    shop.worker(concurrency=2).ready()
    report = halt(shop, Scope.AGENT, "desk-1", mode=Mode.PAUSE)
    held = [tasks.add.apply_async((n, 1), agent_id="desk-1") for n in range(10)]
    assert tasks.add.apply_async((1, 1), agent_id="desk-2").get(timeout=20) == 2
    eventually(lambda: {shop.state(one.id) for one in held} == {"deferred"}, "all wait")
    resumed = clearing.release(shop.gov, report.switch_id, reason="it was a false alarm", by=ANN)
    assert len(resumed) == 10
    for action_id in resumed:
        deliver(tasks.app, shop.gov, action_id)
    assert [one.get(timeout=40) for one in held] == [n + 1 for n in range(10)]
    assert_sound(shop)


def test_an_idle_child_and_another_action_survive_a_nudge_that_is_not_for_them(shop: Shop) -> None:
    tasks, folder = shop.tasks, str(shop.folder)
    shop.worker(concurrency=1).ready()
    waiting = tasks.waits.delay(folder)
    eventually(lambda: shop.state(waiting.id) == "running", "it runs")
    ((worker_id, number),) = shop.gov.store.read("SELECT lease_worker, lease_child FROM actions", {})
    child = int(number)
    nudge(worker_id, child, [Nudge("another-action", 1, Halt("switch:system", "no"), final=True)])
    # Of a worker in a container of its own, with the same state directory, whose children are numbered alike.
    nudge(f"{worker_id}-elsewhere", child, [Nudge(waiting.id, 1, Halt("switch:system", "no"), final=True)])
    (shop.folder / "go").touch()
    assert waiting.get(timeout=20) == 1
    nudge(worker_id, child, [Nudge(waiting.id, 1, Halt("switch:system", "no"), final=True)])
    assert tasks.add.delay(1, 1).get(timeout=20) == 2
    os.kill(child, 0)
