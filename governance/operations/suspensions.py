"""Actions that wait for others: how far those are, and letting the waiting one go on."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from governance.core.actions import TERMINAL, State
from governance.core.changes import Author
from governance.core.endings import WAITS
from governance.core.transitions import released
from governance.errors import NotFound
from governance.operations.admit import outcome_of
from governance.operations.answers import Cancelled, Deferred, Denied, Ended, Parked
from governance.operations.context import Governance
from governance.store import actions
from governance.store.changes import apply


@dataclass(frozen=True, slots=True)
class UnderWay:
    """It is queued or runs."""

    action_id: str


@dataclass(frozen=True, slots=True)
class Doubtful:
    """Nobody knows whether it had its effect: a person says what became of it."""

    action_id: str
    reason: str


Reached: TypeAlias = Ended | Denied | Cancelled | Parked | Deferred | Doubtful | UnderWay


def reached(gov: Governance, action_id: str) -> Reached:
    """How far an action has come. Raises NotFound."""
    action = actions.find(gov.store, action_id)
    if action is None:
        raise NotFound("action", action_id, "acp actions list shows the latest ones")
    match action.ref.state:
        case state if state in TERMINAL:
            return outcome_of(action)
        case State.PARKED:
            ticket = action.ticket.id if action.ticket is not None else None
            return Parked(action_id, action.rule or "", action.reason or "", ticket)
        case State.DEFERRED:
            paused = action.switch_id is not None
            return Deferred(action_id, action.not_before_us or 0, action.reason or "", paused=paused)
        case State.IN_DOUBT:
            return Doubtful(action_id, action.error or "")
    return UnderWay(action_id)


def any_ended(gov: Governance, action_ids: Iterable[str]) -> bool:
    """Whether one of them waits for nothing any more."""
    return any(isinstance(reached(gov, one), Ended | Denied | Cancelled) for one in action_ids)


def go_on(gov: Governance, action_id: str, actor: str) -> bool:
    """Releases an action that waits for others: it looks by itself how far they are. False when it does not wait."""
    action = actions.find(gov.store, action_id)
    if action is None or (action.ref.state, action.rule, action.switch_id) != (State.DEFERRED, WAITS, None):
        return False
    return apply(gov.store, released(action.ref, Author(actor, gov.clock.now_us()), cause="awaited"))
