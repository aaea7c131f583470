"""Anchors: what stands for pruned history, and that no other deletion passes for it."""

import sqlite3

import psycopg
import pytest

from governance.operations import audit
from governance.store import guards
from governance.store.engine import rows
from tests.support.governed import Desk, make_governance
from tests.support.pruned import later, left, prune, sessions, unguarded, work


def test_what_happens_in_a_pruned_session_later_is_chained_to_its_anchor(desk: Desk) -> None:
    work(desk)
    old = sessions(desk, "default")[0]
    later(desk)
    prune(desk)
    desk.gov.store.run(
        "INSERT INTO events (session_id, kind, actor, at_us, payload) VALUES (:id, 'agent.late', 'x', :now, '{}')",
        {"id": old, "now": desk.gov.clock.now_us()},
    )
    assert audit.verify(desk.gov).problems == ()
    assert [event.seq for event in audit.replay(desk.gov, old)] == [11]
    assert prune(desk).kept[0].why == "1 events are younger"
    later(desk)
    prune(desk)
    found = audit.verify(desk.gov)
    assert found.problems == ()
    assert [(one.seq, one.events) for one in found.anchors if one.session_id == old] == [(10, 10), (11, 1)]


def test_damaged_sessions_are_evidence_and_stay(desk: Desk) -> None:
    work(desk)
    work(desk, stream="small")
    made = desk.submit(stream="patient")
    desk.finish(desk.admitted(made))
    audit.seal(desk.gov)
    desk.gov.store.run("UPDATE actions SET state = 'failed' WHERE id = :id", {"id": made.action_id})
    small = sessions(desk, "small")[0]
    desk.gov.store.run(
        "UPDATE accounts SET posted = posted + 1 WHERE scope_id = :id AND unit = 'tokens'", {"id": small}
    )
    unguarded(desk, ["DELETE FROM events WHERE kind = 'action.admitted' AND seq = 3 AND session_id LIKE 'default%'"])
    later(desk)
    found = prune(desk)
    assert found.pruned == ()
    assert all(one.damaged for one in found.kept)
    why = {one.session_id.partition("@")[0]: one.why for one in found.kept}
    assert "event number 3 is missing" in why["default"]
    assert why["small"] == "1 accounts are not the sums of their entries"
    assert why["patient"] == "1 actions are not in the state in which its trail left them"
    assert not audit.verify(desk.gov).ok


def test_nothing_else_can_be_deleted(desk: Desk) -> None:
    work(desk)
    old = sessions(desk, "default")[0]
    later(desk)
    prune(desk)
    work(desk)
    audit.seal(desk.gov)
    for statement in (
        "DELETE FROM events",
        "DELETE FROM entries",
        "DELETE FROM anchors",
        "UPDATE anchors SET seq = 5",
        "UPDATE anchors SET cleared_us = NULL",
    ):
        with pytest.raises((psycopg.Error, sqlite3.Error), match="append-only"):
            _as_a_pruner(desk, statement)
    assert audit.verify(desk.gov).problems == ()
    assert left(desk, old) == {}


def _as_a_pruner(desk: Desk, statement: str) -> None:
    with desk.gov.store.transaction() as connection:
        if desk.gov.store.is_postgresql:
            rows(connection, f"SELECT set_config('{guards.PRUNES}', 'on', true)", {})
        rows(connection, statement, {})


def test_an_anchor_alone_deletes_nothing_on_postgresql(postgres_url: str) -> None:
    desk = Desk(make_governance(postgres_url))
    work(desk)
    audit.seal(desk.gov)
    _anchor_by_hand(desk)
    with pytest.raises(psycopg.Error, match="append-only"):
        desk.gov.store.run("DELETE FROM events WHERE session_id LIKE 'default%'", {})
    desk.gov.store.close()


_ANCHOR = """INSERT INTO anchors (session_id, seq, hash, events, pruned_us, recorded_in, cleared_us)
    SELECT session_id, seq, hash, seq, 1, {recorded}, {cleared} FROM events WHERE {which}"""
_FORGED = _ANCHOR.format(recorded="{recorded}", cleared="1", which="session_id = :young AND seq = 7")
_ALL_OF_IT = (
    "DELETE FROM events WHERE session_id = :young",
    "DELETE FROM entries WHERE account_id IN (SELECT id FROM accounts WHERE scope_id = :young)",
    "DELETE FROM accounts WHERE scope_id = :young",
    "DELETE FROM actions WHERE session_id = :young",
)


def _anchor_by_hand(desk: Desk) -> None:
    desk.gov.store.run(_ANCHOR.format(recorded="session_id", cleared="NULL", which="seq = 10"), {})


@pytest.mark.parametrize(
    ("done", "found"),
    [
        (["DELETE FROM events WHERE session_id = :young"], "has neither events nor an anchor"),
        (["DELETE FROM events WHERE session_id = :young AND seq = 2"], "event number 2 is missing"),
        (["DELETE FROM anchors WHERE session_id = :old"], "has neither events nor an anchor"),
        (["DELETE FROM anchors WHERE session_id = :old"], "was pruned at event 10 and has no anchor"),
        (["UPDATE anchors SET hash = 'x' WHERE session_id = :old"], "is not the one its pruning speaks of"),
        ([_FORGED.format(recorded=":young"), _ALL_OF_IT[0]], "actions have no event at all"),
        ([_FORGED.format(recorded=":control"), *_ALL_OF_IT], "does not say that it was pruned"),
        ([_FORGED.format(recorded=":young"), *_ALL_OF_IT], "does not say that it was pruned"),
        ([_FORGED.format(recorded=":old"), *_ALL_OF_IT], "does not say that it was pruned"),
        (["UPDATE events SET seq = seq - 1 WHERE session_id = :young"], "does not match its hash"),
    ],
)
def test_history_that_went_any_other_way_is_found(desk: Desk, done: list[str], found: str) -> None:
    work(desk)
    later(desk)
    prune(desk)
    work(desk, 2)
    audit.seal(desk.gov)
    old, young = sessions(desk, "default")
    assert audit.verify(desk.gov).ok
    (control,) = sessions(desk, "control")
    names = {":old": f"'{old}'", ":young": f"'{young}'", ":control": f"'{control}'"}
    for name, value in names.items():
        done = [statement.replace(name, value) for statement in done]
    unguarded(desk, [statement.replace(":", "\\:") for statement in done])
    problems = "\n".join(audit.verify(desk.gov).problems)
    assert found in problems
