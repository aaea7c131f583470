"""What a message says of its action saves the read before the write, and decides nothing that the row does not say."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from acp_tasks.submission import said_by
from acp_tasks.terms import Terms
from governance.core.actions import Submission
from governance.core.ledger import Usage
from governance.core.policy import Risk
from governance.core.switches import Mode, Scope
from governance.operations import audit, decide, relay, switches
from governance.operations.admit import Arrival
from governance.operations.answers import Admitted, Cancelled, Denied, Dropped, Parked
from governance.operations.finish import AskedToRetry
from tests.contract.test_stripes import ask, locked, shares, take
from tests.support import books
from tests.support.governed import ANN, Desk, make_governance


@pytest.fixture
def warm(desk: Desk) -> Desk:
    """A process that has admitted before: it knows the session, its accounts and the board."""
    desk.finish(desk.admitted(desk.submit()))
    return desk


def arrived(desk: Desk, made: Submission, **said: Any) -> tuple[Any, int]:
    """What is answered to a message that says so, and in how many round trips."""
    before = desk.gov.store.round_trips
    told = desk.arrive(made, said=replace(made, message="", **said))
    return told, desk.gov.store.round_trips - before


def test_a_message_that_says_what_was_submitted_is_admitted_in_one_round_trip(warm: Desk) -> None:
    made = warm.submit(user="u1", org="o1", resource="case:1", cost_micros=700, tokens=7)
    run, trips = arrived(warm, made)
    assert isinstance(run, Admitted)
    # SQLite has no statement for all of it, and counts them.
    assert trips == 1 or not warm.gov.store.is_postgresql
    read = warm.arrive(warm.submit(user="u1", org="o1", resource="case:1", cost_micros=700, tokens=7), said=None)
    assert isinstance(read, Admitted)
    assert run.holds == read.holds
    assert run.ref.attempt == read.ref.attempt == 1
    same = ("command_id", "name", "idempotent", "risk", "user", "org", "resource", "cost_micros", "tokens", "stream")
    assert [getattr(run.action, name) for name in same] == [getattr(made, name) for name in same]
    warm.finish(run)
    warm.finish(read)
    books.assert_agree(warm.gov)
    assert audit.verify(warm.gov).problems == ()


LIES: list[dict[str, Any]] = [
    {"command_id": "another"},
    {"name": "case.other"},
    {"digest": "digest-2"},
    {"correlation_id": "another"},
    {"risk": Risk.LOW},
    {"idempotent": False},
    {"cost_micros": 1},
    {"tokens": 1},
    {"agent_id": None},
    {"user": "u2"},
    {"team": "t2"},
    {"org": None},
    {"resource": None},
    {"model": None},
]


@pytest.mark.parametrize("lie", LIES, ids=[next(iter(lie)) for lie in LIES])
def test_what_the_row_says_counts_whatever_the_message_says(warm: Desk, lie: dict[str, Any]) -> None:
    made = warm.submit(
        risk=Risk.MEDIUM,
        agent_id="a1",
        user="u1",
        team="t1",
        org="o1",
        resource="case:1",
        model="small-1",
        cost_micros=700,
        tokens=7,
    )
    run, _ = arrived(warm, made, **lie)
    assert isinstance(run, Admitted)
    (name,) = lie
    assert getattr(run.action, name) == getattr(made, name)
    assert {hold.unit: hold.amount for hold in run.holds} == {"cost_micros": 700, "actions": 1, "tokens": 7}


def test_a_lie_does_not_get_past_a_rule(warm: Desk) -> None:
    """The row is denied by its risk, its resource or its model, and the message claims harmless ones."""
    secret = warm.submit(resource="case:1")
    # As an approver's edit would put it.
    edited = "UPDATE actions SET resource = :resource WHERE id = :id RETURNING id"
    warm.gov.store.run(edited, {"id": secret.action_id, "resource": "file:secret"})
    told, _ = arrived(warm, secret)
    assert isinstance(told, Denied)
    assert told.rule == "no-secrets"
    large = warm.submit(model="large-1", user="u1")
    told, _ = arrived(warm, large, model=None)
    assert isinstance(told, Denied)
    assert told.rule.startswith("model")


def test_what_came_since_is_seen_by_the_next_message(warm: Desk) -> None:
    stopped, waiting = warm.submit(agent_id="a1"), warm.submit(risk=Risk.HIGH)
    switches.engage(warm.gov, Scope.AGENT, "a1", mode=Mode.KILL, reason="it lies", by=ANN)
    told, _ = arrived(warm, stopped)
    assert isinstance(told, Cancelled)
    told, _ = arrived(warm, waiting, risk=Risk.LOW)
    assert isinstance(told, Parked)
    decide.approve(warm.gov, waiting.action_id, by=ANN, reason="fine")
    told, _ = arrived(warm, waiting)
    assert isinstance(told, Admitted)
    assert warm.gov.store.read("SELECT state FROM tickets", {}) == [("consumed",)]
    told, _ = arrived(warm, waiting)
    assert isinstance(told, Dropped)


def test_the_next_attempt_is_not_the_first(warm: Desk) -> None:
    made = warm.submit()
    run, _ = arrived(warm, made)
    warm.finish(run, AskedToRetry("flaky", warm.gov.clock.now_us()))
    again, _ = arrived(warm, made)
    assert isinstance(again, Admitted)
    assert again.ref.attempt == 2
    outgoing = relay.message_of(warm.gov, made.action_id)
    assert outgoing is not None
    assert outgoing.message == made.message


def test_a_budget_without_room_is_not_tried_again_and_again(desk: Desk) -> None:
    """What a process saw of an account keeps it from a write that cannot fit; room that comes back is found."""
    desk.finish(desk.admitted(desk.submit(stream="small", cost_micros=1)))
    held = desk.admitted(desk.submit(stream="small", cost_micros=99_000))
    first, _ = arrived(desk, desk.submit(stream="small", cost_micros=2000))
    assert isinstance(first, Denied)
    assert first.rule == "budget:cost_micros"
    second, trips = arrived(desk, desk.submit(stream="small", cost_micros=2000))
    assert isinstance(second, Denied)
    # One that reads and one that writes.
    assert trips == 2 or not desk.gov.store.is_postgresql
    desk.finish(held, usage=None)
    desk.gov.store.run("UPDATE accounts SET posted = 0 WHERE unit = 'cost_micros' RETURNING id", {})
    third, _ = arrived(desk, desk.submit(stream="small", cost_micros=2000))
    assert isinstance(third, Admitted)


def test_an_action_of_the_session_before_is_carried_into_the_one_in_force(warm: Desk) -> None:
    made = warm.submit()
    clock: Any = warm.gov.clock
    clock.pass_s(3600)
    warm.finish(warm.admitted(warm.submit()))
    run, _ = arrived(warm, made)
    assert isinstance(run, Admitted)
    assert run.action.ref.session_id != run.ref.session_id
    warm.finish(run)
    books.assert_agree(warm.gov)
    assert audit.verify(warm.gov).problems == ()


def test_an_overdrawn_account_has_no_room_in_a_stripe_that_another_process_remembers(desk: Desk) -> None:
    if not desk.gov.store.is_postgresql:
        pytest.skip("SQLite keeps every account in one row")
    desk.finish(take(desk, 10), usage=Usage(10, 1))
    other = Desk(make_governance(desk.gov.store.url.render_as_string(hide_password=False), clock=desk.gov.clock))
    try:
        other.finish(take(other, 10), usage=Usage(10, 1))
        with locked(desk, but=3):
            large = take(desk, 3000)
        with locked(desk, but=7):
            wild = take(desk, 10)
        desk.finish(wild, usage=Usage(98_000, 1))
        desk.finish(large, usage=Usage(2000, 1))
        assert sum(used for _, used in shares(desk)) > 100_000
        assert any(used + 300 <= (share or 0) for share, used in shares(desk))
        assert isinstance(ask(other, 300), Denied)
        assert isinstance(ask(other, 0), Denied)
    finally:
        other.gov.store.close()


@pytest.mark.parametrize(
    "odd",
    [
        {"correlation_id": "a\0b"},
        {"correlation_id": "\ud800"},
        {"correlation_id": 5},
        {"command_id": None},
        {"cost_usd": "much"},
        {"tokens": -1},
        {"user": ["u1"]},
    ],
    ids=str,
)
def test_a_header_that_makes_no_sense_says_nothing(odd: dict[str, Any]) -> None:
    terms = Terms(Risk.LOW, 0, 0, idempotent=True, resource=None, stream="default", model=None)
    task: Any = SimpleNamespace(name="case.reply", terms=terms)
    arrival = Arrival("a1", "default", "digest-1", {}, redelivered=False)
    header = {"command_id": "c1", "correlation_id": "a1", "user": "u1"}
    assert said_by(task, header, arrival) is not None
    assert said_by(task, {**header, **odd}, arrival) is None


def test_what_would_run_is_what_was_submitted(warm: Desk) -> None:
    """Whatever is said: the arguments that arrived are not those of the row."""
    made = warm.submit()
    told = warm.arrive(made, digest="digest-2", said=replace(made, message=""))
    assert isinstance(told, Dropped)
