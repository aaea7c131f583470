"""Restore points: what is saved, what differs, and what a restore does and does not bring back."""

import json
from typing import Any

import pytest

from governance.core.checkpoints import Difference, differences
from governance.core.ledger import Usage
from governance.core.policy import Risk
from governance.core.switches import Mode, Scope
from governance.errors import AttemptFenced, InvalidOption, NotAllowed, NotFound, StateConflict
from governance.operations import audit, checkpoints, clearing, notify, switches
from governance.operations.answers import Admitted
from governance.operations.checkpoints import SavedPoint
from governance.operations.recover import child_gone
from governance.operations.sessions import in_force
from tests.support import books
from tests.support.governed import ANN, BOB, Desk, ManualClock

HOUR_US = 3600 * 1_000_000


def pass_s(desk: Desk, seconds: float) -> None:
    clock = desk.gov.clock
    assert isinstance(clock, ManualClock)
    clock.pass_s(seconds)


def save(desk: Desk, run: Admitted, state: Any, cycle: int | None = None) -> SavedPoint:
    made = checkpoints.save(desk.gov, run.ref, run.action.stream, state, cycle=cycle, actor="agent:a1")
    return checkpoints.find_point(desk.gov, made)


def in_order(desk: Desk) -> None:
    books.assert_agree(desk.gov)
    assert audit.verify(desk.gov).problems == ()


def test_a_checkpoint_holds_position_control_state_and_what_the_agent_saved(desk: Desk) -> None:
    parked = desk.submit(risk=Risk.HIGH)
    desk.submit(stream="small", risk=Risk.HIGH)
    run = desk.admitted(desk.submit(cost_micros=700))
    for stream in ("small", "patient"):
        paused = switches.engage(desk.gov, Scope.STREAM, stream, mode=Mode.PAUSE, reason="wait", by=ANN).switch
    clearing.release(desk.gov, paused.id, reason="go on", by=ANN)
    point = save(desk, run, {"read": ["a", "b"], "at": 3}, cycle=12)
    assert (point.stream, point.session_id, point.cycle, point.action_id) == (
        "default",
        run.ref.session_id,
        12,
        run.ref.id,
    )
    assert point.state == {"read": ["a", "b"], "at": 3}
    assert [ticket["action"] for ticket in point.control["tickets"].values()] == [parked.action_id]
    assert point.control["accounts"]["cost_micros"]["held"] == 700
    assert list(point.control["switches"].values()) == ["pause stream:small"]
    (last,) = desk.gov.store.read("SELECT max(id) FROM events WHERE kind <> 'checkpoint.saved'", {})[0]
    assert point.event_id == last
    desk.finish(run)
    audit.seal(desk.gov)
    (told,) = [event for event in audit.replay(desk.gov, point.session_id) if event.kind == "checkpoint.saved"]
    assert json.loads(told.payload) == {
        "checkpoint": point.id,
        "digest": point.digest,
        "after_event": point.event_id,
        "cycle": 12,
    }
    found = checkpoints.last_state(desk.gov, "default")
    assert found == point
    assert checkpoints.last_state(desk.gov, "other") is None
    in_order(desk)


@pytest.mark.parametrize("state", [{1, 2}, object(), "x" * (256 * 1024)], ids=["set", "object", "large"])
def test_what_cannot_be_kept_is_refused(desk: Desk, state: Any) -> None:
    run = desk.admitted(desk.submit())
    with pytest.raises(InvalidOption, match="state"):
        save(desk, run, state)
    with pytest.raises(InvalidOption, match="cycle"):
        save(desk, run, {}, cycle=-1)
    assert checkpoints.list_points(desk.gov, stream=None, limit=10) == []


def test_an_attempt_that_lost_its_action_saves_nothing(desk: Desk) -> None:
    run = desk.admitted(desk.submit())
    child_gone(desk.gov, desk.lease.worker_id, desk.lease.child, "it died")
    with pytest.raises(AttemptFenced):
        save(desk, run, {"from": "a zombie"})
    assert checkpoints.list_points(desk.gov, stream=None, limit=10) == []


def test_the_clock_takes_one_of_every_stream_that_works(desk: Desk) -> None:
    run = desk.admitted(desk.submit())
    save(desk, run, {"n": 1}, cycle=1)
    desk.finish(run)
    desk.submit(stream="small", risk=Risk.CRITICAL)
    assert len(checkpoints.save_due(desk.gov, HOUR_US, "checkpoints")) == 1, "of the stream that has none"
    assert checkpoints.save_due(desk.gov, HOUR_US, "checkpoints") == []
    pass_s(desk, 3600)
    desk.finish(desk.admitted(desk.submit()))
    (made,) = checkpoints.save_due(desk.gov, HOUR_US, "checkpoints")
    point = checkpoints.find_point(desk.gov, made)
    assert (point.stream, point.state, point.cycle, point.action_id) == ("default", {"n": 1}, 1, None)
    pass_s(desk, 2 * 3600)
    assert checkpoints.save_due(desk.gov, HOUR_US, "checkpoints") == [], "no window is open"
    notify.alert(desk.gov, "one", "scan.missed", {})
    in_force(desk.gov, "default", desk.gov.clock.now_us())
    assert checkpoints.save_due(desk.gov, HOUR_US, "checkpoints") == [], "the fleet's own stream, and one that rests"
    in_order(desk)


