"""Checkpoints: saved by an agent in its run or by the clock, compared, and what a restore of one writes down.

A restore gives an agent its state back and opens a new session. It undoes nothing: what was spent stays spent, what was
done stays done, decisions and switches stand.
"""

import json
from dataclasses import dataclass, fields
from typing import Any, Final

from sqlalchemy import RowMapping

from governance.core.actions import State
from governance.core.changes import ActionRef
from governance.core.checkpoints import Checkpoint, Difference, differences
from governance.core.digest import canonical_json
from governance.core.events import Event
from governance.core.principals import Principal
from governance.errors import AttemptFenced, InvalidOption, NotFound, StateConflict
from governance.operations.clearing import cancel_each
from governance.operations.context import CONTROL_STREAM, Governance
from governance.operations.rotation import turn
from governance.operations.sessions import in_force
from governance.store import actions, checkpoints, events, rotation
from governance.store.events import append_in

#: Of an agent's state, as JSON.
STATE_BYTES_MAX: Final = 256 * 1024
RULE: Final = "restore"
_TICKETS_MAX: Final = 1000
_BATCH: Final = 200


@dataclass(frozen=True, slots=True)
class SavedPoint:
    """A checkpoint as people and agents see it. `state` is what the agent saved, None when it never has."""

    id: str
    stream: str
    session_id: str
    made_us: int
    made_by: str
    action_id: str | None
    cycle: int | None
    event_id: int
    control: dict[str, Any]
    state: Any
    digest: str
    superseded_us: int | None
    superseded_by: str | None


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did: the new session, and how many later actions were cancelled, and left as they had ended."""

    checkpoint_id: str
    session_id: str
    cancelled: tuple[str, ...]
    left: int


def save(gov: Governance, ref: ActionRef, stream: str, state: object, *, cycle: int | None, actor: str) -> str:
    """Saves an agent's state; the checkpoint's id.

    Raises InvalidOption for what is no JSON or too large, AttemptFenced when the attempt has lost its action.
    """
    if cycle is not None and (type(cycle) is not int or cycle < 0):
        raise InvalidOption("cycle", cycle, "a number from 0")
    made = _made(gov, stream, ref.session_id, actor, ref.id, cycle, _state_text(state))
    if not checkpoints.save(gov.store, made, _event(made, ref.attempt), attempt=ref.attempt):
        raise AttemptFenced(ref.id, ref.attempt)
    return made.id


def save_progress(gov: Governance, ref: ActionRef, state: object, *, actor: str) -> None:
    """Saves how far an action has come, for its next attempt; in place of what it saved before. Raises as `save`."""
    made = _made(gov, _progress_of(ref.id), ref.session_id, actor, ref.id, None, _state_text(state))
    if not checkpoints.save(gov.store, made, _event(made, ref.attempt), attempt=ref.attempt, alone=True):
        raise AttemptFenced(ref.id, ref.attempt)


def progress(gov: Governance, action_id: str) -> Any:
    """What the last `save_progress` of an action saved, None when it never did. Raises StateConflict."""
    point = last_state(gov, _progress_of(action_id))
    return point.state if point is not None else None


def last_state(gov: Governance, stream: str) -> SavedPoint | None:
    """The latest checkpoint of a stream that holds an agent's state and that no restore has passed over."""
    row = checkpoints.last(gov.store, stream, with_state=True)
    return _point(row) if row is not None else None


def save_due(gov: Governance, every_us: int, actor: str) -> list[str]:
    """A checkpoint of every open stream in which something happened since its last one, `every_us` ago; their ids.

    It holds the agent's state of the last one.
    """
    now_us = gov.clock.now_us()
    saved = []
    for stream, session_id in checkpoints.open_streams(gov.store, now_us):
        before = checkpoints.last(gov.store, stream)
        if stream == CONTROL_STREAM or (before is not None and now_us - before["made_us"] < every_us):
            continue
        if not rotation.was_used(gov.store, session_id):
            continue
        state, cycle = (before["state"], before["cycle"]) if before is not None else (None, None)
        made = _made(gov, stream, session_id, actor, None, cycle, state)
        checkpoints.save(gov.store, made, _event(made, None), attempt=None)
        saved.append(made.id)
    return saved


def list_points(gov: Governance, *, stream: str | None, limit: int) -> list[SavedPoint]:
    """The latest first."""
    return [_point(row) for row in checkpoints.listing(gov.store, stream=stream, limit=limit)]


def find_point(gov: Governance, checkpoint_id: str) -> SavedPoint:
    """Raises NotFound, and StateConflict for one that is not what was saved."""
    row = checkpoints.find(gov.store, checkpoint_id)
    if row is None:
        raise NotFound("checkpoint", checkpoint_id, "acp checkpoints list shows the latest ones")
    return _point(row)


def diff(gov: Governance, before_id: str, after_id: str) -> list[Difference]:
    """In which places two checkpoints differ. Raises NotFound, StateConflict."""
    before, after = (find_point(gov, one) for one in (before_id, after_id))
    compared = ("cycle", "event_id", "control", "state")
    return [
        difference for name in compared for difference in differences(getattr(before, name), getattr(after, name), name)
    ]


