"""Retention: old sessions go as a whole, what is kept is verified, and no other deletion passes for one."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from threading import Barrier, Thread

import psycopg
import pytest
from sqlalchemy import text

from governance.core.policy import Risk
from governance.core.principals import Principal
from governance.errors import InvalidOption, NotAllowed
from governance.operations import audit, decide, recover, relay, retention
from governance.operations.archive import Archive, verify_file
from governance.operations.escalate import escalate_overdue
from governance.operations.retention import DAY_S
from governance.operations.ticks import claim
from governance.store import guards
from governance.store.engine import rows
from tests.support.governed import ANN, LEASE, Desk, ManualClock, make_governance

WEEK_S = 7 * DAY_S
HISTORY = ("events", "entries", "tickets", "grants", "actions", "accounts")


def later(desk: Desk, seconds: float = WEEK_S + 3600) -> None:
    assert isinstance(desk.gov.clock, ManualClock)
    desk.gov.clock.pass_s(seconds)


def prune(desk: Desk, archive: Archive | None = None) -> retention.Retention:
    return retention.prune(desk.gov, older_than_s=WEEK_S, by=ANN, reason="a week is enough", archive=archive)


def work(desk: Desk, count: int = 3, stream: str = "default") -> None:
    for _ in range(count):
        desk.finish(desk.admitted(desk.submit(stream=stream)))


def left(desk: Desk, session_id: str) -> dict[str, int]:
    """How many rows there are of a session, by table; what is not its own by name is found by its actions."""
    of_actions = "IN (SELECT id FROM actions WHERE session_id = :id)"
    of_accounts = "IN (SELECT id FROM accounts WHERE scope_id = :id)"
    where = {
        "events": "session_id = :id",
        "entries": f"account_id {of_accounts}",
        "tickets": f"action_id {of_actions}",
        "grants": f"ticket_id IN (SELECT id FROM tickets WHERE action_id {of_actions})",
        "actions": "session_id = :id",
        "accounts": "scope_id = :id",
    }
    counts = {
        table: desk.gov.store.read(f"SELECT count(*) FROM {table} WHERE {where[table]}", {"id": session_id})
        for table in HISTORY
    }
    return {table: int(count[0][0]) for table, count in counts.items() if count[0][0]}


def sessions(desk: Desk, stream: str) -> list[str]:
    found = desk.gov.store.read(
        "SELECT id FROM sessions WHERE stream = :stream ORDER BY window_start_us", {"stream": stream}
    )
    return [str(row[0]) for row in found]


def unguarded(desk: Desk, statements: Sequence[str]) -> None:
    """What somebody with the database's password could do."""
    with desk.gov.store.transaction() as connection:
        names = {
            "events": ("events_sealed_once", "events_kept"),
            "entries": ("entries_kept",),
            "anchors": ("anchors_kept", "anchors_cleared_once"),
        }
        for table, triggers in names.items():
            for trigger in triggers:
                on = f" ON {table}" if desk.gov.store.is_postgresql else ""
                connection.exec_driver_sql(f"DROP TRIGGER {trigger}{on}")
        for statement in statements:
            connection.execute(text(statement))


def test_old_sessions_go_and_work_goes_on_behind_their_anchors(desk: Desk) -> None:
    work(desk)
    desk.arrive(desk.submit(risk=Risk.CRITICAL))
    later(desk)
    work(desk, 2)
    old, young = sessions(desk, "default")
    audit.seal(desk.gov)
    *_, last = audit.replay(desk.gov, old)
    pruned = prune(desk)
    assert [(one.session_id, one.events, one.hash) for one in pruned.pruned] == [(old, 11, last.hash)]
    assert pruned.finished
    assert left(desk, old) == {}
    assert left(desk, young)["events"] == 7
    found = audit.verify(desk.gov)
    assert found.problems == ()
    assert [(one.session_id, one.seq, one.hash, one.cleared) for one in found.anchors] == [(old, 11, last.hash, True)]
    work(desk, 2)
    assert audit.verify(desk.gov).problems == ()
    assert list(audit.replay(desk.gov, old)) == []
    anchor = audit.last_anchor(desk.gov, old)
    assert anchor is not None
    assert (anchor.seq, anchor.events, anchor.pruned_us) == (11, 11, desk.gov.clock.now_us())
    assert prune(desk).pruned == ()


def test_the_trail_of_the_fleet_says_who_pruned_what_and_why(desk: Desk) -> None:
    work(desk, 1)
    old = sessions(desk, "default")[0]
    later(desk)
    prune(desk)
    audit.seal(desk.gov)
    (event,) = (e for e in audit.replay(desk.gov, sessions(desk, "control")[-1]) if e.kind == "session.pruned")
    assert event.actor == "principal:ann"
    assert old in event.payload
    assert "a week is enough" in event.payload


