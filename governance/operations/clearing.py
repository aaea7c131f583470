"""Clearing up after a switch: what waits is cancelled, what was paused goes on, and the switch itself is released."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from sqlalchemy import RowMapping

from governance.core.actions import TERMINAL, State
from governance.core.changes import Author, Change
from governance.core.endings import cancelled
from governance.core.principals import Principal
from governance.core.switches import Mode, Scope, Switch
from governance.core.tickets import MoveTicket, TicketState
from governance.core.transitions import released
from governance.errors import InvalidOption, NotFound, StateConflict
from governance.operations.context import Governance
from governance.operations.principals import require
from governance.operations.switches import board_now, read_switch, subject_of, switch_event, with_more
from governance.store import actions, events, sweeps, switches
from governance.store.action_rows import ActionRow
from governance.store.changes import apply, apply_each

_BATCH: Final = 500
_WAITING: Final = (State.QUEUED, State.PARKED, State.DEFERRED)


def release(gov: Governance, switch_id: str, *, reason: str, by: Principal) -> list[str]:
    """Lets work in scope start again; the ids of what was paused and is queued now, to be published.

    What was cancelled stays cancelled. Raises NotFound, StateConflict, InvalidOption, NotAllowed.
    """
    require(by, "operator")
    if not reason.strip():
        raise InvalidOption("reason", reason, "a sentence for the trail: why it is safe again")
    found = switches.find(gov.store, switch_id)
    if found is None:
        raise NotFound("switch", switch_id, "acp status shows the engaged ones")
    if found["released_us"] is None:
        # What was killed and waits again must not be the first to run.
        cancel_waiting(gov, read_switch(found), by.actor)
    if not _release(gov, found, by.actor, reason):
        raise StateConflict("switch", switch_id, "released", "released again", "acp status --all shows by whom")
    return resume(gov, by.actor)


def cancel_waiting(gov: Governance, switch: Switch, actor: str) -> list[str]:
    """Cancels everything in scope that waits (queued, parked, deferred), while the switch is engaged; the ids.

    Whatever is submitted after its release was never in its scope, so each cancellation is written at the epoch at
    which the switch was seen to be engaged, or not at all.
    """
    if switch.mode is not Mode.KILL:
        return []
    where, values = switches.in_scope(gov.store, switch)
    done: list[str] = []
    after = (0, "")
    while True:
        board = board_now(gov)
        if all(one.id != switch.id for one in board.engaged):
            break
        page = sweeps.waiting_where(gov.store, where, values, after=after, limit=_BATCH)
        if not page:
            break
        covered = [action for action in page if switch.covers(subject_of(action))]
        moved = cancel_each(gov, covered, rule=switch.rule, reason=switch.reason, actor=actor, epoch=board.epoch)
        done += moved
        if len(moved) == len(covered) or board_now(gov).epoch == board.epoch:
            # What was not cancelled has moved on by itself.
            after = (page[-1].created_us, page[-1].ref.id)
    return done


def trail_position(gov: Governance) -> int:
    """Where the trail has come to: what is written from here on is written after it."""
    return events.position(gov.store)


def cancelled_since(gov: Governance, switch: Switch, position: int) -> set[str]:
    """The actions that the switch has cancelled since then, waiting or running, by this process and by every other."""
    return events.cancelled_after(gov.store, position, switch.rule)


def cancel_each(
    gov: Governance, waiting: Iterable[ActionRow], *, rule: str, reason: str, actor: str, epoch: int | None = None
) -> list[str]:
    """Cancels actions that have not started, with their open tickets; the ids of those that had not moved on.

    With an epoch only while it is that one.
    """
    return _each(gov, waiting, lambda action: _cancellation(gov, action, rule, reason, actor, epoch))


def withdraw(gov: Governance, action_id: str, reason: str) -> None:
    """Ends an action whose message nobody can publish; its producer, who calls this, has told its caller."""
    action = actions.find(gov.store, action_id)
    if action is None or action.direct:
        return
    if action.ref.state in _WAITING:
        change = _cancellation(gov, action, "not-publishable", reason, "producer", None, delivered=True)
        apply(gov.store, change)
    elif action.ref.state in TERMINAL:
        actions.delivered(gov.store, action_id, gov.clock.now_us())


def resume(gov: Governance, actor: str) -> list[str]:
    """Queues what waits for the end of a pause that is over; the ids, to be published."""
    done: list[str] = []
    while page := sweeps.paused_by_released(gov.store, _BATCH):
        moved = _each(
            gov, page, lambda action: released(action.ref, Author(actor, gov.clock.now_us()), cause="resumed")
        )
        done += moved
        if not moved:
            break
    return done


def sweep(gov: Governance, actor: str) -> tuple[int, list[str]]:
    """What an engagement or a release that was cut short left to do, and what came into scope since.

    A switch on a session that is closed has nothing left to stop, and is released.

    Returns how many were cancelled, and the ids that were resumed, to be published.
    """
    for row in switches.of_closed_sessions(gov.store, _BATCH):
        _release(gov, row, actor, "its session is closed", closed=True)
    kills = [switch for switch in board_now(gov).engaged if switch.mode is Mode.KILL]
    cancelled_count = sum(len(cancel_waiting(gov, switch, actor)) for switch in kills)
    return cancelled_count, resume(gov, actor)


def _release(gov: Governance, row: RowMapping, actor: str, reason: str, *, closed: bool = False) -> bool:
    now_us = gov.clock.now_us()
    event = switch_event(gov, "switch.released", actor, now_us, Scope(row["scope"]), row["scope_id"], closed=closed)
    event = with_more(event, switch=row["id"], mode=row["mode"], reason=reason)
    return switches.release(gov.store, row["id"], by=actor, reason=reason, at_us=now_us, event=event)


def _each(gov: Governance, found: Iterable[ActionRow], change: Callable[[ActionRow], Change]) -> list[str]:
    changes = [change(action) for action in found]
    return [made.expected.id for made, applied in zip(changes, apply_each(gov.store, changes), strict=True) if applied]


def _cancellation(
    gov: Governance,
    action: ActionRow,
    rule: str,
    reason: str,
    actor: str,
    epoch: int | None,
    *,
    delivered: bool = False,
) -> Change:
    now_us = gov.clock.now_us()
    ticket = action.ticket
    due = action.not_before_us is None or action.not_before_us <= now_us
    move = (
        MoveTicket(
            ticket.id,
            ticket.step,
            TicketState.PENDING,
            TicketState.CANCELLED,
            now_us,
            actor,
            f"cancelled: {rule}",
        )
        if ticket is not None and ticket.state is TicketState.PENDING
        else None
    )
    by = Author(actor, now_us)
    made = cancelled(action.ref, by, rule=rule, reason=reason, ticket=move, due=due, delivered=delivered)
    return replace(made, epoch=epoch)