def to_restore(gov: Governance, checkpoint_id: str) -> SavedPoint:
    """The checkpoint, if a restore of it makes sense. Raises NotFound, StateConflict."""
    point = find_point(gov, checkpoint_id)
    if point.superseded_by is not None:
        why = f"its stream was restored from {point.superseded_by}, from before it"
        raise StateConflict("checkpoint", point.id, "superseded", "restored", why)
    return point


def running_since(gov: Governance, point: SavedPoint) -> list[str]:
    """Actions of its stream that began after the checkpoint and run now: they are to be stopped first."""
    return checkpoints.later_actions(gov.store, point.stream, point.made_us, State.RUNNING)


def restore(gov: Governance, point: SavedPoint, *, reason: str, by: Principal) -> Restored:
    """Cancels what waits of what came after `point`, marks all of it, and opens a new session that says so.

    While its stream is paused and nothing of it runs that came after. Raises NotAllowed, InvalidOption, StateConflict.
    """
    in_force(gov, point.stream, gov.clock.now_us())
    session = turn(gov, point.stream, reason=f"restored from checkpoint {point.id}: {reason}", by=by)
    ended: list[str] = []
    for state in (State.QUEUED, State.PARKED, State.DEFERRED):
        ended += _cancel(gov, point, state, by)
    now_us = gov.clock.now_us()
    left = 0
    while True:
        with gov.store.transaction() as connection:
            marked = checkpoints.supersede_in(
                connection, point.stream, since_us=point.made_us, by=point.id, at_us=now_us, limit=_BATCH
            )
        left += len(marked)
        if len(marked) < _BATCH:
            break
    told = Restored(point.id, session.id, tuple(ended), left - len(ended))
    with gov.store.transaction() as connection:
        append_in(connection, _restored(point, told, reason, by, now_us))
    return told


def _progress_of(action_id: str) -> str:
    """The stream that an action's own checkpoints stand in, apart from the restore points of its real one."""
    return f"run:{action_id}"


def _state_text(state: object) -> str:
    try:
        text = canonical_json(state)
    except (TypeError, ValueError) as problem:
        raise InvalidOption("state", type(state).__name__, f"JSON ({problem})") from None
    if len(text.encode()) > STATE_BYTES_MAX:
        raise InvalidOption("state", f"{len(text.encode())} bytes", f"at most {STATE_BYTES_MAX} bytes of JSON")
    return text


def _cancel(gov: Governance, point: SavedPoint, state: State, by: Principal) -> list[str]:
    later = checkpoints.later_actions(gov.store, point.stream, point.made_us, state)
    reason = f"it came after checkpoint {point.id}, which its stream was restored from"
    done: list[str] = []
    for first in range(0, len(later), _BATCH):
        found = (actions.find(gov.store, one) for one in later[first : first + _BATCH])
        waiting = [action for action in found if action is not None and action.ref.state is state]
        done += cancel_each(gov, waiting, rule=RULE, reason=reason, actor=by.actor)
    return done


def _restored(point: SavedPoint, told: Restored, reason: str, by: Principal, now_us: int) -> Event:
    payload = {
        "checkpoint": point.id,
        "digest": point.digest,
        "after_event": point.event_id,
        "reason": reason,
        "restored": {"state": point.state is not None, "cycle": point.cycle},
        "not_restored": {
            "spent": "what was posted and held counts on",
            "effects": f"{told.left} later actions stay as they ended",
            "decisions": "tickets, grants and switches stand as they are",
        },
        "cancelled": len(told.cancelled),
    }
    return Event(told.session_id, "stream.restored", by.actor, now_us, payload=payload)


def _made(
    gov: Governance,
    stream: str,
    session_id: str,
    actor: str,
    action_id: str | None,
    cycle: int | None,
    state: str | None,
) -> Checkpoint:
    return Checkpoint(
        id=gov.new_id(),
        stream=stream,
        session_id=session_id,
        made_us=gov.clock.now_us(),
        made_by=actor,
        action_id=action_id,
        cycle=cycle,
        event_id=events.position(gov.store),
        control=canonical_json(checkpoints.control(gov.store, stream, session_id, _TICKETS_MAX)),
        state=state,
    )


def _event(made: Checkpoint, attempt: int | None) -> Event:
    payload = {"checkpoint": made.id, "digest": made.digest, "after_event": made.event_id, "cycle": made.cycle}
    return Event(
        session_id=made.session_id,
        kind="checkpoint.saved",
        actor=made.made_by,
        at_us=made.made_us,
        action_id=made.action_id,
        attempt=attempt,
        payload=payload,
    )


def _point(row: RowMapping) -> SavedPoint:
    saved = Checkpoint(**{field.name: row[field.name] for field in fields(Checkpoint)})
    if saved.digest != row["digest"]:
        raise StateConflict("checkpoint", saved.id, "not what was saved", "read", "its digest says otherwise")
    plain = {field.name: row[field.name] for field in fields(SavedPoint) if field.name not in ("control", "state")}
    state = None if saved.state is None else json.loads(saved.state)
    return SavedPoint(**plain, control=json.loads(saved.control), state=state)
