"""Decisions on tickets and on actions in doubt: made once, bound to the arguments, safe to repeat."""

import pytest

from governance.core.policy import Risk
from governance.errors import CommandConflict, InvalidOption, NotFound, StateConflict
from governance.operations import audit, decide
from governance.operations.answers import Admitted, Denied, Dropped, Ended, Parked
from governance.operations.commanded import Decided
from governance.operations.escalate import escalate_overdue
from governance.operations.finish import AskedToRetry
from governance.operations.recover import child_gone
from governance.operations.resolve import resolve, revoked
from tests.support.governed import ANN, BOB, LEASE, POLICY, Desk, ManualClock, make_governance, submission


def approve(desk: Desk, ref: str, command_id: str | None = None, reason: str | None = "fine") -> Decided:
    return decide.approve(desk.gov, ref, by=ANN, reason=reason, command_id=command_id)


def ticket_states(desk: Desk) -> list[str]:
    return [str(row[0]) for row in desk.gov.store.read("SELECT state FROM tickets ORDER BY requested_us, id", {})]


def test_an_approved_action_runs_and_its_ticket_is_consumed(desk: Desk) -> None:
    made = desk.submit(risk=Risk.HIGH)
    assert approve(desk, made.action_id).state == "queued"
    assert ticket_states(desk) == ["approved"]
    desk.finish(desk.admitted(made))
    assert ticket_states(desk) == ["consumed"]
    row = desk.gov.store.read("SELECT decided_by, decision_reason FROM tickets", {})[0]
    assert tuple(row) == ("principal:ann", "fine")
    assert audit.verify(desk.gov).problems == ()


def test_a_retry_of_an_approved_action_needs_no_second_person(desk: Desk) -> None:
    made = desk.submit(risk=Risk.HIGH)
    approve(desk, made.action_id)
    desk.finish(desk.admitted(made), AskedToRetry("flaky", desk.gov.clock.now_us()))
    assert isinstance(desk.arrive(made), Admitted)


def test_a_retry_with_other_arguments_needs_a_new_approval(desk: Desk) -> None:
    made = desk.submit(risk=Risk.HIGH, digest="refund 5")
    approve(desk, made.action_id)
    change = AskedToRetry("changed", desk.gov.clock.now_us(), message='{"new": 1}', digest="refund 5000")
    desk.finish(desk.admitted(made), change)
    assert isinstance(desk.arrive(made, digest="refund 5000"), Parked)
    assert sorted(ticket_states(desk)) == ["consumed", "pending"]
    assert audit.verify(desk.gov).problems == ()


def test_a_denied_ticket_denies_its_action_with_the_persons_reason(desk: Desk) -> None:
    made = desk.submit(risk=Risk.HIGH)
    decide.deny(desk.gov, made.action_id, by=ANN, reason="customer is a fraud", command_id=None)
    told = desk.arrive(made)
    assert isinstance(told, Denied)
    assert (told.rule, told.reason) == ("ask", "customer is a fraud")
    assert isinstance(desk.arrive(made), Dropped)


def test_a_decision_is_made_once(desk: Desk) -> None:
    made = desk.submit(risk=Risk.HIGH)
    approve(desk, made.action_id)
    with pytest.raises(StateConflict, match="is approved, so it cannot be denied"):
        decide.deny(desk.gov, made.action_id, by=BOB, reason="no", command_id=None)


def test_a_repeated_decision_gets_the_first_answer(desk: Desk) -> None:
    made = desk.submit(risk=Risk.HIGH)
    first = approve(desk, made.action_id, "cmd-1")
    again = approve(desk, made.action_id, "cmd-1")
    assert (again.action_id, again.state, again.repeated) == (first.action_id, first.state, True)
    with pytest.raises(CommandConflict, match="cmd-1"):
        decide.deny(desk.gov, made.action_id, by=ANN, reason="no", command_id="cmd-1")


