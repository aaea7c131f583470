"""`acp scorecard` and `acp alerts`, as people and scripts read them."""

from governance.core.alerts import Thresholds
from governance.core.ledger import Usage
from governance.core.policy import Risk
from governance.core.rollups import HOUR_US
from governance.operations import audit, decide
from governance.operations.alerts import watch
from governance.operations.rollups import roll_up
from tests.support.governed import ANN, Desk, ManualClock, make_governance
from tests.support.terminal import Terminal


def two_days(terminal: Terminal) -> None:
    """A busy hour, a day of nothing, then more each hour; the last one ended just now."""
    clock = ManualClock(1_699_999_200_000_000)
    gov = make_governance(f"sqlite:///{terminal.database}", clock=clock)
    desk = Desk(gov)
    for hour in range(30):
        for _ in range(hour if hour > 24 else 4 * (hour == 0)):
            desk.finish(desk.admitted(desk.submit(risk=Risk.LOW)), None, Usage(1234, 1))
        desk.submit(risk=Risk.CRITICAL)
        clock.pass_s(HOUR_US / 1_000_000)
        audit.seal(gov)
    clock.pass_s(60)
    roll_up(gov)
    gov.store.close()


def test_a_scorecard_before_the_first_hour_says_who_writes_it(terminal: Terminal, desk: Desk) -> None:
    ran = terminal.acp("scorecard", "show")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("no hour has been rolled up yet: beat's job acp.scorecards")
    assert terminal.acp("scorecard", "show", "--json").json == {"scorecard": None}


def test_a_scorecard_shows_one_line_a_figure(terminal: Terminal) -> None:
    two_days(terminal)
    ran = terminal.acp("scorecard", "show", "--window", "day")
    assert ran.code == 0
    assert "hours are over and not rolled up: does beat run?" in ran.err
    first, header, *rows = ran.out.splitlines()
    assert first == "day of all streams, 2023-11-15T04:00:00Z to 2023-11-16T04:00:00Z; a bar is an hour"
    assert header.split() == ["FIGURE", "LATEST", "WINDOW", "TREND", "CHANGE"]
    lines = {row.split("  ")[0]: " ".join(row.split()) for row in rows}
    assert lines["actions succeeded"] == "actions succeeded 29 135 total " + "▁" * 19 + "▇▇███ +3275 %"
    assert lines["cost per success"] == "cost per success $0.001234 $0.001234 average " + "·" * 19 + "█████ ="
    assert lines["approval latency p50"] == "approval latency p50 - - overall " + "·" * 24
    assert all(len(row) < 110 for row in rows)
    assert "\x1b" not in ran.out


def test_a_scorecard_in_a_script(terminal: Terminal) -> None:
    two_days(terminal)
    ran = terminal.acp("scorecard", "show", "--window", "week", "--stream", "default", "--json").json["scorecard"]
    assert (ran["window"], ran["stream"], ran["bar_hours"]) == ("week", "default", 6)
    figures = {line["name"]: line for line in ran["figures"]}
    succeeded = figures["actions succeeded"]
    assert (succeeded["value"], succeeded["before"], succeeded["change_percent"]) == (139, 0, None)
    assert (len(succeeded["points"]), sum(succeeded["points"])) == (28, 139)
    assert figures["denied by never"]["value"] == 30
    assert figures["cost"]["value"] == 139 * 1234
    nobody = terminal.acp("scorecard", "show", "--stream", "nobody", "--json").json["scorecard"]
    assert {line["value"] for line in nobody["figures"]} == {0, None}
    assert terminal.acp("scorecard", "show", "--window", "year").code == 2


def test_alerts_are_listed_with_their_runbook(terminal: Terminal, desk: Desk) -> None:
    assert terminal.acp("alerts", "list").out == "no alert was ever raised\n"
    made = desk.submit(risk=Risk.HIGH)
    oldest = Thresholds(approval_age_s=0.000001, scan_s=0)
    (alert,) = watch(desk.gov, oldest).raised
    (listed,) = terminal.acp("alerts", "list", "--standing", "--json").json["alerts"]
    assert (listed["id"], listed["standing"], listed["details"]["action"]) == (alert, True, made.action_id)
    shown = terminal.acp("alerts", "list").out.splitlines()
    assert [column for column in shown[1].split() if column != listed["at"]] == [
        "approval.age",
        "stands",
        alert,
        "docs/operations.md#alert-approval-age",
    ]
    decide.deny(desk.gov, made.action_id, by=ANN, reason="no")
    assert watch(desk.gov, oldest).cleared == ("approval-age",)
    assert terminal.acp("alerts", "list", "--standing").out == "no alert stands\n"
    assert " cleared 20" in terminal.acp("alerts", "list").out
