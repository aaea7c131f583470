"""Rotation: the next window is open before one ends, and one that is over is emptied, closed and summed up.

Whoever needs a window that nobody has opened opens it (`operations.sessions`), with the same bounds and name: beat only
saves them the trouble, and may be late, doubled or away. A stream in whose session nothing happened rests; its next
action opens its next window.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import RowMapping

from governance.core.actions import State
from governance.core.changes import Author
from governance.core.events import Event
from governance.core.ledger import Unit
from governance.core.plans import Limits
from governance.core.principals import Principal
from governance.core.sessions import Session, accounts, opening, session_id
from governance.core.switches import Scope
from governance.core.transitions import carried
from governance.core.windows import Window, window_at
from governance.errors import InvalidOption, NotFound, StateConflict
from governance.operations.charges import end_raises
from governance.operations.context import Governance
from governance.operations.drills import drill_policy
from governance.operations.principals import require
from governance.operations.recover import overstayed
from governance.operations.sessions import in_force, open_at, pinned_policy
from governance.operations.switches import board_now
from governance.store import rotation, sweeps
from governance.store import sessions as store_sessions
from governance.store.changes import apply_each

# A few ticks of beat: the next window is there before anybody needs it.
_AHEAD_S: Final = 15.0
# What was on its way when a window ended has been written down by then.
_LATE_S: Final = 5.0
# Longer than a process may hold on to a session that was turned early.
_STRAGGLERS_S: Final = 24 * 3600.0
_PAGE: Final = 100
_BATCH: Final = 200


@dataclass(slots=True)
class Rotated:
    """What one pass did: sessions opened ahead, actions carried over, attempts given up by state, sessions closed."""

    opened: list[str] = field(default_factory=list)
    carried: int = 0
    overstayed: Counter[str] = field(default_factory=Counter)
    closed: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SessionLine:
    """A session as people see it; `state` is ahead, open, closing (its window is over) or closed."""

    id: str
    stream: str
    state: str
    window_start_us: int
    window_end_us: int
    policy_hash: str
    opened_us: int
    closed_us: int | None
    summary: dict[str, Any] | None


def rotate(gov: Governance, actor: str) -> Rotated:
    """One pass over every session that is over or ends soon, in bounded batches, to the end."""
    done = Rotated()
    end_raises(gov, actor)
    now_us = gov.clock.now_us()
    for session in rotation.stragglers(gov.store, now_us - gov.clock.span_us(_STRAGGLERS_S), _PAGE):
        done.carried += _carry(gov, session, actor)
    after = ""
    while page := rotation.ending(gov.store, now_us + gov.clock.span_us(_AHEAD_S), _PAGE, after):
        for session in page:
            _follow(gov, session, now_us, done)
            if session.window.end_us <= now_us:
                _empty(gov, session, now_us, actor, done)
        after = page[-1].id
    return done


def turn(gov: Governance, stream: str, *, reason: str, by: Principal) -> Session:
    """Ends the session in force now and opens the next one with the policy of this process; returns that.

    What the aligned window has used counts: a turn gives no fresh budget.
    Raises NotAllowed, InvalidOption, NotFound, StateConflict.
    """
    require(by, "operator")
    if not reason.strip():
        raise InvalidOption("reason", reason, "a sentence for the trail: why the window ends early")
    now_us = gov.clock.now_us()
    session = store_sessions.at(gov.store, stream, now_us)
    if session is None:
        raise NotFound("open session of stream", stream, "acp sessions list shows the sessions there are")
    plan = gov.policy.plan_for(stream)
    aligned = window_at(plan.window, now_us)
    end_us = min(aligned.end_us, store_sessions.next_start(gov.store, stream, now_us) or aligned.end_us)
    following = Session("", stream, Window(now_us, end_us), gov.policy.hash)
    following = Session(session_id(stream, following.window), stream, following.window, gov.policy.hash)
    limits = _what_is_left(plan.limits, rotation.used(gov.store, stream, aligned.start_us))
    store_sessions.keep_policy(gov.store, gov.policy, gov.policy_source, now_us)
    told = {"reason": reason, "policy": gov.policy.hash}
    turned = rotation.turn(
        gov.store,
        session,
        following,
        accounts=accounts(following, limits, plan.stripes),
        turned=Event(session.id, "session.turned", by.actor, now_us, payload={**told, "into": following.id}),
        opened=opening(following, limits, actor=by.actor, at_us=now_us, turned_from=session.id, reason=reason),
    )
    if not turned:
        raise StateConflict("session", session.id, "over or turned by somebody else", "turned", "look again")
    gov.sessions.clear()
    return following


def list_sessions(gov: Governance, *, stream: str | None, limit: int) -> list[SessionLine]:
    """The latest sessions first, whatever their state."""
    now_us = gov.clock.now_us()
    return [_line(row, now_us) for row in rotation.listing(gov.store, stream=stream, limit=limit)]


def find_session(gov: Governance, session: str) -> SessionLine:
    """Raises NotFound."""
    row = rotation.find(gov.store, session)
    if row is None:
        raise NotFound("session", session, "acp sessions list shows the latest ones")
    return _line(row, gov.clock.now_us())


def _line(row: RowMapping, now_us: int) -> SessionLine:
    if row["closed_us"] is not None:
        state = "closed"
    elif row["window_end_us"] <= now_us:
        state = "closing"
    else:
        state = "open" if row["window_start_us"] <= now_us else "ahead"
    return SessionLine(
        id=row["id"],
        stream=row["stream"],
        state=state,
        window_start_us=row["window_start_us"],
        window_end_us=row["window_end_us"],
        policy_hash=row["policy_hash"],
        opened_us=row["opened_us"],
        closed_us=row["closed_us"],
        summary=json.loads(row["summary"]) if row["summary"] is not None else None,
    )


def _follow(gov: Governance, session: Session, now_us: int, done: Rotated) -> None:
    """Opens the window after one that was used, unless somebody has."""
    if _is_drill(session):
        return
    if not rotation.begins(gov.store, session.stream, session.window.end_us) and rotation.was_used(
        gov.store, session.id
    ):
        done.opened.append(open_at(gov, session.stream, session.window.end_us, now_us).id)


def _empty(gov: Governance, session: Session, now_us: int, actor: str, done: Rotated) -> None:
    """Carries over what waits, gives up what runs for too long, and closes it once nothing is left."""
    done.carried += _carry(gov, session, actor)
    grace_us = pinned_policy(gov, session.policy_hash).plan_for(session.stream).grace_us
    if grace_us is None:
        grace_us = gov.clock.span_us(gov.limits.time_limit_s)
    if now_us - session.window.end_us > grace_us:
        done.overstayed.update(overstayed(gov, session.id, actor))
        done.carried += _carry(gov, session, actor)
    if now_us - session.window.end_us < gov.clock.span_us(_LATE_S):
        return
    if rotation.close(gov.store, session, actor=actor, at_us=now_us) is not None:
        done.closed.append(session.id)


def _carry(gov: Governance, session: Session, actor: str) -> int:
    """Moves what waits in `session` to the one in force now; how many.

    What a switch on this very session holds up stays with it: it would escape the switch.
    """
    if _is_drill(session):
        return 0
    moved = 0
    after = ""
    while page := sweeps.open_in(gov.store, session.id, after=after, limit=_BATCH):
        after = page[-1].ref.id
        board = board_now(gov)
        if any(switch.scope is Scope.SESSION and switch.scope_id == session.id for switch in board.engaged):
            page = [action for action in page if action.ref.state is State.IN_DOUBT]
        now_us = gov.clock.now_us()
        into = in_force(gov, session.stream, now_us).session.id
        if into == session.id or not page:
            continue
        by = Author(actor, now_us)
        moved += sum(apply_each(gov.store, [carried(action.ref, by, into=into, epoch=board.epoch) for action in page]))
    return moved


def _is_drill(session: Session) -> bool:
    """Drills clear up after themselves, and nothing follows them."""
    return session.policy_hash == drill_policy()[0].hash


def _what_is_left(limits: Limits, used: dict[str, int]) -> Limits:
    def left(limit: int | None, unit: Unit) -> int | None:
        return None if limit is None else max(0, limit - used.get(unit, 0))

    return Limits(
        left(limits.cost_micros, Unit.COST), left(limits.actions, Unit.ACTIONS), left(limits.tokens, Unit.TOKENS)
    )