def test_nobody_answered_means_denied(desk: Desk) -> None:
    made = desk.submit(risk=Risk.HIGH)
    clock = desk.gov.clock
    assert isinstance(clock, ManualClock)
    clock.pass_s(15 * 60 - 1)
    assert escalate_overdue(desk.gov, "escalation").denied == []
    clock.pass_s(1)
    with pytest.raises(StateConflict, match="overdue"):
        approve(desk, made.action_id)
    assert escalate_overdue(desk.gov, "escalation").denied == [made.action_id]
    assert escalate_overdue(desk.gov, "escalation").denied == []
    told = desk.arrive(made)
    assert isinstance(told, Denied)
    assert told.reason == "nobody answered in time, so it is denied"
    assert ticket_states(desk) == ["expired"]
    assert audit.verify(desk.gov).problems == ()


def test_every_overdue_ticket_expires_however_many_there_are(desk: Desk) -> None:
    for _ in range(450):
        desk.submit(risk=Risk.HIGH)
    clock = desk.gov.clock
    assert isinstance(clock, ManualClock)
    clock.pass_s(16 * 60)
    assert len(escalate_overdue(desk.gov, "escalation").denied) == 450
    assert desk.gov.store.read("SELECT count(*) FROM actions WHERE state = 'denied'", {})[0][0] == 450


def test_an_approval_waives_the_click_and_not_the_limits(desk: Desk) -> None:
    made = desk.submit(risk=Risk.HIGH, stream="small", cost_micros=200_000)
    approve(desk, made.action_id)
    refused = desk.arrive(made)
    assert isinstance(refused, Denied)
    assert refused.rule == "budget:cost_micros"


def test_an_answer_belongs_to_who_gave_it_and_a_refusal_has_a_reason(desk: Desk) -> None:
    made = desk.submit(risk=Risk.HIGH)
    with pytest.raises(InvalidOption, match="a sentence for whoever asked"):
        decide.deny(desk.gov, made.action_id, by=ANN, reason="  ", command_id=None)
    approve(desk, made.action_id, "cmd-2")
    with pytest.raises(CommandConflict):
        decide.approve(desk.gov, made.action_id, by=BOB, reason="fine", command_id="cmd-2")


@pytest.mark.parametrize("risk", [Risk.LOW, Risk.MEDIUM, Risk.HIGH, Risk.CRITICAL])
def test_an_approval_of_high_risk_says_why(database_url: str, risk: Risk) -> None:
    desk = Desk(make_governance(database_url, policy=ALWAYS))
    made = desk.submit(risk=risk)
    if risk in (Risk.HIGH, Risk.CRITICAL):
        for reason in (None, " "):
            with pytest.raises(InvalidOption, match=f"a decision on {risk} risk says why"):
                approve(desk, made.action_id, reason=reason)
        assert desk.state(made) == "parked"
    assert approve(desk, made.action_id, reason=None if risk in (Risk.LOW, Risk.MEDIUM) else "fine").state == "queued"
    desk.gov.store.close()


def test_an_unknown_ticket_is_named(desk: Desk) -> None:
    with pytest.raises(NotFound, match="no ticket 'nope'"):
        approve(desk, "nope")


def test_an_approval_under_one_rule_does_not_satisfy_another(database_url: str) -> None:
    first = Desk(make_governance(database_url))
    made = first.submit(risk=Risk.HIGH)
    approve(first, made.action_id)
    clock = first.gov.clock
    assert isinstance(clock, ManualClock)
    clock.pass_s(3600)
    stricter = Desk(make_governance(database_url, policy=POLICY.replace("id: ask", "id: cfo-signs"), clock=clock))
    parked = stricter.arrive(made)
    assert isinstance(parked, Parked)
    assert parked.rule == "cfo-signs"
    approve(stricter, made.action_id)
    assert isinstance(stricter.arrive(made), Admitted)
    assert audit.verify(stricter.gov).problems == ()
    first.gov.store.close()
    stricter.gov.store.close()


