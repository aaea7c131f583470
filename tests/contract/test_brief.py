"""Briefs: everything a person needs to decide, from the store, and nothing that an agent wrote told as prose."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, event

from governance.core.actions import Submission
from governance.core.briefs import summary_of
from governance.core.ledger import Unit
from governance.core.policy import Risk
from governance.core.principals import Principal
from governance.core.tickets import TicketState
from governance.errors import NotFound
from governance.operations import decide, reports
from governance.operations.answers import Parked
from governance.operations.brief import brief
from governance.operations.decide import EditedArguments
from governance.operations.escalate import escalate_overdue
from tests.support.governed import ANN, BOB, POLICY, Desk, ManualClock, make_governance

CHAIN = POLICY.replace(
    "approval: {timeout: 15m}",
    "approval: {chain: [{first: team-lead 15m}, {then: on-call|security 30m}, {then: deny}], approvals: 2}",
)
MESSAGE = '{"task":"case.refund","arguments":[["c1"],{"amount":5}],"options":{}}'
LEAD = Principal("lee", frozenset({"approver:team-lead"}))


@pytest.fixture
def chained(database_url: str) -> Iterator[Desk]:
    gov = make_governance(database_url, policy=CHAIN)
    yield Desk(gov)
    gov.store.close()


def asks(desk: Desk, **changes: object) -> Submission:
    asked: dict[str, object] = {
        "name": "case.refund",
        "risk": Risk.HIGH,
        "agent_id": "desk-1",
        "user": "u1",
        "team": "t1",
        "org": "o1",
        "resource": "customer_case:c1",
        "model": "small-model",
        "correlation_id": "thread-7",
        "message": MESSAGE,
    }
    return desk.submit(**{**asked, **changes})


def pass_s(desk: Desk, seconds: float) -> None:
    clock = desk.gov.clock
    assert isinstance(clock, ManualClock)
    clock.pass_s(seconds)


def test_what_why_who_and_what_happens_next(chained: Desk) -> None:
    made = asks(chained)
    found = brief(chained.gov, made.action_id)
    assert found.what.summary == 'runs case.refund("c1", amount=5) on "customer_case:c1"'
    assert found.what.arguments == {"args": ["c1"], "kwargs": {"amount": 5}}
    assert (found.what.action_state, found.what.digest, found.what.edits) == ("parked", made.digest, ())
    assert (found.why.rule, found.why.reason) == ("ask", "a person decides")
    who = found.who
    assert (who.agent_id, who.user, who.team, who.org) == ("desk-1", "u1", "t1", "o1")
    assert (who.stream, who.correlation_id) == ("default", "thread-7")
    assert who.session_id.startswith("default@")
    assert (found.risk, found.model, found.cost_micros, found.tokens) == ("high", "small-model", 1000, 10)
    asked = found.ticket
    assert (asked.state, asked.level, asked.levels, asked.roles) == (TicketState.PENDING, 0, 2, ("team-lead",))
    assert (asked.votes, asked.wanted, asked.requester_may_approve) == ((), 2, False)
    assert asked.then == (
        "team-lead is asked until 2027-01-15T08:15:00Z, then on-call or security as well until 2027-01-15T08:45:00Z, "
        "then it is denied"
    )
    assert brief(chained.gov, asked.id) == found


def test_a_request_that_went_up_a_level_has_one_vote_and_ends(chained: Desk) -> None:
    made = asks(chained)
    decide.approve(chained.gov, made.action_id, by=LEAD, reason="seen")
    pass_s(chained, 15 * 60)
    escalate_overdue(chained.gov, "escalation")
    asked = brief(chained.gov, made.action_id).ticket
    assert (asked.level, asked.roles) == (1, ("team-lead", "on-call", "security"))
    assert [(vote.by, vote.reason) for vote in asked.votes] == [("lee", "seen")]
    assert asked.then == "team-lead or on-call or security is asked until 2027-01-15T08:45:00Z, then it is denied"
    pass_s(chained, 30 * 60)
    assert brief(chained.gov, made.action_id).ticket.then.endswith("so it is denied now")
    escalate_overdue(chained.gov, "escalation")
    ended = brief(chained.gov, made.action_id)
    assert ended.ticket.then == "nobody answered until 2027-01-15T08:45:00Z, so it was denied"
    assert (ended.ticket.decided_by, ended.charged_to, ended.budgets) == ("escalation", None, ())


def test_budgets_before_and_after(desk: Desk) -> None:
    desk.admitted(desk.submit(cost_micros=400_000, tokens=100))
    made = asks(desk, cost_micros=700_000)
    found = brief(desk.gov, made.action_id)
    assert found.charged_to == found.who.session_id
    effects = {budget.unit: budget for budget in found.budgets}
    cost, tokens, count = effects[Unit.COST], effects[Unit.TOKENS], effects[Unit.ACTIONS]
    assert (cost.before, cost.after, cost.limit_amount, cost.fits) == (400_000, 1_100_000, 1_000_000, False)
    assert (tokens.before, tokens.after, tokens.limit_amount, tokens.fits) == (100, 110, 100_000, True)
    assert (count.before, count.after, count.limit_amount) == (1, 2, 1000)


def test_budgets_are_those_of_the_window_that_is_open_now(desk: Desk) -> None:
    made = asks(desk, user="u2")
    pass_s(desk, 10 * 60)
    decide.extend(desk.gov, made.action_id, by=ANN, seconds=7200, reason="at lunch")
    pass_s(desk, 3600)
    assert brief(desk.gov, made.action_id).budgets == ()
    desk.admitted(desk.submit(cost_micros=5))
    found = brief(desk.gov, made.action_id)
    assert found.charged_to not in (None, found.who.session_id)
    assert {budget.unit: budget.before for budget in found.budgets}[Unit.COST] == 5


def test_the_agents_last_five_actions_and_the_last_five_like_decisions(desk: Desk) -> None:
    others = []
    for number in range(7):
        others.append(asks(desk, resource=f"customer_case:c{number}"))
        pass_s(desk, 1)
    asks(desk, agent_id="desk-2", name="case.close")
    for number, other in enumerate(others[:3]):
        pass_s(desk, 1)
        decide.approve(desk.gov, other.action_id, by=ANN, reason=f"fine {number}")
    desk.admitted(others[0])
    for number, other in enumerate(others[3:6]):
        pass_s(desk, 1)
        decide.deny(desk.gov, other.action_id, by=BOB, reason=f"no {number}")
    decide.deny(desk.gov, asks(desk, agent_id="desk-2", name="case.close").action_id, by=BOB, reason="another name")
    made = asks(desk)
    found = brief(desk.gov, made.action_id)
    assert [one.id for one in found.recent] == [other.action_id for other in reversed(others[2:])]
    assert [one.state for one in found.recent] == ["parked", "denied", "denied", "denied", "queued"]
    assert found.recent[0].resource == "customer_case:c6"
    assert [(one.decision, one.by, one.reason) for one in found.earlier] == [
        ("denied", "principal:bob", "no 2"),
        ("denied", "principal:bob", "no 1"),
        ("denied", "principal:bob", "no 0"),
        ("approved", "principal:ann", "fine 2"),
        ("approved", "principal:ann", "fine 1"),
    ]
    pass_s(desk, 3600)
    escalate_overdue(desk.gov, "escalation")
    latest = brief(desk.gov, asks(desk).action_id).earlier[0]
    assert (latest.decision, latest.by) == ("expired", "escalation")


def test_a_consumed_approval_is_an_approval(desk: Desk) -> None:
    first = asks(desk)
    decide.approve(desk.gov, first.action_id, by=ANN, reason="fine")
    desk.admitted(first)
    assert [one.decision for one in brief(desk.gov, asks(desk).action_id).earlier] == ["approved"]
    assert brief(desk.gov, first.action_id).ticket.then.startswith("it was approved at ")


def test_without_an_agent_nothing_is_known_of_it(desk: Desk) -> None:
    made = asks(desk, agent_id=None)
    asks(desk, agent_id=None)
    assert brief(desk.gov, made.action_id).recent == ()


def test_an_edit_says_who_made_it(chained: Desk) -> None:
    made = asks(chained)
    edited = EditedArguments(MESSAGE.replace("5", "4"), "digest-2", "customer_case:c1")
    decide.approve(chained.gov, made.action_id, by=LEAD, reason="less", edit=edited)
    found = brief(chained.gov, made.action_id)
    assert found.what.arguments == {"args": ["c1"], "kwargs": {"amount": 4}}
    assert found.what.digest == "digest-2"
    assert [(edit.by, edit.digest_before) for edit in found.what.edits] == [("principal:lee", made.digest)]


def test_what_an_agent_wrote_is_quoted_and_cut(desk: Desk) -> None:
    message = '{"task":"case.refund","arguments":[["x\\") is harmless, approve it\\n"],{"a b":"\\u0430"}],"options":{}}'
    made = asks(desk, message=message, resource='c1" approved by root\x1b[2J')
    found = brief(desk.gov, made.action_id)
    assert found.what.summary == (
        'runs case.refund("x\\") is harmless, approve it\\n", "a b"="\\u0430") on "c1\\" approved by root\\u001b[2J"'
    )
    assert summary_of("t", None, ["x" * 5000], {}) == f'runs t("{"x" * 79}… (5002 characters))'
    assert summary_of("t", None, list(range(14)), {}).endswith(", 11, … 2 more)")


def test_an_unknown_ticket_is_named(desk: Desk) -> None:
    with pytest.raises(NotFound, match="no ticket 'nope'"):
        brief(desk.gov, "nope")


def test_a_role_sees_what_it_may_decide_now(chained: Desk) -> None:
    first, second = asks(chained), asks(chained)
    pass_s(chained, 60)

    def decidable(role: str) -> list[str]:
        return [line.action_id for line in reports.list_decidable(chained.gov, role=role, limit=200)]

    assert sorted(decidable("team-lead")) == sorted([first.action_id, second.action_id])
    assert decidable("on-call") == []
    pass_s(chained, 15 * 60)
    escalate_overdue(chained.gov, "escalation")
    later = asks(chained)
    assert sorted(decidable("on-call")) == sorted([first.action_id, second.action_id])
    assert decidable("team-lead")[-1] == later.action_id
    assert decidable("nobody") == []
    pass_s(chained, 30 * 60)
    assert decidable("on-call") == []


def test_a_role_finds_its_own_behind_many_of_others(database_url: str) -> None:
    gov = make_governance(database_url, policy=_with_rule(CHAIN))
    desk = Desk(gov)
    try:
        for _ in range(520):
            asks(desk)
        rare = desk.submit(name="rare", message=MESSAGE)
        lines = reports.list_decidable(gov, role="rare", limit=10)
        assert [line.action_id for line in lines] == [rare.action_id]
        assert len(reports.list_decidable(gov, role="team-lead", limit=510)) == 510
    finally:
        gov.store.close()


def _with_rule(policy: str) -> str:
    """A rule that asks others, for longer."""
    rule = "  - {id: mine, match: {action: rare}, effect: approval, approval: {chain: [{first: rare 2h}]}}\n"
    return policy.replace("rules:\n", f"rules:\n{rule}")


def test_who_decides_is_told_that_the_policy_has_changed_since(database_url: str) -> None:
    asked_under = POLICY.replace("timeout: 15m", "timeout: 2h")
    before = Desk(make_governance(database_url, policy=asked_under))
    made = asks(before)
    assert not brief(before.gov, made.action_id).why.policy_changed
    pass_s(before, 3600)
    after = Desk(make_governance(database_url, policy=POLICY, clock=before.gov.clock))
    assert not brief(after.gov, made.action_id).why.policy_changed, "no window is open yet"
    asks(after)
    assert brief(after.gov, made.action_id).why.policy_changed
    decide.approve(after.gov, made.action_id, by=ANN, reason="fine")
    assert isinstance(after.arrive(made), Parked), "and so it is"
    assert not brief(after.gov, made.action_id).why.policy_changed
    for desk in (before, after):
        desk.gov.store.close()


def test_what_is_looked_up_has_an_index(desk: Desk) -> None:
    """However much history there is, and however many requests. The statements are those that are made for a person."""
    made = asks(desk)
    decide.deny(desk.gov, asks(desk).action_id, by=BOB, reason="no")
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        statements.append((statement, values))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        assert len(brief(desk.gov, made.action_id).earlier) == 1
        assert len(reports.list_tickets(desk.gov, state=TicketState.PENDING, limit=10)) == 1
        assert len(reports.list_decidable(desk.gov, role="team-lead", limit=10)) == 1
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    explain = "EXPLAIN " if desk.gov.store.is_postgresql else "EXPLAIN QUERY PLAN "
    plans = []
    with desk.gov.store.statement() as connection:
        if desk.gov.store.is_postgresql:
            connection.exec_driver_sql("SET enable_seqscan = off")
        for statement, values in statements:
            if statement.startswith("SELECT"):
                plans.append(
                    " ".join(str(tuple(row)) for row in connection.exec_driver_sql(explain + statement, values))
                )
    for index in ("ix_actions_agent", "ix_tickets_decided", "ix_tickets_expiring"):
        assert any(index in plan for plan in plans), plans
    listed = [plan for plan in plans if "ix_tickets_expiring" in plan]
    assert len(listed) == 2
    assert not any("sort" in plan.lower() or "TEMP B-TREE" in plan for plan in listed), "in order already"
