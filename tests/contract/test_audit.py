"""The trail: gapless and chained per session; verification finds whatever was touched behind governance's back."""

import sqlite3

import psycopg
import pytest
from sqlalchemy import text

from governance.core.policy import Risk
from governance.errors import NotFound
from governance.operations import audit
from tests.support.governed import Desk


def lived(desk: Desk) -> None:
    desk.finish(desk.admitted(desk.submit()))
    desk.finish(desk.admitted(desk.submit(stream="small", cost_micros=10)))
    desk.submit(risk=Risk.HIGH)


def session(desk: Desk, stream: str = "default") -> str:
    return str(desk.gov.store.read("SELECT id FROM sessions WHERE stream = :s", {"s": stream})[0][0])


def unguarded(desk: Desk, *statements: str) -> None:
    """What somebody with the database's password could do."""
    table = "events" if "events" in statements[0] else "entries"
    triggers = {"events": ("events_sealed_once", "events_kept"), "entries": ("entries_fixed",)}[table]
    with desk.gov.store.transaction() as connection:
        for trigger in triggers:
            on = f" ON {table}" if desk.gov.store.is_postgresql else ""
            connection.exec_driver_sql(f"DROP TRIGGER {trigger}{on}")
        for statement in statements:
            connection.execute(text(statement))


def test_sealing_numbers_every_event_of_a_session_without_gaps(desk: Desk) -> None:
    lived(desk)
    assert audit.seal(desk.gov) == 9
    assert audit.seal(desk.gov) == 0
    assert [event.seq for event in audit.replay(desk.gov, session(desk))] == [1, 2, 3, 4, 5]
    kinds = [event.kind for event in audit.replay(desk.gov, session(desk), after_seq=1)]
    assert kinds == ["action.submitted", "action.admitted", "action.succeeded", "action.submitted"]


def test_an_event_that_commits_late_is_numbered_later(desk: Desk) -> None:
    lived(desk)
    audit.seal(desk.gov)
    desk.submit()
    assert audit.seal(desk.gov) == 1
    assert [event.seq for event in audit.replay(desk.gov, session(desk))] == [1, 2, 3, 4, 5, 6]
    assert audit.verify(desk.gov).ok


def test_verification_counts_what_it_read(desk: Desk) -> None:
    lived(desk)
    assert audit.verify(desk.gov) == audit.Verification(events=9, actions=3, accounts=6, problems=())


def test_events_and_entries_cannot_be_changed_or_deleted(desk: Desk) -> None:
    lived(desk)
    audit.seal(desk.gov)
    for statement in (
        "UPDATE events SET payload = '{}'",
        "UPDATE events SET seq = 77",
        "DELETE FROM events",
        "UPDATE entries SET held_delta = 0",
        "DELETE FROM entries",
    ):
        with pytest.raises((psycopg.Error, sqlite3.Error), match="append-only"):
            desk.gov.store.run(statement, {})
    assert audit.verify(desk.gov).ok


def test_a_changed_payload_is_found(desk: Desk) -> None:
    lived(desk)
    audit.seal(desk.gov)
    unguarded(desk, "UPDATE events SET payload = '{}' WHERE kind = 'action.admitted'")
    problems = audit.verify(desk.gov).problems
    assert len(problems) == 2
    assert all("does not match its hash" in problem for problem in problems)


def test_a_removed_event_is_found(desk: Desk) -> None:
    lived(desk)
    audit.seal(desk.gov)
    unguarded(desk, "DELETE FROM events WHERE kind = 'action.admitted' AND session_id LIKE 'default%'")
    text = "\n".join(audit.verify(desk.gov).problems)
    assert "event number 3 is missing" in text
    assert "action.succeeded may not lead from queued to succeeded" in text


def test_a_changed_balance_is_found(desk: Desk) -> None:
    lived(desk)
    desk.gov.store.run("UPDATE accounts SET posted = posted + 1 WHERE unit = 'tokens' AND scope_id LIKE 'default%'", {})
    assert "its entries sum to 0 and 10" in "\n".join(audit.verify(desk.gov).problems)


def test_a_hold_without_its_attempt_is_found(desk: Desk) -> None:
    desk.admitted(desk.submit())
    assert audit.verify(desk.gov).ok
    desk.gov.store.run("UPDATE actions SET state = 'failed', lease_worker = NULL", {})
    text = "\n".join(audit.verify(desk.gov).problems)
    assert "attempt 1 holds session:default@" in text
    assert "the store says failed, its trail says running" in text


def test_an_action_without_a_trail_is_found(desk: Desk) -> None:
    desk.submit()
    unguarded(desk, "DELETE FROM events WHERE kind = 'action.submitted'")
    assert audit.verify(desk.gov).problems == ("1 actions have no event at all",)


def test_an_unknown_session_is_named(desk: Desk) -> None:
    with pytest.raises(NotFound, match="no session 'x'"):
        list(audit.replay(desk.gov, "x"))
