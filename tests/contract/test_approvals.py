"""Requests along their chains: who may decide and until when, what an approval is bound to, who wins a race."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from governance.core.actions import Submission
from governance.core.instants import SECOND_US
from governance.core.principals import Principal
from governance.errors import CommandConflict, InvalidOption, NotAllowed, StateConflict
from governance.operations import audit, decide, reports
from governance.operations.answers import Admitted, Denied, Dropped, Parked
from governance.operations.decide import EditedArguments
from governance.operations.escalate import Escalated, escalate_overdue
from tests.support import books
from tests.support.governed import ANN, BOB, POLICY, Desk, ManualClock, make_governance

CHAIN = "{chain: [{first: team-lead 15m}, {then: on-call 30m}, {then: cfo 60m}, {then: deny}]%s}"
RULES = f"""rules:
  - {{id: refund, match: {{action: case.refund}}, effect: approval, approval: {CHAIN % ""}}}
  - {{id: both, match: {{action: case.close}}, effect: approval, approval: {CHAIN % ", approvals: 2"}}}
  - {{id: three, match: {{action: case.open}}, effect: approval, approval: {{timeout: 15m, approvals: 3}}}}
  - {{id: five, match: {{action: case.move}}, effect: approval, approval: {{timeout: 15m, approvals: 5}}}}
  - {{id: own, match: {{action: case.note}}, effect: approval, approval: {{timeout: 15m, requester_may_approve: true}}}}
