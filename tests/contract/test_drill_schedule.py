"""When drills are due, that they do not overlap, and what is said of those that failed, never ended, or were missed."""

import json
from collections.abc import Iterator

import pytest

from governance.core.drills import DrillReport, Findings, Kind, Step
from governance.core.switches import Mode, Scope
from governance.errors import InvalidOption, StateConflict
from governance.operations.context import Governance
from governance.operations.drill_schedule import due, watch
from governance.operations.drills import drill_policy, find_report, finish, list_drills, start
from governance.operations.sessions import in_force
from governance.operations.switches import board_now, engage
from tests.support.governed import ANN, Desk, ManualClock, make_governance

WEEK_S = 7 * 24 * 3600.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def gov(database_url: str, clock: ManualClock) -> Iterator[Governance]:
    gov = make_governance(database_url, clock=clock)
    yield gov
    gov.store.close()


def failures(report: DrillReport) -> dict[str, str]:
    return {step.name: step.detail for step in report.steps if not step.passed}


def alerts(gov: Governance) -> list[str]:
    return [row[0] for row in gov.store.read("SELECT id FROM alerts ORDER BY id", {})]


def alert_events(gov: Governance) -> list[str]:
    found = gov.store.read("SELECT payload FROM events WHERE kind = 'alert.raised' ORDER BY id", {})
    return [json.loads(row[0])["alert"] for row in found]


def test_two_drills_of_a_kind_never_overlap(gov: Governance, clock: ManualClock) -> None:
    first = start(gov, Kind.KILL, started_by="test")
    with pytest.raises(StateConflict, match=first.id):
        start(gov, Kind.KILL, started_by="test")
    with pytest.raises(InvalidOption, match="1 to 300000 milliseconds"):
        start(gov, Kind.KILL, started_by="test", threshold_ms=0)
    start(gov, Kind.APPROVAL_BACKLOG, started_by="test")
    with pytest.raises(StateConflict, match="running"):
        find_report(gov, first.id)
    assert len(list_drills(gov, limit=10)) == 2


def test_a_failed_drill_whose_process_died_before_its_alert_is_told_of_once(gov: Governance) -> None:
    drill = start(gov, Kind.KILL, started_by="test")
    finish(gov, drill, Findings((Step("all", False, "no"),)), [])
    gov.store.run("DELETE FROM alerts", {})
    for _ in range(2):
        watch(gov, 0)
    assert alerts(gov) == [f"drill-failed:{drill.id}"]


def test_a_drill_whose_process_is_gone_is_given_up_and_its_switch_released(gov: Governance, clock: ManualClock) -> None:
    gone = start(gov, Kind.KILL, started_by="test")
    engage(gov, Scope.SESSION, gone.session.id, mode=Mode.KILL, reason="a drill", by=ANN)
    clock.pass_s(599)
    watch(gov, WEEK_S)
    assert alerts(gov) == []
    clock.pass_s(1)
    watch(gov, WEEK_S)
    watch(gov, WEEK_S)
    assert alerts(gov) == alert_events(gov) == [f"drill-failed:{gone.id}"]
    assert board_now(gov).engaged == ()
    report = find_report(gov, gone.id)
    assert failures(report) == {"it ran to its end": "it did not within 600 s: whoever ran it is gone"}
    late = finish(gov, gone, Findings((Step("all", True, "fine"),)), [])
    assert late == report, "the first report stays"
    assert due(gov, 0) is None
    start(gov, Kind.KILL, started_by="test")


def test_a_drill_is_due_one_cadence_after_the_last_and_overdue_is_said_once(
    gov: Governance, clock: ManualClock
) -> None:
    assert due(gov, 100) is None
    in_force(gov, "default", clock.now_us())
    clock.pass_s(99)
    assert due(gov, 100) is None
    clock.pass_s(1)
    assert due(gov, 100) is Kind.KILL
    assert due(gov, 0) is None
    drill = start(gov, Kind.KILL, started_by="test")
    assert due(gov, 100) is None
    finish(gov, drill, Findings((Step("all", True, "fine"),)), [])
    assert due(gov, 100) is Kind.APPROVAL_BACKLOG
    clock.pass_s(51)
    assert watch(gov, 100).overdue == watch(gov, 100).overdue == ("approval-backlog", "recovery")
    assert watch(gov, 0).overdue == ()
    first = ["drill-overdue:approval-backlog:first", "drill-overdue:recovery:first"]
    assert alerts(gov) == alert_events(gov) == first
    clock.pass_s(100)
    watch(gov, 100)
    assert alerts(gov) == sorted([*first, f"drill-overdue:kill:{drill.id}"])


def test_a_drill_session_runs_drill_actions_only(gov: Governance) -> None:
    policy, _ = drill_policy()
    drill = start(gov, Kind.KILL, started_by="test")
    force = in_force(gov, drill.session.stream, gov.clock.now_us())
    assert force.session == drill.session
    assert force.policy.hash == policy.hash != gov.policy.hash
    desk = Desk(gov)
    made = desk.submit(stream=drill.session.stream, name="case.reply")
    assert desk.state(made) == "denied"
