"""Retention: old sessions go as a whole, and what is kept is verified."""

from pathlib import Path
from threading import Barrier, Thread

import pytest

from governance.core.events import Event
from governance.core.grants import GrantTerms
from governance.core.policy import Risk
from governance.core.principals import Principal
from governance.errors import InvalidOption, NotAllowed
from governance.operations import audit, checkpoints, decide, recover, relay, retention
from governance.operations.archive import Archive, verify_file
from governance.operations.escalate import escalate_overdue
from governance.operations.retention import DAY_S
from governance.operations.rollups import roll_up
from governance.operations.ticks import claim
from governance.store import retention as store_retention
from tests.support.governed import ANN, LEASE, Desk, ManualClock, make_governance
from tests.support.pruned import WEEK_S, later, left, prune, sessions, work


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
    terms = GrantTerms(until_us=until_us)
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


@pytest.mark.parametrize("ends", [False, True], ids=["and goes on", "and ends"])
def test_a_session_that_moved_while_it_was_looked_at_stays(desk: Desk, database_url: str, ends: bool) -> None:
    """A process that was suspended in it writes at last, between the look and the anchor."""
    work(desk)
    old_us = desk.gov.clock.now_us()
    later(desk)
    audit.seal(desk.gov)
    (seen,) = [
        one for one in store_retention.aged(desk.gov.store, old_us + 3600 * 1_000_000) if "default" in one.session_id
    ]
    behind = Desk(make_governance(database_url, clock=ManualClock(old_us)))
    late = behind.submit()
    if ends:
        behind.finish(behind.admitted(late))
    behind.gov.store.close()
    event = Event(seen.session_id, "session.pruned", "test", old_us)
    assert not store_retention.anchor(desk.gov.store, seen, desk.gov.clock.now_us(), event)
    assert audit.verify(desk.gov).problems == ()


def test_checkpoints_go_with_their_session_but_for_what_a_stream_goes_on_from(desk: Desk) -> None:
    def save(state: object, stream: str = "default") -> str:
        run = desk.admitted(desk.submit(stream=stream))
        made = checkpoints.save(desk.gov, run.ref, stream, state, cycle=1, actor="agent")
        desk.finish(run)
        return made

    first, second = save({"n": 1}), save({"n": 2})
    resting = save({"n": 7}, stream="small")
    later(desk, 60)
    astray = save({"n": 3})
    checkpoints.restore(desk.gov, checkpoints.find_point(desk.gov, second), reason="it went astray", by=ANN)
    by_clock, rested = checkpoints.save_due(desk.gov, 1, "checkpoints")
    later(desk)
    assert prune(desk).checkpoints == len({first, second, astray, resting})
    assert {point.id for point in checkpoints.list_points(desk.gov, stream=None, limit=10)} == {by_clock, rested}
    for stream, point, state in (("default", by_clock, {"n": 2}), ("small", rested, {"n": 7})):
        last = checkpoints.last_state(desk.gov, stream)
        assert last is not None
        assert (last.id, last.state) == (point, state)
    save({"n": 4})
    later(desk)
    assert prune(desk).checkpoints == 1
    assert audit.verify(desk.gov).problems == ()


def test_what_was_rolled_up_stays_when_its_events_go(desk: Desk) -> None:
    work(desk)
    later(desk)
    audit.seal(desk.gov)
    roll_up(desk.gov)
    sums = "SELECT stream, figure, label, value FROM rollups WHERE stream = 'default' ORDER BY figure, label"
    before = desk.gov.store.read(sums, {})
    assert ("default", "ended", "succeeded", 3) in [tuple(row) for row in before]
    assert [one.session_id for one in prune(desk).pruned] == sessions(desk, "default")
    later(desk, 3600)
    roll_up(desk.gov)
    assert desk.gov.store.read(sums, {}) == before


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
