"""What a switch leaves to be cleared up: only while it is engaged, only what was in its scope, to the end."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import text

from governance.core.ledger import Usage
from governance.core.switches import EVERYTHING, Mode, Scope
from governance.errors import NotAllowed, StoreUnavailable
from governance.operations import audit, clearing, rotation, switches
from governance.operations.answers import Cancelled, Denied
from governance.operations.context import Governance
from tests.support import books
from tests.support.governed import ANN, BOB, POLICY, Desk, ManualClock, make_governance

STRICT = POLICY.replace(
    "streams:\n", 'streams:\n  strict: {window: 1h, limits: {cost_usd: "1.00"}, on_exhausted: stop}\n'
)


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    gov = make_governance(database_url, policy=STRICT)
    yield Desk(gov)
    gov.store.close()


def clock(desk: Desk) -> ManualClock:
    assert isinstance(desk.gov.clock, ManualClock)
    return desk.gov.clock


def kill(desk: Desk, scope: Scope = Scope.SYSTEM, scope_id: str = EVERYTHING) -> switches.Engaged:
    return switches.engage(desk.gov, scope, scope_id, mode=Mode.KILL, reason="too fast", by=ANN)


def on_another_machine(desk: Desk) -> Governance:
    """With a memory of its own of what is engaged."""
    return replace(desk.gov, boards=list(desk.gov.boards), sessions={}, policies={})


def test_what_is_submitted_after_the_release_is_not_cancelled_by_whoever_still_clears_up(desk: Desk) -> None:
    stop = kill(desk)
    before = desk.submit()
    clearing.cancel_waiting(desk.gov, stop.switch, "test")
    elsewhere = on_another_machine(desk)
    clearing.release(elsewhere, stop.switch.id, reason="it is safe again", by=ANN)
    later = [desk.submit() for _ in range(3)]
    assert clearing.cancel_waiting(desk.gov, stop.switch, "test") == []
    assert clearing.sweep(desk.gov, "switches") == (0, [])
    assert [desk.state(made) for made in (before, *later)] == ["cancelled", *["queued"] * 3]


def test_what_waits_in_the_scope_of_a_kill_does_not_run_when_it_is_released(desk: Desk) -> None:
    stop = kill(desk)
    during = desk.submit()
    assert clearing.release(desk.gov, stop.switch.id, reason="it is safe again", by=ANN) == []
    assert desk.state(during) == "cancelled"


def test_only_an_operator_stops(desk: Desk) -> None:
    with pytest.raises(NotAllowed, match="an operator"):
        switches.engage(desk.gov, Scope.SYSTEM, EVERYTHING, mode=Mode.KILL, reason="too fast", by=BOB)
    assert switches.board_now(desk.gov).engaged == ()


def test_a_release_in_the_middle_of_clearing_up_ends_it(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = kill(desk)
    waiting = desk.submit()
    elsewhere = on_another_machine(desk)
    look = switches.subject_of

    def released_meanwhile(action: object) -> object:
        if switches.board_now(elsewhere).engaged:
            monkeypatch.setattr(clearing, "subject_of", look)
            # As if what it cancels by itself had been submitted after that.
            monkeypatch.setattr(clearing, "cancel_waiting", lambda *_: [])
            clearing.release(elsewhere, stop.switch.id, reason="it is safe again", by=ANN)
            monkeypatch.undo()
        return look(action)  # type: ignore[arg-type]

    cancel_waiting = clearing.cancel_waiting
    monkeypatch.setattr(clearing, "subject_of", released_meanwhile)
    assert cancel_waiting(desk.gov, stop.switch, "test") == []
    assert desk.state(waiting) == "queued"


def test_another_switch_that_is_engaged_meanwhile_leaves_nothing_out(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = kill(desk)
    waiting = [desk.submit() for _ in range(3)]
    elsewhere = on_another_machine(desk)
    look = switches.subject_of

    def engaged_meanwhile(action: object) -> object:
        switches.engage(elsewhere, Scope.AGENT, "somebody", mode=Mode.KILL, reason="he, too", by=ANN)
        return look(action)  # type: ignore[arg-type]

    monkeypatch.setattr(clearing, "subject_of", engaged_meanwhile)
    done = clearing.cancel_waiting(desk.gov, stop.switch, "test")
    assert set(done) == {made.action_id for made in waiting}


def test_a_switch_on_a_session_is_released_when_the_session_has_closed(desk: Desk) -> None:
    run = desk.admitted(desk.submit(stream="strict", cost_micros=700_000))
    desk.finish(run, usage=Usage(700_000, 1))
    refused = desk.submit(stream="strict", cost_micros=700_000)
    assert isinstance(desk.arrive(refused), Cancelled)
    (switch,) = switches.board_now(desk.gov).engaged
    clearing.sweep(desk.gov, "switches")
    assert switches.board_now(desk.gov).engaged == (switch,), "its session is open"
    clock(desk).pass_s(3600)
    for _ in range(3):
        clock(desk).pass_s(120)
        rotation.rotate(desk.gov, "rotation")
    assert rotation.find_session(desk.gov, switch.scope_id).state == "closed"
    clearing.sweep(desk.gov, "switches")
    assert switches.board_now(desk.gov).engaged == ()
    ((session, payload),) = desk.gov.store.read(
        "SELECT session_id, payload FROM events WHERE kind = 'switch.released'", {}
    )
    assert session != switch.scope_id, "the trail of a closed session is over"
    assert json.loads(payload)["reason"] == "its session is closed"
    books.assert_agree(desk.gov)
    assert audit.verify(desk.gov).problems == ()


def test_a_budget_that_is_not_used_up_stops_nothing(desk: Desk) -> None:
    running = desk.admitted(desk.submit(stream="strict", cost_micros=600_000))
    beside, too_large = (desk.submit(stream="strict", cost_micros=cost) for cost in (600_000, 1_000_001))
    assert isinstance(desk.arrive(beside), Denied), "what is held may come back"
    assert isinstance(desk.arrive(too_large), Denied)
    assert switches.board_now(desk.gov).engaged == ()
    desk.finish(running, usage=Usage(600_000, 1))
    assert isinstance(desk.arrive(desk.submit(stream="strict", cost_micros=600_000)), Cancelled)
    assert [switch.scope for switch in switches.board_now(desk.gov).engaged] == [Scope.SESSION]


@pytest.mark.postgres
def test_a_process_that_is_suspended_in_a_transaction_holds_up_no_stop(postgres_url: str) -> None:
    gov = make_governance(postgres_url)
    try:
        with pytest.raises(StoreUnavailable), gov.store.transaction() as suspended:  # noqa: PT012
            suspended.execute(text("SELECT switch_epoch()"))
            switches.engage(gov, Scope.SYSTEM, EVERYTHING, mode=Mode.KILL, reason="now", by=ANN)
            suspended.execute(text("SELECT 1"))
        assert [switch.scope for switch in switches.board_now(gov).engaged] == [Scope.SYSTEM]
    finally:
        gov.store.close()