def test_a_revoked_message_denies_what_has_not_started(desk: Desk) -> None:
    queued, asked, runs = desk.submit(), desk.submit(risk=Risk.HIGH), desk.submit()
    desk.admitted(runs)
    given_up = [revoked(desk.gov, made.action_id, "worker:w") for made in (queued, asked, runs)]
    assert given_up == [True, True, False]
    assert [desk.state(made) for made in (queued, asked, runs)] == ["denied", "denied", "running"]
    assert ticket_states(desk) == ["denied"]
    assert isinstance(desk.arrive(queued), Dropped)
    assert audit.verify(desk.gov).problems == ()


def in_doubt(desk: Desk) -> str:
    made = desk.submit(idempotent=False, cost_micros=500)
    desk.admitted(made)
    assert child_gone(desk.gov, LEASE.worker_id, LEASE.child, "killed") == [(made.action_id, "in_doubt")]
    assert isinstance(desk.arrive(made), Dropped)
    return made.action_id


@pytest.mark.parametrize(
    ("outcome", "state", "told"),
    [("succeeded", "succeeded", Ended), ("failed", "failed", Ended), ("retry", "queued", Admitted)],
)
def test_a_person_resolves_what_is_in_doubt(desk: Desk, outcome: str, state: str, told: type) -> None:
    action_id = in_doubt(desk)
    assert desk.account("cost_micros") == {"limit": 1_000_000, "posted": 500, "held": 0}
    decided = resolve(desk.gov, action_id, outcome=outcome, by=ANN, reason="I looked", command_id=None)
    assert decided.state == state
    assert isinstance(desk.arrive(submission(action_id=action_id)), told)
    with pytest.raises(StateConflict, match="only an action in doubt"):
        resolve(desk.gov, action_id, outcome=outcome, by=ANN, reason="I looked", command_id=None)
    assert audit.verify(desk.gov).problems == ()


def test_a_resolution_is_one_of_three(desk: Desk) -> None:
    with pytest.raises(InvalidOption, match="succeeded, failed or retry"):
        resolve(desk.gov, in_doubt(desk), outcome="maybe", by=ANN, reason="r", command_id=None)


ALWAYS = """
version: 1
streams: {default: {window: 1h, limits: {}}}
rules:
  - {id: ask, match: {}, effect: approval, reason: "a person decides", approval: {timeout: 15m}}
"""
TWO = """
version: 1
streams: {default: {window: 1h, limits: {}}}
rules:
  - {id: ask, match: {risk: high}, effect: approval, reason: "two decide", approval: {timeout: 15m, approvals: 2}}
"""


def test_nobody_approves_arguments_they_have_not_seen(database_url: str) -> None:
    desk = Desk(make_governance(database_url, policy=TWO))
    made = desk.submit(risk=Risk.HIGH, digest="d" * 64)
    edited = decide.EditedArguments(made.message, "e" * 64, None)
    first = decide.approve(desk.gov, made.action_id, by=ANN, reason="with another amount", edit=edited)
    assert first.state == "parked"
    with pytest.raises(InvalidOption, match="the arguments were edited"):
        decide.approve(desk.gov, made.action_id, by=BOB, reason="fine")
    with pytest.raises(StateConflict, match="about other arguments"):
        decide.approve(desk.gov, made.action_id, by=BOB, reason="fine", seen="d" * 12)
    another = decide.EditedArguments(made.message, "f" * 64, None)
    with pytest.raises(StateConflict, match="about other arguments"):
        decide.approve(desk.gov, made.action_id, by=BOB, reason="less", seen="d" * 64, edit=another)
    with pytest.raises(InvalidOption, match="at least 8 characters"):
        decide.approve(desk.gov, made.action_id, by=BOB, reason="fine", seen="e")
    assert decide.approve(desk.gov, made.action_id, by=BOB, reason="fine", seen="e" * 12).state == "queued"
    desk.gov.store.close()
