"""Drills on real workers: what they prove, what makes them fail, and that they leave nothing behind."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from acp_tasks.control_queue import CONTROL
from acp_tasks.drills.conduct import conduct
from acp_tasks.drills.lanes import Pool
from acp_tasks.stop import latest_boots
from governance.core.drills import DrillReport, Kind
from governance.core.instants import SECOND_US
from governance.core.principals import Principal
from governance.errors import ActionDenied
from governance.operations import audit
from governance.operations.context import Governance
from governance.operations.drill_schedule import due, watch
from governance.operations.drills import find_report, list_drills
from governance.operations.principals import create_token
from governance.operations.sessions import in_force
from governance.operations.switches import board_now
from tests.support.fleet import Shop, eventually, failure
from tests.support.terminal import Terminal

WEEK_S = 7 * 24 * 3600.0
CADENCE_S = 600
# A busy machine is slower than a fleet has to be; how fast that is, the benchmarks say.
PATIENT_MS = 8000


def open_shop(request: pytest.FixtureRequest, broker_address: str, **settings: str) -> Iterator[Shop]:
    factory: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
    shop = Shop(factory.mktemp("shop"), request.getfixturevalue(request.param), broker_address, **settings)
    try:
        yield shop
    finally:
        shop.close()


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def shop(request: pytest.FixtureRequest, broker_address: str) -> Iterator[Shop]:
    yield from open_shop(request, broker_address)


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def scheduled_shop(request: pytest.FixtureRequest, broker_address: str) -> Iterator[Shop]:
    """Its fleet is a little older than one cadence: the first drills are due, and not overdue, however slow it is."""
    for shop in open_shop(request, broker_address, ACP_DRILL_EVERY_S=str(CADENCE_S)):
        in_force(shop.gov, "default", shop.gov.clock.now_us() - (CADENCE_S + 2) * SECOND_US)
        yield shop


def failures(report: DrillReport) -> dict[str, str]:
    return {step.name: step.detail for step in report.steps if not step.passed}


def figures(report: DrillReport) -> dict[str, float | None]:
    return {figure.name: figure.value for figure in report.figures}


def alerts(gov: Governance) -> list[str]:
    return [row[0] for row in gov.store.read("SELECT id FROM alerts ORDER BY id", {})]


def alert_events(gov: Governance) -> list[str]:
    found = gov.store.read("SELECT payload FROM events WHERE kind = 'alert.raised' ORDER BY id", {})
    return [json.loads(row[0])["alert"] for row in found]


def assert_nothing_is_left(shop: Shop) -> None:
    gov = shop.gov
    assert board_now(gov).engaged == ()
    assert gov.store.read("SELECT 1 FROM accounts WHERE held <> 0 AND scope_id LIKE 'drill-%'", {}) == []
    of_drills = "SELECT count(*) FROM actions WHERE name LIKE 'acp.drill.%' AND delivered_us IS NULL"
    assert gov.store.read(of_drills, {})[0][0] == 0
    with redis.Redis.from_url(shop.environment["ACP_BROKER_URL"]) as client:
        eventually(lambda: not client.keys("*acp.drill.*"), "no queue of a drill is left")
    assert audit.verify(gov).problems == ()


def assert_replays(gov: Governance, report: DrillReport) -> None:
    for part in report.evidence:
        numbers = [event.seq for event in audit.replay(gov, part.session_id)]
        assert numbers[: part.last_seq] == list(range(part.first_seq, part.last_seq + 1))
    # The clock may take a checkpoint of any stream, also of one that is over.
    kinds = [event.kind for event in audit.replay(gov, report.session_id) if event.kind != "checkpoint.saved"]
    assert kinds[0] == "drill.started"
    assert kinds[-1] == "drill.finished"


def operator(shop: Shop, *roles: str) -> str:
    """A token for somebody with these roles."""
    root = Principal("root", frozenset({"admin"}))
    return create_token(shop.gov, principal="olga", roles=list(roles), by=root).text


def test_the_kill_drill_stops_canaries_on_every_worker_and_nothing_else(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = shop.worker("control", concurrency=1, queues=CONTROL)
    for worker in [shop.worker(name, concurrency=4) for name in ("w1", "w2")]:
        worker.ready()
    control.ready()
    other = shop.tasks.waits.apply_async((str(shop.folder),), stream="good")
    eventually(lambda: shop.state(other.id) == "running", "somebody's work runs")
    terminal = Terminal(tmp_path)

    denied = terminal.acp("drill", "run", "kill", **shop.environment, ACP_TOKEN=operator(shop, "viewer"))
    assert (denied.code, "operator" in denied.err) == (3, True), denied.err
    assert list_drills(shop.gov, limit=10) == []

    options = ("--threshold-ms", str(PATIENT_MS), "--json")
    ran = terminal.acp("drill", "run", "kill", *options, **shop.environment, ACP_TOKEN=operator(shop, "operator"))

    assert ran.code == 0, (ran.out, ran.err)
    report = find_report(shop.gov, ran.json["drill_id"])
    assert (report.passed, failures(report), report.started_by) == (True, {}, "principal:olga")
    measured = figures(report)
    assert measured["workers"] == measured["workers that acknowledged"] == 2
    # The idle worker had a canary of each manner; the busy one gave one slot at a time.
    assert measured["canaries"] == 3
    assert 0 < (measured["stop, median"] or 0) <= (measured["stop, p99"] or 0) < PATIENT_MS
    assert (measured["bystanders that ran through it"] or 0) + (measured["bystanders that ran after it"] or 0) == 2
    assert len(report.evidence) == 2
    audit.seal(shop.gov)
    assert_replays(shop.gov, report)
    assert shop.state(other.id) == "running"
    assert alerts(shop.gov) == []
    assert terminal.acp("drill", "report", report.drill_id, **shop.environment).code == 0
    assert [line["passed"] for line in terminal.acp("drill", "list", "--json", **shop.environment).json["drills"]] == [
        True
    ]
    intruder = shop.tasks.add.apply_async((1, 1), stream=report.session_id.partition("@")[0])
    error = failure(intruder)
    assert isinstance(error, ActionDenied)
    assert error.rule == "no-rule-matches"

    monkeypatch.setattr("acp_tasks.stop.halt", lambda app, workers: [])
    slow = conduct(shop.tasks.app, shop.gov, Kind.KILL, started_by="test", threshold_ms=1)
    assert set(failures(slow)) == {"the stop was in time"}
    watch(shop.gov, WEEK_S)
    watch(shop.gov, WEEK_S)
    assert alerts(shop.gov) == alert_events(shop.gov) == [f"drill-failed:{slow.drill_id}"]

    (shop.folder / "go").touch()
    assert other.get(timeout=20) == 1
    assert_nothing_is_left(shop)


def test_a_worker_without_a_free_slot_fails_the_drill_by_name(shop: Shop) -> None:
    for worker in [shop.worker(name, concurrency=1) for name in ("w1", "w2")]:
        worker.ready()
    busy = shop.tasks.waits.delay(str(shop.folder))
    eventually(lambda: shop.state(busy.id) == "running", "it runs")
    lease = shop.gov.store.read("SELECT lease_worker FROM actions WHERE id = :id", {"id": busy.id})[0][0]

    report = conduct(shop.tasks.app, shop.gov, Kind.KILL, started_by="test", start_s=4.0)

    problem = failures(report)["a canary ran on every live worker"]
    assert problem == f"{lease}: it had no free slot within 4 s (1 of 1 slots were busy)"
    assert figures(report)["canaries"] == 1
    assert figures(report)["bystanders that ran after it"] == 1
    assert "every canary was stopped" not in failures(report)
    assert alerts(shop.gov) == [f"drill-failed:{report.drill_id}"]
    (shop.folder / "go").touch()
    assert busy.get(timeout=20) == 1
    assert_nothing_is_left(shop)


def test_a_fleet_without_workers_and_a_drill_that_breaks_off_fail(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    report = conduct(shop.tasks.app, shop.gov, Kind.KILL, started_by="test")
    assert not report.passed
    assert "no live worker" in failures(report)["a canary ran on every live worker"]
    assert alerts(shop.gov) == [f"drill-failed:{report.drill_id}"]

    def breaks(*_: object) -> None:
        raise RuntimeError("no such thing")

    monkeypatch.setattr("acp_tasks.drills.kill.pools", breaks)
    broken = conduct(shop.tasks.app, shop.gov, Kind.KILL, started_by="test")
    assert failures(broken) == {"it ran to its end": "RuntimeError: no such thing"}
    assert alerts(shop.gov) == sorted(f"drill-failed:{one.drill_id}" for one in (report, broken))
    assert_nothing_is_left(shop)


def test_two_beats_have_each_drill_run_once_and_a_backlog_that_nobody_sweeps_fails(scheduled_shop: Shop) -> None:
    shop = scheduled_shop
    beats = [shop.beat("beat1"), shop.beat("beat2")]
    shop.worker(concurrency=2).ready()

    def finished() -> list[Any]:
        return [line for line in list_drills(shop.gov, limit=10) if line.finished_us is not None]

    lines = eventually(lambda: found if len(found := finished()) == len(Kind) else [], "a drill of each kind", 120)
    assert {line.kind for line in lines} == set(Kind)
    for line in lines:
        report = find_report(shop.gov, line.id)
        assert (failures(report), report.started_by) == ({}, "schedule")
        audit.seal(shop.gov)
        assert_replays(shop.gov, report)
    asked = next(find_report(shop.gov, line.id) for line in lines if line.kind is Kind.APPROVAL_BACKLOG)
    assert figures(asked)["requests"] == figures(asked)["escalations"] == figures(asked)["denials"] == 20
    assert due(shop.gov, CADENCE_S) is None
    assert len(list_drills(shop.gov, limit=10)) == len(Kind)
    assert alerts(shop.gov) == []

    for beat in beats:
        beat.kill()
        beat.wait()
    unswept = conduct(shop.tasks.app, shop.gov, Kind.APPROVAL_BACKLOG, started_by="test", threshold_ms=500, tickets=3)
    assert set(failures(unswept)) == {
        "every level was asked when it was due",
        "nobody answered, so it was denied",
    }
    assert "0 of 3 denials" in failures(unswept)["nobody answered, so it was denied"]
    assert alerts(shop.gov) == [f"drill-failed:{unswept.drill_id}"]
    assert_nothing_is_left(shop)


@pytest.mark.parametrize(
    ("pool", "room", "crowded"),
    [
        (Pool(4, 0, True), 4, False),
        (Pool(1, 0, True), 1, False),
        (Pool(1, 1, True), -1, True),
        (Pool(4, 2, True), 1, True),
        (Pool(8, 2, True), 5, False),
    ],
)
def test_a_busy_pool_gives_one_slot_at_a_time(pool: Pool, room: int, crowded: bool) -> None:
    assert (pool.room, pool.crowded) == (room, crowded)


def test_a_worker_that_was_started_again_is_one_worker() -> None:
    assert latest_boots(["w1@a#2", "w2@a#1", "w1@a#1"]) == ["w1@a#2", "w2@a#1"]
