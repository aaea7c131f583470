"""What the webhook is told: every step of a ticket and every alert once, in order, and what was so when it happened."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from governance.core.policy import Risk
from governance.core.switches import Mode, Scope
from governance.operations import audit, clearing, decide, notify, switches
from governance.operations.answers import Parked
from governance.operations.escalate import escalate_overdue
from governance.operations.finish import AskedToRetry
from governance.operations.notify import Notice, TicketSteps
from tests.support.governed import ANN, BOB, Desk, ManualClock, make_governance

ASKING = """
version: 1
streams:
  default: {window: 1h, timezone: UTC, limits: {actions: 1000}}
rules:
  - {id: ask, match: {risk: high}, effect: approval, reason: a person decides,
     approval: {chain: [{first: team-lead 15m}, {then: on-call 30m}, {then: deny}]}}
  - {id: two, match: {risk: critical}, effect: approval, reason: two people decide,
     approval: {chain: [{first: team-lead 15m}, {then: on-call 30m}, {then: deny}], approvals: 2}}
"""


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    gov = make_governance(database_url, policy=ASKING)
    yield Desk(gov)
    gov.store.close()


def pass_s(desk: Desk, seconds: float) -> None:
    clock = desk.gov.clock
    assert isinstance(clock, ManualClock)
    clock.pass_s(seconds)


def told(desk: Desk, limit: int = 100) -> list[Notice]:
    """Tells everything that is pending, as a sender does."""
    seen = []
    while page := notify.pending_notices(desk.gov, limit):
        assert all(notify.notice_told(desk.gov, notice) for notice in page)
        seen += page
    assert not notify.anything_to_tell(desk.gov)
    return seen


def kinds(notices: list[Notice]) -> list[str]:
    return [notice.kind.removeprefix("approval.") for notice in notices]


def said(notice: Notice, *names: str) -> tuple[object, ...]:
    return tuple(notice.payload[name] for name in names)


def alerts_of(desk: Desk) -> list[Mapping[str, Any]]:
    found = desk.gov.store.read("SELECT payload FROM events WHERE kind = 'alert.raised' ORDER BY id", {})
    return [json.loads(row[0]) for row in found]


@pytest.mark.parametrize("at_once", [True, False], ids=["told at the end", "told step by step"])
def test_a_request_goes_up_and_is_approved(desk: Desk, at_once: bool) -> None:
    seen: list[Notice] = []

    def tell() -> None:
        if not at_once:
            seen.extend(told(desk))

    made = desk.submit(risk=Risk.HIGH, cost_micros=4000, agent_id="desk-1", user="uma", resource="case:7")
    tell()
    pass_s(desk, 15 * 60)
    escalate_overdue(desk.gov, "escalation")
    tell()
    pass_s(desk, 60)
    decide.approve(desk.gov, made.action_id, by=ANN, reason="fine")
    tell()
    desk.finish(desk.admitted(made))
    seen += told(desk)
    assert kinds(seen) == ["requested", "escalated", "approved"]
    requested, escalated, approved = seen
    assert said(requested, "level", "levels", "roles") == (0, 2, ["team-lead"])
    assert said(requested, "due", "expires") == ("2027-01-15T08:15:00Z", "2027-01-15T08:45:00Z")
    assert said(escalated, "level", "roles") == (1, ["team-lead", "on-call"])
    assert said(escalated, "due", "expires") == ("2027-01-15T08:45:00Z", "2027-01-15T08:45:00Z")
    assert said(escalated, "decided_by", "decision_reason") == (None, None)
    assert said(approved, "decided_by", "decision_reason") == ("principal:ann", "fine")
    assert said(approved, "approvals", "approvals_wanted") == (1, 1)
    for notice in seen:
        assert said(notice, "action_id", "action_name", "risk") == (made.action_id, "case.reply", "high")
        assert said(notice, "agent_id", "user", "resource") == ("desk-1", "uma", "case:7")
        assert said(notice, "rule", "reason", "cost_usd") == ("ask", "a person decides", "0.004")
        assert said(notice, "digest", "correlation_id") == ("digest-1", made.action_id)
        assert str(notice.payload["session_id"]).startswith("default@")


def test_a_notice_is_the_same_whenever_it_is_told(desk: Desk) -> None:
    made = desk.submit(risk=Risk.HIGH)
    (early,) = notify.pending_notices(desk.gov, 10)
    pass_s(desk, 15 * 60)
    escalate_overdue(desk.gov, "escalation")
    decide.extend(desk.gov, made.action_id, by=BOB, seconds=60, reason="she is on her way")
    late, *_ = notify.pending_notices(desk.gov, 10)
    assert late == early
    assert all(character.isalnum() or character == "-" for character in early.id)


def test_a_quorum_hears_of_every_vote(desk: Desk) -> None:
    made = desk.submit(risk=Risk.CRITICAL)
    decide.approve(desk.gov, made.action_id, by=ANN, reason="the customer is right")
    decide.approve(desk.gov, made.action_id, by=BOB, reason="yes")
    seen = told(desk)
    assert kinds(seen) == ["requested", "voted", "approved"]
    assert [said(notice, "approvals", "approvals_wanted") for notice in seen] == [(0, 2), (1, 2), (2, 2)]
    assert said(seen[1], "by", "comment", "decided_by") == ("principal:ann", "the customer is right", None)
    assert said(seen[2], "by", "comment", "decided_by") == ("principal:bob", None, "principal:bob")


def test_nobody_answers(desk: Desk) -> None:
    desk.submit(risk=Risk.HIGH)
    pass_s(desk, 45 * 60)
    escalate_overdue(desk.gov, "escalation")
    seen = told(desk)
    assert kinds(seen) == ["requested", "escalated", "expired"]
    assert said(seen[2], "decided_by") == ("escalation",)
    assert "nobody answered in time" in str(seen[2].payload["decision_reason"])


def test_more_time_and_then_a_refusal(desk: Desk) -> None:
    made = desk.submit(risk=Risk.HIGH)
    decide.extend(desk.gov, made.action_id, by=ANN, seconds=600, reason="I have to ask")
    decide.deny(desk.gov, made.action_id, by=ANN, reason="a fraud")
    seen = told(desk)
    assert kinds(seen) == ["requested", "extended", "denied"]
    assert said(seen[1], "due", "expires") == ("2027-01-15T08:25:00Z", "2027-01-15T08:55:00Z")
    assert said(seen[1], "comment", "decision_reason") == ("I have to ask", None)
    assert said(seen[2], "decided_by", "decision_reason") == ("principal:ann", "a fraud")


def test_a_kill_switch_cancels_a_request(desk: Desk) -> None:
    desk.submit(risk=Risk.HIGH)
    engaged = switches.engage(desk.gov, Scope.STREAM, "default", mode=Mode.KILL, reason="it misbehaves", by=ANN)
    clearing.cancel_waiting(desk.gov, engaged.switch, "principal:ann")
    seen = told(desk)
    assert kinds(seen) == ["requested", "cancelled"]
    assert said(seen[1], "decided_by", "decision_reason") == ("principal:ann", "it misbehaves")


def test_a_batch_is_told_ticket_by_ticket(desk: Desk) -> None:
    ids = [desk.submit(risk=Risk.HIGH).action_id for _ in range(7)]
    decide.approve_all(desk.gov, ids[:5], by=ANN, reason="the usual")
    decide.deny_all(desk.gov, ids[5:], by=BOB, reason="not these")
    seen = told(desk, limit=2)
    for number, action_id in enumerate(ids):
        mine = [notice for notice in seen if notice.payload["action_id"] == action_id]
        assert kinds(mine) == ["requested", "approved" if number < 5 else "denied"]
    assert len({notice.id for notice in seen}) == len(seen) == 14


def test_a_page_begins_after_the_one_before(desk: Desk) -> None:
    ids = [desk.submit(risk=Risk.HIGH).action_id for _ in range(3)]
    first = notify.pending_notices(desk.gov, 2)
    about = first[-1].about
    assert isinstance(about, TicketSteps)
    second = notify.pending_notices(desk.gov, 2, about.ticket_id)
    assert [notice.payload["action_id"] for notice in first + second] == ids
    assert notify.pending_notices(desk.gov, 2, second[-1].subject) == []


def test_another_request_of_the_same_action_is_told_by_itself(desk: Desk) -> None:
    made = desk.submit(risk=Risk.HIGH, digest="refund 5")
    decide.approve(desk.gov, made.action_id, by=ANN, reason="fine")
    change = AskedToRetry("changed", desk.gov.clock.now_us(), message='{"new": 1}', digest="refund 5000")
    desk.finish(desk.admitted(made), change)
    assert isinstance(desk.arrive(made, digest="refund 5000"), Parked)
    seen = told(desk)
    assert kinds(seen) == ["requested", "approved", "requested"]
    assert [notice.payload["digest"] for notice in seen] == ["refund 5", "refund 5", "refund 5000"]
    assert seen[0].subject == seen[1].subject != seen[2].subject


def test_edited_arguments_are_told_by_their_digests_only(desk: Desk) -> None:
    made = desk.submit(risk=Risk.HIGH, digest="refund 5000", arguments={"amount": 5000})
    message = '{"task":"case.reply","arguments":[[],{"amount":4711}],"options":{}}'
    decide.approve(
        desk.gov, made.action_id, by=ANN, reason="less", edit=decide.EditedArguments(message, "refund 47", None)
    )
    seen = told(desk)
    assert [notice.payload["digest"] for notice in seen] == ["refund 5000", "refund 47"]
    for notice in seen:
        text = json.dumps(notice.payload)
        assert '"amount"' not in text
        assert "4711" not in text


def test_two_senders_that_race_tell_each_once(desk: Desk, database_url: str) -> None:
    for number in range(12):
        made = desk.submit(risk=Risk.HIGH)
        if number % 2:
            decide.approve(desk.gov, made.action_id, by=ANN, reason="fine")
    for number in range(4):
        notify.alert(desk.gov, f"alert {number}", "stale", {})
    senders = [Desk(make_governance(database_url, policy=ASKING, clock=desk.gov.clock)) for _ in range(2)]

    def send(sender: Desk) -> Counter[str]:
        seen: Counter[str] = Counter()
        while page := notify.pending_notices(sender.gov, 5):
            seen.update(notice.id for notice in page if notify.notice_told(sender.gov, notice))
        return seen

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(send, senders)
    both = one + other
    assert len(both) == 6 + 12 + 4
    assert set(both.values()) == {1}
    for sender in senders:
        sender.gov.store.close()


def test_who_comes_late_with_a_notice_is_told_so(desk: Desk) -> None:
    made = desk.submit(risk=Risk.HIGH)
    (requested,) = notify.pending_notices(desk.gov, 10)
    assert notify.notice_told(desk.gov, requested)
    decide.approve(desk.gov, made.action_id, by=ANN, reason="fine")
    assert not notify.notice_told(desk.gov, requested)
    assert kinds(told(desk)) == ["approved"]


def test_a_consumption_meanwhile_leaves_nothing_to_tell(desk: Desk) -> None:
    made = desk.submit(risk=Risk.HIGH)
    decide.approve(desk.gov, made.action_id, by=ANN, reason="fine")
    requested, approved = notify.pending_notices(desk.gov, 10)
    desk.admitted(made)
    assert notify.notice_told(desk.gov, requested)
    assert notify.notice_told(desk.gov, approved)
    assert not notify.anything_to_tell(desk.gov)


def test_an_alert_is_raised_and_told_once(desk: Desk) -> None:
    assert notify.alert(desk.gov, "drill restore, May", "drill.failed", {"took_s": 31.5})
    pass_s(desk, 10)
    assert not notify.alert(desk.gov, "drill restore, May", "drill.failed", {"took_s": 99})
    details = {"took_s": 31.5, "runbook": "docs/operations.md#alert-drill-failed"}
    assert alerts_of(desk) == [{"alert": "drill restore, May", "kind": "drill.failed", "details": details}]
    (notice,) = told(desk)
    assert notice.kind == "alert.raised"
    assert all(character.isalnum() or character == "-" for character in notice.id)
    assert notice.payload == {"alert_id": "drill restore, May", "alert_kind": "drill.failed", "details": details}
    assert not notify.notice_told(desk.gov, notice)
    audit.seal(desk.gov)
    assert audit.verify(desk.gov).problems == ()


def test_what_is_a_day_old_is_not_told(desk: Desk) -> None:
    decided, pending = desk.submit(risk=Risk.HIGH), desk.submit(risk=Risk.HIGH)
    decide.approve(desk.gov, decided.action_id, by=ANN, reason="fine")
    decide.extend(desk.gov, pending.action_id, by=ANN, seconds=7 * 24 * 3600, reason="on holiday")
    notify.alert(desk.gov, "old", "stale", {})
    assert notify.pass_over_old(desk.gov, 100) == 0
    pass_s(desk, 24 * 3600 + 1)
    desk.submit(risk=Risk.HIGH)
    decide.extend(desk.gov, pending.action_id, by=BOB, seconds=60, reason="a little more")
    assert notify.pass_over_old(desk.gov, 100) == 2
    left = notify.pending_notices(desk.gov, 100)
    assert [(notice.kind, notify.is_old(desk.gov, notice)) for notice in left] == [
        ("approval.requested", True),
        ("approval.extended", True),
        ("approval.extended", False),
        ("approval.requested", False),
    ]
    told(desk)


def test_one_sender_has_the_turn_and_a_rest_is_kept(desk: Desk) -> None:
    turn = notify.take_turn(desk.gov, 40)
    assert turn is not None
    assert notify.take_turn(desk.gov, 40) is None
    notify.end_turn(desk.gov, turn, rest_s=10)
    assert notify.take_turn(desk.gov, 40) is None
    pass_s(desk, 10)
    lost = notify.take_turn(desk.gov, 40)
    assert lost is not None
    # Its process died; who was late to end it ends nobody else's.
    pass_s(desk, 40)
    next_turn = notify.take_turn(desk.gov, 40)
    assert next_turn is not None
    notify.end_turn(desk.gov, lost, rest_s=0)
    assert notify.take_turn(desk.gov, 40) is None
    notify.end_turn(desk.gov, next_turn, rest_s=0)
    assert notify.take_turn(desk.gov, 40) is not None