def test_the_fleets_own_sessions_and_drills_go_the_same_way(desk: Desk) -> None:
    """Also the ones that say what was pruned: their anchors are told of by later ones."""
    work(desk, 1)
    later(desk)
    prune(desk)
    later(desk)
    work(desk, 1)
    pruned = prune(desk)
    assert {one.session_id for one in pruned.pruned} == {sessions(desk, "control")[0]}
    found = audit.verify(desk.gov)
    assert found.problems == ()
    assert len(found.anchors) == 2


def test_a_session_stays_as_long_as_anything_in_it_goes_on(desk: Desk) -> None:
    work(desk, 1)
    parked = desk.submit(risk=Risk.HIGH)
    later(desk)
    (kept,) = prune(desk).kept
    assert kept.why.startswith("1 actions are not over")
    assert audit.verify(desk.gov).ok
    escalate_overdue(desk.gov, "escalation")
    assert desk.state(parked) == "denied"
    assert prune(desk).kept[0].why.endswith("nobody has been told of their end")
    desk.arrive(parked)
    assert prune(desk).kept[0].why == "1 events are younger"
    later(desk)
    assert [one.session_id for one in prune(desk).pruned] == sessions(desk, "default")
    assert audit.verify(desk.gov).problems == ()


def test_what_is_in_doubt_or_holds_something_stays(desk: Desk) -> None:
    made = desk.submit(idempotent=False)
    desk.admitted(made)
    later(desk)
    assert prune(desk).pruned == ()
    recover.child_gone(desk.gov, LEASE.worker_id, LEASE.child, "killed")
    assert desk.state(made) == "in_doubt"
    later(desk)
    assert prune(desk).pruned == ()
    assert desk.state(made) == "in_doubt"


def test_a_session_whose_decision_gave_a_lasting_grant_stays_until_the_grant_ends(desk: Desk) -> None:
    made = desk.submit(risk=Risk.HIGH)
    until_us = desk.gov.clock.now_us() + 30 * DAY_S * 1_000_000
    terms = decide.GrantTerms(until_us=until_us)
    decide.approve(desk.gov, made.action_id, by=ANN, reason="routine", grant=terms)
    desk.finish(desk.admitted(made))
    later(desk)
    assert prune(desk).kept[0].why == "1 grants stand on decisions in it"
    later(desk, 31 * DAY_S)
    (old,) = prune(desk).pruned
    assert left(desk, old.session_id) == {}
    assert desk.gov.store.read("SELECT count(*) FROM grants", {})[0][0] == 0
    assert audit.verify(desk.gov).problems == ()


def test_an_action_that_went_on_in_a_later_session_keeps_what_happened_there(desk: Desk) -> None:
    work(desk, 1, stream="patient")
    carried = desk.submit(stream="patient")
    desk.arrive(carried)
    assert desk.state(carried) == "deferred"
    later(desk, 3600)
    relay.release_due(desk.gov, "relay", 10)
    run = desk.admitted(carried)
    later(desk)
    first, second = sessions(desk, "patient")
    assert [one.session_id for one in prune(desk).pruned] == [first]
    assert audit.verify(desk.gov).problems == ()
    desk.finish(run)
    assert audit.verify(desk.gov).problems == ()
    later(desk)
    plan = retention.plan(desk.gov, older_than_s=WEEK_S)
    assert second in {one.session_id for one in plan.pruned}
    prune(desk)
    assert left(desk, second) == {}
    assert audit.verify(desk.gov).problems == ()


def test_a_history_is_cut_at_its_beginning_only(desk: Desk) -> None:
    """A session waits for an earlier one that has to stay, if an action went from that one to it."""
    work(desk, 1, stream="patient")
    stays, carried = desk.submit(stream="patient", risk=Risk.HIGH), desk.submit(stream="patient")
    desk.arrive(carried)
    later(desk, 3600)
    relay.release_due(desk.gov, "relay", 10)
    desk.finish(desk.admitted(carried))
    later(desk)
    first, second = sessions(desk, "patient")
    kept = {one.session_id: one.why for one in prune(desk).kept}
    assert kept[second] == f"its actions began in {first}, which is kept"
    escalate_overdue(desk.gov, "escalation")
    desk.arrive(stays)
    later(desk)
    plan = retention.plan(desk.gov, older_than_s=WEEK_S)
    assert {first, second} <= {one.session_id for one in plan.pruned}
    assert {first, second} <= {one.session_id for one in prune(desk).pruned}
    assert audit.verify(desk.gov).problems == ()


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