def test_two_checkpoints_are_compared_place_by_place(desk: Desk) -> None:
    run = desk.admitted(desk.submit(cost_micros=1000))
    before = save(desk, run, {"todo": ["a", "b"], "same": 1}, cycle=1)
    desk.finish(run, usage=Usage(400, 5))
    run = desk.admitted(desk.submit(cost_micros=1000))
    after = save(desk, run, {"todo": ["a"], "same": 1, "new": None}, cycle=2)
    found = {one.path: (one.before, one.after) for one in checkpoints.diff(desk.gov, before.id, after.id)}
    assert found["cycle"] == (1, 2)
    assert found["state.todo[1]"] == ("b", None)
    assert found["control.accounts.cost_micros.posted"] == (0, 400)
    assert not any(path.startswith("state.same") for path in found)
    assert checkpoints.diff(desk.gov, after.id, after.id) == []
    with pytest.raises(NotFound, match="acp checkpoints list"):
        checkpoints.diff(desk.gov, after.id, "nothing")


def test_differences_tell_a_number_from_a_truth() -> None:
    assert list(differences({"a": 1}, {"a": True})) == [Difference("a", 1, True)]
    assert list(differences([1, {"x": 2}], [1, {"x": 3}])) == [Difference("[1].x", 2, 3)]


def test_a_checkpoint_that_was_tampered_with_is_not_read(desk: Desk) -> None:
    point = save(desk, desk.admitted(desk.submit()), {"limit": 1})
    desk.gov.store.run("UPDATE checkpoints SET state = :state", {"state": '{"limit":9}'})
    with pytest.raises(StateConflict, match="not what was saved"):
        checkpoints.to_restore(desk.gov, point.id)


def test_of_two_checkpoints_of_one_instant_the_later_one_is_passed_over(desk: Desk) -> None:
    run = desk.admitted(desk.submit())
    first, second = save(desk, run, {"n": 1}), save(desk, run, {"n": 2})
    desk.finish(run)
    assert checkpoints.last_state(desk.gov, "default") == second
    pass_s(desk, 1)
    checkpoints.restore(desk.gov, first, reason="one step back", by=ANN)
    assert checkpoints.last_state(desk.gov, "default") == first


def test_a_restore_goes_on_to_the_end_and_cancels_what_is_deferred(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "_BATCH", 2)
    run = desk.admitted(desk.submit(stream="patient"))
    point = save(desk, run, {"n": 1})
    desk.finish(run)
    pass_s(desk, 1)
    deferred = [desk.submit(stream="patient") for _ in range(3)]
    for made in deferred:
        desk.arrive(made)
    parked = [desk.submit(stream="patient", risk=Risk.HIGH) for _ in range(2)]
    assert [desk.state(made) for made in (*deferred, *parked)] == ["deferred"] * 3 + ["parked"] * 2
    told = checkpoints.restore(desk.gov, point, reason="it went astray", by=ANN)
    assert sorted(told.cancelled) == sorted(made.action_id for made in (*deferred, *parked))
    assert desk.gov.store.read("SELECT count(*) FROM actions WHERE superseded_by IS NOT NULL", {})[0][0] == 5
    in_order(desk)


def test_a_restore_gives_the_state_back_and_undoes_nothing(desk: Desk) -> None:
    earlier = desk.submit()
    run = desk.admitted(desk.submit(cost_micros=3000))
    point = save(desk, run, {"n": 1}, cycle=1)
    desk.finish(run)
    pass_s(desk, 60)
    done = desk.submit(cost_micros=500)
    desk.finish(desk.admitted(done))
    waiting = [desk.submit(), desk.submit(risk=Risk.HIGH), desk.submit(stream="small")]
    running = desk.submit()
    other = desk.admitted(running)
    later = save(desk, other, {"n": 2}, cycle=2)
    assert checkpoints.running_since(desk.gov, point) == [running.action_id]
    desk.finish(other)
    assert checkpoints.running_since(desk.gov, point) == []
    before = desk.account("cost_micros")
    with pytest.raises(NotAllowed):
        checkpoints.restore(desk.gov, point, reason="it went astray", by=BOB)
    told = checkpoints.restore(desk.gov, point, reason="it went astray", by=ANN)
    assert sorted(told.cancelled) == sorted(made.action_id for made in waiting[:2])
    assert told.left == 2, "the finished ones"
    states = [desk.state(made) for made in (earlier, done, *waiting, running)]
    assert states == ["queued", "succeeded", "cancelled", "cancelled", "queued", "succeeded"]
    marked = {
        row[0] for row in desk.gov.store.read("SELECT id FROM actions WHERE superseded_by = :id", {"id": point.id})
    }
    assert marked == {done.action_id, running.action_id, *told.cancelled}
    restored = checkpoints.last_state(desk.gov, "default")
    assert restored is not None
    assert (restored.id, restored.state) == (point.id, {"n": 1})
    with pytest.raises(StateConflict, match="superseded"):
        checkpoints.to_restore(desk.gov, later.id)
    assert desk.account("cost_micros")["limit"] == before["limit"] - before["posted"], "what was spent stays spent"
    admitted = desk.admitted(earlier)
    assert admitted.ref.session_id == told.session_id
    audit.seal(desk.gov)
    (event,) = [one for one in audit.replay(desk.gov, told.session_id) if one.kind == "stream.restored"]
    payload = json.loads(event.payload)
    assert (payload["checkpoint"], payload["restored"], payload["cancelled"]) == (
        point.id,
        {"state": True, "cycle": 1},
        2,
    )
    assert set(payload["not_restored"]) == {"spent", "effects", "decisions"}
    pass_s(desk, 1)
    assert checkpoints.restore(desk.gov, point, reason="once more", by=ANN).cancelled == ()
    in_order(desk)