"""
CHAINS = POLICY.replace("rules:\n", RULES)
LEE = Principal("lee", frozenset({"approver:team-lead"}))
OONA = Principal("oona", frozenset({"approver:on-call"}))
CYD = Principal("cyd", frozenset({"approver:cfo"}))
MINUTE_US = 60 * SECOND_US


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    gov = make_governance(database_url, policy=CHAINS)
    yield Desk(gov)
    gov.store.close()


def clock(desk: Desk) -> ManualClock:
    assert isinstance(desk.gov.clock, ManualClock)
    return desk.gov.clock


def refund(desk: Desk, name: str = "case.refund", **changes: Any) -> Submission:
    return desk.submit(**{"name": name, "agent_id": "desk-1", "user": "u1", **changes})


def sweep(desk: Desk) -> Escalated:
    return escalate_overdue(desk.gov, "escalation")


def approve(desk: Desk, made: Submission, by: Principal = LEE, **options: Any) -> str:
    return decide.approve(desk.gov, made.action_id, by=by, reason="fine", **options).state


def ticket(desk: Desk, made: Submission) -> reports.TicketLine:
    return reports.find_ticket(desk.gov, made.action_id)


def story(desk: Desk, made: Submission) -> list[tuple[str, int | None, int | None]]:
    """What the trail says of a request: kind, level and the end of that level."""
    events = desk.gov.store.read(
        "SELECT kind, payload FROM events WHERE action_id = :id ORDER BY id", {"id": made.action_id}
    )
    said = [(kind, json.loads(payload)) for kind, payload in events]
    return [(kind, payload.get("level"), payload.get("due_us")) for kind, payload in said]


def in_order(desk: Desk) -> None:
    books.assert_agree(desk.gov)
    assert audit.verify(desk.gov).problems == ()


def test_a_request_goes_up_its_chain_and_is_denied_at_its_end(desk: Desk) -> None:
    made, start_us = refund(desk), clock(desk).at_us
    ends = [start_us + minutes * MINUTE_US for minutes in (15, 45, 105)]
    for level, end_us in enumerate(ends[:-1]):
        assert (ticket(desk, made).level, ticket(desk, made).due_us) == (level, end_us)
        clock(desk).at_us = end_us - 1
        assert sweep(desk) == Escalated()
        clock(desk).at_us = end_us
        assert sweep(desk) == Escalated(moved_up=1)
        assert sweep(desk) == Escalated()
    clock(desk).at_us = ends[-1]
    assert sweep(desk) == Escalated(denied=[made.action_id])
    assert sweep(desk) == Escalated()
    told = desk.arrive(made)
    assert isinstance(told, Denied)
    assert (told.rule, told.reason) == ("refund", "nobody answered in time, so it is denied")
    steps = ["action.submitted", "ticket.escalated", "ticket.escalated", "action.denied"]
    assert [kind for kind, _, _ in story(desk, made)] == steps
    in_order(desk)


@pytest.mark.parametrize("minutes", [(15, 45, 105), (44, 45, 105), (50, 105), (105,), (10_000,)])
def test_a_late_sweep_takes_the_steps_of_one_in_time(desk: Desk, minutes: tuple[int, ...]) -> None:
    made, start_us = refund(desk), clock(desk).at_us
    for at in minutes:
        clock(desk).at_us = start_us + at * MINUTE_US
        sweep(desk)
    assert story(desk, made)[1:-1] == [
        ("ticket.escalated", 1, start_us + 45 * MINUTE_US),
        ("ticket.escalated", 2, start_us + 105 * MINUTE_US),
    ]
    row = ticket(desk, made)
    assert (row.state, row.level, row.due_us, row.expires_us) == (
        "expired",
        2,
        row.expires_us,
        start_us + 105 * MINUTE_US,
    )
    in_order(desk)


def test_an_extension_gives_the_level_more_time_and_the_later_ones_their_own(desk: Desk) -> None:
    made, start_us = refund(desk), clock(desk).at_us
    decide.extend(desk.gov, made.action_id, by=LEE, seconds=600, reason="in a meeting")
    clock(desk).at_us = start_us + 25 * MINUTE_US - 1
    assert sweep(desk) == Escalated()
    clock(desk).at_us = start_us + 200 * MINUTE_US
    assert sweep(desk) == Escalated(moved_up=2, denied=[made.action_id])
    assert [due for _, _, due in story(desk, made)[2:4]] == [start_us + 55 * MINUTE_US, start_us + 115 * MINUTE_US]
    in_order(desk)


def test_who_may_approve_grows_with_the_level_and_never_shrinks(desk: Desk) -> None:
    first, second, third = refund(desk), refund(desk), refund(desk)
    with pytest.raises(NotAllowed, match="approver:team-lead"):
        approve(desk, first, OONA)
    clock(desk).pass_s(15 * 60)
    sweep(desk)
    with pytest.raises(NotAllowed, match="approver:team-lead or approver:on-call"):
        approve(desk, first, CYD)
    assert approve(desk, first, OONA) == "queued"
    clock(desk).pass_s(30 * 60)
    sweep(desk)
    assert (approve(desk, second, LEE), approve(desk, third, CYD)) == ("queued", "queued")
    in_order(desk)


def test_nobody_approves_what_they_asked_for_unless_the_rule_says_so(desk: Desk) -> None:
    for name in ("u1", "desk-1", "U1", "Desk-1"):
        for roles in ({"approver"}, {"admin"}):
            made = refund(desk)
            with pytest.raises(NotAllowed, match="asked for themselves"):
                approve(desk, made, Principal(name, frozenset(roles)))
            assert ticket(desk, made).votes == ()
    own = refund(desk, "case.note")
    assert approve(desk, own, Principal("u1", frozenset({"approver"}))) == "queued"
    decide.deny(desk.gov, refund(desk).action_id, by=Principal("u1", frozenset({"approver"})), reason="a mistake")
    in_order(desk)


def test_two_different_people_have_to_approve(desk: Desk) -> None:
    made = refund(desk, "case.close")
    assert approve(desk, made) == "parked"
    assert isinstance(desk.arrive(made), Parked)
    with pytest.raises(StateConflict, match="approved by lee already"):
        approve(desk, made)
    clock(desk).pass_s(15 * 60)
    sweep(desk)
    assert [vote.by for vote in ticket(desk, made).votes] == ["lee"], "a vote outlives its level"
    assert approve(desk, made, OONA) == "queued"
    assert [vote.by for vote in ticket(desk, made).votes] == ["lee", "oona"]
    refused = refund(desk, "case.close")
    approve(desk, refused, ANN)
    decide.deny(desk.gov, refused.action_id, by=BOB, reason="one refusal is enough")
    assert isinstance(desk.arrive(refused), Denied)
    in_order(desk)


def test_other_arguments_are_another_request_and_reset_the_votes(desk: Desk) -> None:
    made = refund(desk, "case.close", digest="500", resource="case:c1")
    approve(desk, made, LEE)
    edit = EditedArguments('{"amount": 50}', "digest-of-50", "case:c2")
    assert approve(desk, made, ANN, edit=edit) == "parked"
    asked = ticket(desk, made)
    assert (asked.digest, asked.resource, [vote.by for vote in asked.votes]) == ("digest-of-50", "case:c2", ["ann"])
    with pytest.raises(InvalidOption, match="digest"):
        approve(desk, made, LEE)
    assert approve(desk, made, LEE, seen="digest-of") == "queued", "the earlier vote was for something else"
    assert isinstance(desk.arrive(made, digest="500"), Dropped)
    assert isinstance(desk.arrive(made, digest="digest-of-50"), Admitted)
    (voted,) = (
        json.loads(row[0])
        for row in desk.gov.store.read("SELECT payload FROM events WHERE payload LIKE '%digest_before%'", {})
    )
    assert (voted["digest_before"], voted["digest"]) == ("500", "digest-of-50")
    in_order(desk)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("first: team-lead 15m", "first: team-lead 20m"),
        ("then: cfo 60m", "then: ceo 60m"),
        ("id: refund", "id: money"),
        ("too dangerous", "much too dangerous"),
    ],
)
def test_an_approval_is_bound_to_rule_chain_and_policy_version(database_url: str, before: str, after: str) -> None:
    first = Desk(make_governance(database_url, policy=CHAINS))
    made, same = refund(first), refund(first)
    approve(first, made)
    approve(first, same)
    assert isinstance(first.arrive(same), Admitted)
    clock(first).pass_s(3600)
    changed = Desk(make_governance(database_url, policy=CHAINS.replace(before, after), clock=clock(first)))
    parked = changed.arrive(made)
    assert isinstance(parked, Parked)
    states = changed.gov.store.read(
        "SELECT state FROM tickets WHERE action_id = :id ORDER BY requested_us", {"id": made.action_id}
    )
    assert [row[0] for row in states] == ["approved", "pending"], "the old approval stays what it was"
    assert isinstance(changed.arrive(made), Parked)
    approve(changed, made)
    assert isinstance(changed.arrive(made), Admitted)
    in_order(changed)
    for each in (first, changed):
        each.gov.store.close()


def test_several_are_approved_or_denied_together_or_not_at_all(desk: Desk) -> None:
    made = [refund(desk) for _ in range(3)]
    ids = [one.action_id for one in made]
    decide.deny(desk.gov, ids[1], by=LEE, reason="no")
    for decided in (decide.approve_all, decide.deny_all):
        with pytest.raises(StateConflict, match="denied"):
            decided(desk.gov, ids, by=LEE, reason="all of them", command_id="batch")
    assert [desk.state(one) for one in made] == ["parked", "denied", "parked"]
    with pytest.raises(NotAllowed):
        decide.approve_all(desk.gov, [ids[0], refund(desk, user="lee").action_id], by=LEE, reason="fine")
    rest = [ids[0], ids[2]]
    first = decide.approve_all(desk.gov, rest, by=LEE, reason="fine", command_id="batch")
    assert [one.repeated for one in first] == [False, False], "what was refused did not use up the command"
    again = decide.approve_all(desk.gov, rest, by=LEE, reason="fine", command_id="batch")
    assert [(one.action_id, one.state, one.repeated) for one in again] == [(id_, "queued", True) for id_ in rest]
    with pytest.raises(CommandConflict):
        decide.approve_all(desk.gov, rest[:1], by=LEE, reason="fine", command_id="batch")
    in_order(desk)


def test_a_late_decision_is_refused_with_what_happened_instead(desk: Desk) -> None:
    made, late = refund(desk), "2027-01-15T09:45:00Z"
    clock(desk).pass_s(105 * 60)
    for decided in (approve, lambda *_: decide.deny(desk.gov, made.action_id, by=CYD, reason="no")):
        with pytest.raises(StateConflict, match=r"is overdue, so it cannot be .*: nobody answered in time"):
            decided(desk, made)
    sweep(desk)
    with pytest.raises(
        StateConflict, match=rf"is expired, .* nobody answered until {late}, .* the caller can ask again"
    ):
        approve(desk, made, CYD)
    with pytest.raises(StateConflict, match="expired"):
        decide.extend(desk.gov, made.action_id, by=CYD, seconds=60, reason="too late")
    in_order(desk)


def test_a_repeated_vote_or_extension_counts_once(desk: Desk) -> None:
    made = refund(desk, "case.close")
    for repeated in (False, True):
        vote = decide.approve(desk.gov, made.action_id, by=LEE, reason="fine", command_id="v")
        more = decide.extend(desk.gov, made.action_id, by=LEE, seconds=60, reason="busy", command_id="e")
        assert (vote.state, vote.repeated, more.repeated) == ("parked", repeated, repeated)
    assert len(ticket(desk, made).votes) == 1
    assert ticket(desk, made).due_us == clock(desk).at_us + 16 * MINUTE_US
    in_order(desk)


def test_one_request_may_be_named_twice_in_a_batch(desk: Desk) -> None:
    made, other = refund(desk), refund(desk)
    refs = [ticket(desk, made).id, made.action_id, other.action_id]
    decided = decide.approve_all(desk.gov, refs, by=LEE, reason="fine")
    assert [one.action_id for one in decided] == [made.action_id, other.action_id]
    third = refund(desk)
    denied = decide.deny_all(desk.gov, [third.action_id, ticket(desk, third).id], by=LEE, reason="no")
    assert [one.action_id for one in denied] == [third.action_id]


def test_nobody_gives_their_own_request_more_time(desk: Desk) -> None:
    asked = refund(desk, user="lee")
    with pytest.raises(NotAllowed, match=r"extend ticket .* which they asked for themselves"):
        decide.extend(desk.gov, asked.action_id, by=LEE, seconds=60, reason="I need it")
    decide.deny(desk.gov, asked.action_id, by=LEE, reason="I changed my mind")
    own = refund(desk, "case.note", user="bob")
    decide.extend(desk.gov, own.action_id, by=BOB, seconds=60, reason="the rule lets them")
