"""The recovery drill on real workers: children die under it, and it proves that this was found."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from acp_tasks.drills.conduct import conduct
from governance.core.drills import DrillReport, Kind
from governance.core.principals import Principal
from governance.operations import audit
from governance.operations.drills import find_report
from governance.operations.principals import create_token
from governance.operations.switches import board_now
from tests.support.fleet import Shop, eventually
from tests.support.terminal import Terminal


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def shop(request: pytest.FixtureRequest, tmp_path: Path, broker_address: str) -> Iterator[Shop]:
    shop = Shop(tmp_path, request.getfixturevalue(request.param), broker_address)
    try:
        yield shop
    finally:
        shop.close()


def failures(report: DrillReport) -> dict[str, str]:
    return {step.name: step.detail for step in report.steps if not step.passed}


def figures(report: DrillReport) -> dict[str, float | None]:
    return {figure.name: figure.value for figure in report.figures}


def assert_nothing_is_left(shop: Shop) -> None:
    gov = shop.gov
    assert board_now(gov).engaged == ()
    open_ones = "SELECT name, state FROM actions WHERE name LIKE 'acp.drill.%' AND delivered_us IS NULL"
    assert gov.store.read(open_ones, {}) == []
    assert gov.store.read("SELECT id FROM accounts WHERE held <> 0 AND scope_id LIKE 'drill-%'", {}) == []
    assert audit.verify(gov).problems == ()


def test_children_that_die_are_found_and_nobody_elses_work_is_touched(shop: Shop, tmp_path: Path) -> None:
    shop.worker("w1", concurrency=2).ready()
    shop.worker("w2", concurrency=2).ready()
    shop.beat()
    others = [shop.tasks.waits.apply_async((str(shop.folder),), stream="good") for _ in range(2)]
    eventually(lambda: len(shop.effects()) == 2, "somebody's work runs")
    root = Principal("root", frozenset({"admin"}))
    token = create_token(shop.gov, principal="olga", roles=["operator"], by=root).text
    ran = Terminal(tmp_path).acp("drill", "run", "recovery", "--json", **shop.environment, ACP_TOKEN=token)
    assert ran.code == 0, (ran.out, ran.err)
    report = find_report(shop.gov, ran.json["drill_id"])
    assert (report.kind, report.passed, failures(report)) == (Kind.RECOVERY, True, {})
    measured = figures(report)
    assert measured["children lost and found"] == 2
    assert 0 < (measured["at work again after"] or 0) <= 30_000
    died = (
        "SELECT a.name, e.attempt, e.state FROM events e JOIN actions a ON a.id = e.action_id"
        " WHERE a.name LIKE 'acp.drill.fall%' AND e.kind IN ('action.admitted', 'action.reclaimed', 'action.resolved',"
        " 'action.succeeded') ORDER BY a.name, e.id"
    )
    assert [tuple(row) for row in shop.gov.store.read(died, {})] == [
        ("acp.drill.fall", 1, "running"),
        ("acp.drill.fall", 1, "queued"),
        ("acp.drill.fall", 2, "running"),
        ("acp.drill.fall", 2, "succeeded"),
        ("acp.drill.fall_once", 1, "running"),
        ("acp.drill.fall_once", 1, "in_doubt"),
        ("acp.drill.fall_once", 1, "failed"),
    ]
    assert [shop.state(other.id) for other in others] == ["running", "running"]
    (shop.folder / "go").touch()
    assert [other.get(timeout=20) for other in others] == [1, 1]
    assert shop.gov.store.read("SELECT id FROM alerts", {}) == []
    assert_nothing_is_left(shop)


@pytest.mark.parametrize("shop", ["sqlite_url"], indirect=True)
def test_what_comes_too_late_or_cannot_be_exercised_has_failed(shop: Shop) -> None:
    lonely = conduct(shop.tasks.app, shop.gov, Kind.RECOVERY, started_by="test")
    assert "there is no live worker" in failures(lonely)["two children were killed, and it was found"]
    solo = shop.worker("solo", pool="solo").ready()
    single = conduct(shop.tasks.app, shop.gov, Kind.RECOVERY, started_by="test")
    assert "that has a pool of processes" in failures(single)["two children were killed, and it was found"]
    solo.stop()
    shop.worker("w1", concurrency=1).ready()
    slow = conduct(shop.tasks.app, shop.gov, Kind.RECOVERY, started_by="test", threshold_ms=1)
    assert set(failures(slow)) == {"what may run twice ran again in time"}
    assert [row[0] for row in shop.gov.store.read("SELECT id FROM alerts ORDER BY id", {})] == sorted(
        f"drill-failed:{report.drill_id}" for report in (lonely, single, slow)
    )
    assert_nothing_is_left(shop)
