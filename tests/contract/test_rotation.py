"""Sessions turn at their boundaries: the same ones whatever beat does, and nothing is forgotten."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from governance.clock import SystemClock
from governance.core.actions import State
from governance.core.changes import ActionRef, Author
from governance.core.drills import Kind
from governance.core.policy import Risk
from governance.core.switches import Mode, Scope
from governance.core.transitions import admitted
from governance.errors import InvalidOption, NotAllowed, NotFound
from governance.operations import audit, clearing, decide, rotation, switches
from governance.operations.answers import Parked
from governance.operations.drills import start as start_drill
from governance.operations.recover import child_gone
from governance.operations.rotation import rotate
from governance.store.changes import apply
from tests.support import books
from tests.support.governed import ANN, BOB, POLICY, Desk, ManualClock, make_governance
from tests.support.racer import RACERS, race

HOUR_S = 3600


def pass_s(desk: Desk, seconds: float) -> None:
    clock = desk.gov.clock
    assert isinstance(clock, ManualClock)
    clock.pass_s(seconds)


def sessions(desk: Desk, stream: str = "default") -> list[tuple[int, int]]:
    """Windows of a stream in minutes since the first one, in order."""
    lines = sorted(rotation.list_sessions(desk.gov, stream=stream, limit=100), key=lambda line: line.window_start_us)
    origin_us = lines[0].window_start_us
    return [tuple((at - origin_us) // 60_000_000 for at in (x.window_start_us, x.window_end_us)) for x in lines]  # type: ignore[misc]


def line(desk: Desk, session: str) -> rotation.SessionLine:
    return rotation.find_session(desk.gov, session)


def kinds(desk: Desk, session: str) -> list[str]:
    audit.seal(desk.gov)
    return [event.kind for event in audit.replay(desk.gov, session)]


def in_order(desk: Desk) -> None:
    books.assert_agree(desk.gov)
    assert audit.verify(desk.gov).problems == ()


def test_the_next_window_is_open_before_one_ends_and_a_stream_that_rests_has_none(desk: Desk) -> None:
    desk.finish(desk.admitted(desk.submit()))
    assert rotate(desk.gov, "test").opened == [], "its end is far away"
    pass_s(desk, HOUR_S - 10)
    (ahead,) = rotate(desk.gov, "test").opened
    assert line(desk, ahead).state == "ahead"
    run = desk.admitted(desk.submit())
    desk.finish(run)
    assert run.ref.session_id != ahead, "the window that lasts is the one that counts"
    pass_s(desk, 10)
    run = desk.admitted(desk.submit())
    desk.finish(run)
    assert run.ref.session_id == ahead
    assert sessions(desk) == [(0, 60), (60, 120)]
    pass_s(desk, HOUR_S)
    assert len(rotate(desk.gov, "test").opened) == 1, "after one that was used"
    pass_s(desk, 10 * HOUR_S)
    assert rotate(desk.gov, "test").opened == []
    assert len(sessions(desk)) == 3, "nothing happened in the third one"
    in_order(desk)


@pytest.mark.parametrize("ticks_min", [(), (300,), (59, 60, 60, 61, 119, 120, 121, 180, 240, 300), range(0, 301, 7)])
def test_late_doubled_and_missing_ticks_give_the_same_sessions(desk: Desk, ticks_min: tuple[int, ...]) -> None:
    began_us = desk.gov.clock.now_us()
    for minute in sorted([*ticks_min, 5, 30, 190]):
        clock = desk.gov.clock
        assert isinstance(clock, ManualClock)
        clock.at_us = began_us + minute * 60_000_000
        if minute in ticks_min:
            rotate(desk.gov, "one")
            rotate(desk.gov, "two")
        if minute in (5, 30, 190):
            desk.finish(desk.admitted(desk.submit()))
    pass_s(desk, HOUR_S)
    for _ in range(3):
        rotate(desk.gov, "last")
    assert sessions(desk) == [(0, 60), (60, 120), (180, 240), (240, 300)]
    in_order(desk)


def test_what_waits_is_carried_over_with_an_event_on_both_sides(desk: Desk) -> None:
    patient = [desk.submit(stream="patient") for _ in range(2)]
    desk.finish(desk.admitted(patient[0]))
    desk.arrive(patient[1])
    pass_s(desk, HOUR_S - 60)
    parked, queued = desk.submit(risk=Risk.HIGH, stream="patient"), desk.submit(stream="patient")
    doubted = desk.submit(idempotent=False, stream="default")
    desk.admitted(doubted)
    child_gone(desk.gov, desk.lease.worker_id, desk.lease.child, "it died")
    states = {made.action_id: desk.state(made) for made in (patient[1], parked, queued, doubted)}
    assert sorted(states.values()) == ["deferred", "in_doubt", "parked", "queued"]
    pass_s(desk, 60)
    done = rotate(desk.gov, "test")
    assert done.carried == 4
    read = desk.gov.store.read
    for action_id, state in states.items():
        found = read("SELECT session_id, kind, payload FROM events WHERE kind LIKE 'action.carried%' ORDER BY id", {})
        both = [(session, kind, json.loads(text)) for session, kind, text in found]
        mine = [told for told in both if told[2]["state"] == state]
        (out, carried_in) = mine
        assert (out[1], carried_in[1]) == ("action.carried_out", "action.carried_in")
        assert (out[2]["into"], carried_in[2]["from"]) == (carried_in[0], out[0])
        row = read("SELECT session_id, state FROM actions WHERE id = :id", {"id": action_id})[0]
        assert tuple(row) == (carried_in[0], state)
    assert rotate(desk.gov, "test").carried == 0
    decide.approve(desk.gov, parked.action_id, by=ANN, reason="fine")
    assert line(desk, desk.admitted(parked).ref.session_id).state == "open"
    in_order(desk)


def test_a_session_is_closed_with_a_summary_once_nothing_of_it_is_left(desk: Desk) -> None:
    run = desk.admitted(desk.submit(cost_micros=700))
    first = run.ref.session_id
    pass_s(desk, HOUR_S + 60)
    assert rotate(desk.gov, "test").closed == []
    assert line(desk, first).state == "closing"
    desk.finish(run)
    assert rotate(desk.gov, "test").closed == [first]
    closed = line(desk, first)
    assert closed.state == "closed"
    assert closed.summary is not None
    assert closed.summary["accounts"]["cost_micros"]["posted"] == 700
    assert closed.summary["accounts"]["actions"]["posted"] == 1
    assert closed.summary["events"]["action.succeeded"] == 1
    assert kinds(desk, first)[-1] == "session.closed"
    assert rotate(desk.gov, "test").closed == []
    assert kinds(desk, first).count("session.closed") == 1
    in_order(desk)


@pytest.mark.parametrize(("idempotent", "becomes"), [(True, "queued"), (False, "in_doubt")])
def test_what_runs_on_after_the_grace_is_given_up(desk: Desk, idempotent: bool, becomes: str) -> None:
    made = desk.submit(stream="graceful", idempotent=idempotent)
    run = desk.admitted(made)
    pass_s(desk, HOUR_S)
    pass_s(desk, 600)
    assert rotate(desk.gov, "test").overstayed.total() == 0, "its grace lasts"
    pass_s(desk, 1)
    done = rotate(desk.gov, "test")
    assert (dict(done.overstayed), done.closed) == ({becomes: 1}, [run.ref.session_id])
    assert desk.state(made) == becomes
    assert type(desk.finish(run)).__name__ == "Fenced", "the old attempt writes nothing any more"
    in_order(desk)


def test_a_pause_of_one_session_is_not_escaped_by_its_turn(desk: Desk) -> None:
    made = desk.submit()
    session = desk.gov.sessions["default"].session.id
    pause = switches.engage(desk.gov, Scope.SESSION, session, mode=Mode.PAUSE, reason="wait", by=ANN).switch
    pass_s(desk, HOUR_S + 60)
    done = rotate(desk.gov, "test")
    assert (done.carried, done.closed) == (0, [])
    assert type(desk.arrive(made)).__name__ == "Deferred"
    clearing.release(desk.gov, pause.id, reason="over", by=ANN)
    done = rotate(desk.gov, "test")
    assert (done.carried, done.closed) == (1, [session])
    assert desk.admitted(made).ref.session_id != session
    in_order(desk)


def test_what_a_late_process_writes_into_a_closed_session_is_carried_too(desk: Desk, database_url: str) -> None:
    desk.finish(desk.admitted(desk.submit()))
    session = desk.gov.sessions["default"].session
    pass_s(desk, HOUR_S + 60)
    assert rotate(desk.gov, "test").closed == [session.id]
    behind = Desk(make_governance(database_url, clock=ManualClock(session.window.end_us - 1)))
    late = behind.submit()
    behind.gov.store.close()
    assert rotate(desk.gov, "test").carried == 1
    assert desk.admitted(late).ref.session_id != session.id
    in_order(desk)


def test_nothing_follows_a_drills_window_and_nothing_leaves_it(desk: Desk) -> None:
    drill = start_drill(desk.gov, Kind.APPROVAL_BACKLOG, started_by="test")
    made = desk.submit(stream=drill.session.stream, name="acp.drill.ask")
    assert desk.state(made) == "parked"
    pass_s(desk, (drill.session.window.end_us - drill.session.window.start_us) / 1_000_000 - 5)
    assert rotate(desk.gov, "test").opened == []
    pass_s(desk, 65)
    done = rotate(desk.gov, "test")
    assert (done.opened, done.carried, done.closed) == ([], 0, [])
    assert [one.id for one in rotation.list_sessions(desk.gov, stream=drill.session.stream, limit=9)] == [
        drill.session.id
    ]
    in_order(desk)


def test_a_pass_goes_on_to_the_end_over_several_pages(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "_PAGE", 2)
    monkeypatch.setattr(rotation, "_BATCH", 2)
    for stream in "abcdea":
        for _ in range(3):
            desk.submit(stream=stream, risk=Risk.HIGH)
    pass_s(desk, HOUR_S + 60)
    done = rotate(desk.gov, "test")
    assert (done.carried, len(done.closed)) == (18, 5)
    in_order(desk)


def test_two_rotations_at_once_do_everything_once(desk: Desk, database_url: str) -> None:
    for number in range(20):
        desk.submit(stream=f"s{number}", risk=Risk.HIGH)
    pass_s(desk, HOUR_S + 60)
    others = [Desk(make_governance(database_url, clock=desk.gov.clock)) for _ in range(4)]
    with ThreadPoolExecutor(len(others)) as threads:
        done = list(threads.map(lambda other: rotate(other.gov, "test"), others))
    for other in others:
        other.gov.store.close()
    assert sum(one.carried for one in done) == 20
    assert sorted(name for one in done for name in one.closed) == sorted({n for one in done for n in one.closed})
    rotate(desk.gov, "test")
    count = desk.gov.store.read("SELECT kind, count(*) FROM events WHERE kind LIKE 'session.%' GROUP BY kind", {})
    assert dict(count)["session.closed"] == 20
    in_order(desk)


def test_an_early_turn_brings_the_new_policy_and_no_fresh_budget(desk: Desk, database_url: str) -> None:
    desk.finish(desk.admitted(desk.submit(stream="small", cost_micros=60_000)))
    parked = desk.submit(stream="small", risk=Risk.HIGH)
    old = desk.gov.sessions["small"].session.id
    pass_s(desk, 60)
    newer = make_governance(database_url, policy=POLICY.replace("timeout: 15m", "timeout: 20m"), clock=desk.gov.clock)
    Desk(newer).submit(stream="small")
    turned = rotation.turn(newer, "small", reason="another policy", by=ANN)
    assert line(desk, old).state == "closing"
    assert line(desk, turned.id).policy_hash == newer.policy.hash
    assert desk.account("cost_micros", "small") == {"limit": 40_000, "posted": 0, "held": 0}
    turned_in = "SELECT session_id FROM actions WHERE id = :id"
    own = Desk(newer).submit(stream="small")
    assert newer.store.read(turned_in, {"id": own.action_id})[0][0] == turned.id, "it forgot the one that it ended"
    # This process still remembers the old session; its admissions are in the new one.
    run = desk.admitted(desk.submit(stream="small"))
    assert run.ref.session_id == turned.id
    assert desk.gov.sessions["small"].session.id == turned.id
    decide.approve(desk.gov, parked.action_id, by=ANN, reason="fine")
    assert isinstance(desk.arrive(parked), Parked), "it was approved under the policy before"
    desk.finish(run)
    assert rotate(desk.gov, "test").carried >= 1
    pass_s(desk, 60)
    assert old in rotate(desk.gov, "test").closed
    assert kinds(desk, old)[-2:] == ["action.carried_out", "session.closed"]
    second = rotation.turn(newer, "small", reason="once more", by=ANN)
    assert desk.account("cost_micros", "small")["limit"] == 40_000 - 1000
    pass_s(desk, HOUR_S)
    assert (
        line(desk, second.id).window_end_us
        == line(desk, desk.admitted(desk.submit(stream="small")).ref.session_id).window_start_us
    )
    newer.store.close()
    in_order(desk)


def test_who_may_turn_what(desk: Desk) -> None:
    desk.submit()
    with pytest.raises(NotAllowed):
        rotation.turn(desk.gov, "default", reason="x", by=BOB)
    with pytest.raises(InvalidOption, match="reason"):
        rotation.turn(desk.gov, "default", reason=" ", by=ANN)
    with pytest.raises(NotFound, match="nobody"):
        rotation.turn(desk.gov, "nobody", reason="x", by=ANN)
    with pytest.raises(NotFound, match="acp sessions list"):
        rotation.find_session(desk.gov, "nobody@0")


def test_eight_racing_workers_admit_nothing_into_a_session_that_was_turned(database_url: str, tmp_path: Path) -> None:
    desk = Desk(make_governance(database_url, clock=SystemClock()))
    made = [desk.submit(cost_micros=1, tokens=0) for _ in range(400)]
    old = desk.gov.sessions["default"].session.id
    messages = " ".join([str(tmp_path), *(f"default/{one.action_id}" for one in made)])
    begun = "SELECT count(*) FROM events WHERE kind = 'action.admitted'"
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(race, database_url, "deliver", messages, RACERS)
        while desk.gov.store.read(begun, {})[0][0] < 40:
            assert not running.done()
        turned = rotation.turn(desk.gov, "default", reason="now", by=ANN)
        running.result()
    trail = desk.gov.store.read(
        "SELECT session_id, kind FROM events WHERE kind IN ('action.admitted', 'session.turned') ORDER BY id", {}
    )
    at = [kind for _, kind in trail].index("session.turned")
    assert {session for session, _ in trail[:at]} == {old}
    assert {session for session, _ in trail[at + 1 :]} == {turned.id}
    assert 40 <= at < len(made)
    in_order(desk)
    desk.gov.store.close()


def test_an_admission_that_did_not_see_the_closing_is_decided_anew(desk: Desk) -> None:
    """A process that was suspended between its decision and its write."""
    made = desk.submit()
    session = desk.gov.sessions["default"].session
    board = switches.board_now(desk.gov)
    pass_s(desk, HOUR_S + 60)
    assert rotate(desk.gov, "test").closed == [session.id]
    stale = admitted(
        ActionRef(made.action_id, session.id, State.QUEUED, 0),
        Author("late", desk.gov.clock.now_us()),
        session_id=session.id,
        lease=desk.lease,
        holds=(),
        ticket=None,
        rule="routine",
        epoch=board.epoch,
    )
    assert not apply(desk.gov.store, stale)
    carried = replace(stale, expected=replace(stale.expected, session_id=desk.gov.sessions["default"].session.id))
    assert not apply(desk.gov.store, carried), "the epoch alone refuses it"
    assert line(desk, desk.admitted(made).ref.session_id).state == "open"
    in_order(desk)