def test_two_prunes_at_once_prune_everything_once(desk: Desk) -> None:
    for _ in range(6):
        work(desk, 4)
        later(desk, 3600)
    later(desk)
    others = [Desk(make_governance(desk.gov.store.url.render_as_string(hide_password=False), clock=desk.gov.clock))
              for _ in range(2)]  # fmt: skip
    together, found, errors = Barrier(2), [], []

    def race(one: Desk) -> None:
        try:
            together.wait(timeout=10)
            found.append(prune(one))
        except Exception as problem:
            errors.append(problem)

    racers = [Thread(target=race, args=(one,)) for one in others]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(timeout=60)
    for other in others:
        other.gov.store.close()
    assert errors == []
    pruned = [one.session_id for each in found for one in each.pruned]
    assert sorted(pruned) == sorted(sessions(desk, "default")), "each by one of them"
    counted = desk.gov.store.read("SELECT count(*) FROM events WHERE kind = 'session.pruned'", {})[0][0]
    assert counted == len(pruned) == 6
    assert audit.verify(desk.gov).problems == ()
    assert all(one.cleared for one in audit.verify(desk.gov).anchors)


def test_beats_share_goes_on_where_the_last_one_stopped(desk: Desk) -> None:
    for _ in range(3):
        work(desk, 4)
        later(desk, 3600)
    later(desk)
    assert retention.prune_aged(desk.gov, 0, 10) is None
    shares = 0
    while not (share := retention.prune_aged(desk.gov, 7, 10)).finished:  # type: ignore[union-attr]
        shares += 1
        assert audit.verify(desk.gov).problems == (), "in the middle of it"
        assert share is not None
        assert shares < 50
    assert shares >= 3
    assert all(one.cleared for one in audit.verify(desk.gov).anchors)
    assert [left(desk, session_id) for session_id in sessions(desk, "default")] == [{}, {}, {}]


def test_a_plan_says_what_would_go_and_touches_nothing(desk: Desk) -> None:
    work(desk)
    desk.submit(risk=Risk.HIGH, stream="small")
    later(desk)
    plan = retention.plan(desk.gov, older_than_s=WEEK_S)
    assert [(one.session_id, one.events) for one in plan.pruned] == [(sessions(desk, "default")[0], 10)]
    assert [one.session_id for one in plan.kept] == sessions(desk, "small")
    assert audit.verify(desk.gov).anchors == ()
    assert left(desk, sessions(desk, "default")[0])["events"] == 10


def test_answers_and_ticks_are_forgotten_by_age(desk: Desk) -> None:
    parked = desk.submit(risk=Risk.HIGH)
    decide.approve(desk.gov, parked.action_id, by=ANN, reason="fine", command_id="first")
    desk.finish(desk.admitted(parked))
    assert claim(desk.gov, "acp.relay", 5)
    later(desk)
    young = desk.submit(risk=Risk.HIGH)
    decide.approve(desk.gov, young.action_id, by=ANN, reason="fine", command_id="second")
    pruned = prune(desk)
    assert (pruned.commands, pruned.ticks) == (1, 1)
    assert [row[0] for row in desk.gov.store.read("SELECT id FROM commands", {})] == ["second"]


def test_only_operators_prune_with_a_reason_and_an_age(desk: Desk) -> None:
    viewer = Principal("vic", frozenset({"viewer"}))
    with pytest.raises(NotAllowed):
        retention.prune(desk.gov, older_than_s=WEEK_S, by=viewer, reason="x")
    with pytest.raises(InvalidOption, match="reason"):
        retention.prune(desk.gov, older_than_s=WEEK_S, by=ANN, reason=" ")
    with pytest.raises(InvalidOption, match="1h or more"):
        retention.prune(desk.gov, older_than_s=60, by=ANN, reason="x")


def test_an_archive_holds_what_was_pruned_and_verifies_by_itself(desk: Desk, tmp_path: Path) -> None:
    work(desk)
    work(desk, stream="small")
    later(desk)
    path = tmp_path / "old.jsonl"
    with Archive(desk.gov, path) as archive:
        pruned = prune(desk, archive)
    found = verify_file(desk.gov, path)
    assert found.problems == ()
    assert {(one.session_id, one.seq, one.hash) for one in found.sessions} == {
        (one.session_id, one.seq, one.hash) for one in pruned.pruned
    }
    assert found.events == sum(one.events for one in pruned.pruned) == 20
    with pytest.raises(InvalidOption, match="export"):
        Archive(desk.gov, path)
    lines = path.read_text().splitlines()
    for changed, said in (
        ([lines[0], *lines[2:]], "event number 2 is missing"),
        ([lines[0].replace('"actor": "governance"', '"actor": "nobody"'), *lines[1:]], "does not match its hash"),
        (lines[:-1], "does not know its last event"),
    ):
        path.write_text("\n".join(changed) + "\n")
        assert said in "\n".join(verify_file(desk.gov, path).problems)
    path.write_text("{}\n")
    with pytest.raises(InvalidOption, match="line 1 is no event"):
        verify_file(desk.gov, path)
