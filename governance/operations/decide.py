"""A person's decisions: a ticket is approved or denied, overdue ones expire, an action in doubt is resolved.

A decision and an expiry that race have one winner: both move the ticket and the action from the same guarded state.
The caller publishes the action's message afterwards; the relay does it if the caller cannot.
"""

import json
from dataclasses import dataclass

from governance.core.actions import State
from governance.core.changes import Author, Change
from governance.core.digest import canonical_json, sha256, storable
from governance.core.tickets import MoveTicket, TicketState
from governance.core.transitions import denied, released, resolved
from governance.errors import CommandConflict, InvalidOption, NotFound, StateConflict
from governance.operations.context import Governance
from governance.store import actions, commands, tickets
from governance.store.actions import ActionRow
from governance.store.changes import apply, apply_in

_BATCH = 200
_RESOLUTIONS = {"succeeded": State.SUCCEEDED, "failed": State.FAILED, "retry": State.QUEUED}


@dataclass(frozen=True, slots=True)
class Decided:
    """What a decision led to; `repeated` when the same command_id had decided it before."""

    action_id: str
    state: State
    repeated: bool = False


def approve(gov: Governance, ref: str, *, by: str, reason: str | None, command_id: str | None) -> Decided:
    """Approves the pending ticket `ref` (its own id or its action's); the action is admitted anew, limits and all."""
    return _decide_ticket(gov, ref, TicketState.APPROVED, by, reason, command_id)


def deny(gov: Governance, ref: str, *, by: str, reason: str, command_id: str | None) -> Decided:
    """Denies the pending ticket `ref`; the reason reaches the caller of the action."""
    return _decide_ticket(gov, ref, TicketState.DENIED, by, reason, command_id)


def expire_overdue(gov: Governance, actor: str) -> list[str]:
    """Denies, by default, every action whose ticket nobody answered in time; the ids of those it denied."""
    expired: list[str] = []
    while True:
        now_us = gov.clock.now_us()
        batch = tickets.overdue(gov.store, now_us, _BATCH)
        moved = [action_id for ticket_id, action_id in batch if _expire(gov, ticket_id, action_id, actor, now_us)]
        expired += moved
        if not moved:
            return expired


def resolve(gov: Governance, action_id: str, *, outcome: str, by: str, reason: str, command_id: str | None) -> Decided:
    """Says what became of an action in doubt: `succeeded`, `failed`, or `retry`.

    Raises NotFound, StateConflict when it is not in doubt, InvalidOption, CommandConflict.
    """
    after = _RESOLUTIONS.get(outcome)
    if after is None:
        raise InvalidOption("as", outcome, "succeeded, failed or retry")
    _require_reason(reason)
    digest = sha256(canonical_json(["resolve", action_id, outcome, by, reason]))
    earlier = _earlier(gov, command_id, digest)
    if earlier is not None:
        return earlier
    action = _known(gov, action_id)
    if action.ref.state is not State.IN_DOUBT:
        raise StateConflict("action", action_id, action.ref.state, "resolved", "only an action in doubt is resolved")
    change = resolved(action.ref, Author(by, gov.clock.now_us()), after=after, reason=storable(reason))
    return _apply_command(gov, change, Decided(action_id, after), "resolve", command_id, digest)


def revoked(gov: Governance, action_id: str, actor: str) -> bool:
    """Celery threw its message away because somebody revoked it: what has not started is denied."""
    action = actions.find(gov.store, action_id)
    if action is None or action.ref.state not in (State.QUEUED, State.PARKED):
        return False
    now_us = gov.clock.now_us()
    reason = "it was revoked through Celery"
    ticket = action.ticket
    move = (
        MoveTicket(ticket.id, TicketState.PENDING, TicketState.DENIED, now_us, actor, reason)
        if ticket is not None and ticket.state is TicketState.PENDING
        else None
    )
    change = denied(action.ref, Author(actor, now_us), rule="revoked", reason=reason, ticket=move, delivered=True)
    return apply(gov.store, change)


def _decide_ticket(
    gov: Governance, ref: str, after: TicketState, by: str, reason: str | None, command_id: str | None
) -> Decided:
    if after is TicketState.DENIED:
        _require_reason(reason)
    ticket = tickets.find(gov.store, ref)
    if ticket is None:
        raise NotFound("ticket", ref, "acp approvals list shows the open ones")
    digest = sha256(canonical_json([after, ticket["id"], by, reason]))
    earlier = _earlier(gov, command_id, digest)
    if earlier is not None:
        return earlier
    now_us = gov.clock.now_us()
    if ticket["state"] != TicketState.PENDING:
        raise StateConflict("ticket", ticket["id"], ticket["state"], after, "a decision is made once")
    if ticket["expires_us"] <= now_us:
        raise StateConflict("ticket", ticket["id"], "overdue", after, "nobody answered in time, so it is denied")
    action = _known(gov, ticket["action_id"])
    reason = storable(reason) if reason else None
    move = MoveTicket(ticket["id"], TicketState.PENDING, after, now_us, by, reason)
    author = Author(by, now_us)
    if after is TicketState.APPROVED:
        change = released(action.ref, author, cause="approved", ticket=move)
    else:
        change = denied(action.ref, author, rule=ticket["rule"], reason=reason or "", ticket=move)
    return _apply_command(
        gov, change, Decided(action.ref.id, State(str(change.event.state))), after, command_id, digest
    )


def _apply_command(
    gov: Governance, change: Change, decided: Decided, kind: str, command_id: str | None, digest: str
) -> Decided:
    """The change and the claim of its command_id, together."""
    answer = canonical_json({"action_id": decided.action_id, "state": decided.state})
    try:
        with gov.store.transaction() as connection:
            if command_id is not None and not commands.claim(
                connection, command_id, kind, digest, answer, change.event.at_us
            ):
                raise _TakenError
            if not apply_in(connection, change):
                raise StateConflict(
                    "action",
                    decided.action_id,
                    "moving",
                    kind,
                    "somebody decided at the same moment: look again",
                )
    except _TakenError:
        earlier = _earlier(gov, command_id, digest)
        assert earlier is not None
        return earlier
    return decided


def _require_reason(reason: str | None) -> None:
    if reason is None or not reason.strip():
        raise InvalidOption("reason", reason, "a sentence for whoever asked for the action")


class _TakenError(Exception):
    """Another caller took the command_id between our look and our claim."""


def _earlier(gov: Governance, command_id: str | None, digest: str) -> Decided | None:
    if command_id is None:
        return None
    found = commands.find(gov.store, command_id)
    if found is None:
        return None
    kind, known_digest, answer = found
    if known_digest != digest:
        raise CommandConflict(command_id, f"a call of kind {kind}")
    first = json.loads(answer)
    return Decided(first["action_id"], State(first["state"]), repeated=True)


def _expire(gov: Governance, ticket_id: str, action_id: str, actor: str, now_us: int) -> bool:
    action = actions.find(gov.store, action_id)
    if action is None or action.ref.state is not State.PARKED:
        return False
    reason = "nobody answered in time, so it is denied"
    move = MoveTicket(ticket_id, TicketState.PENDING, TicketState.EXPIRED, now_us, actor, reason)
    return apply(
        gov.store,
        denied(action.ref, Author(actor, now_us), rule=action.rule or "approval", reason=reason, ticket=move),
    )


def _known(gov: Governance, action_id: str) -> ActionRow:
    action = actions.find(gov.store, action_id)
    if action is None:
        raise NotFound("action", action_id, "acp actions list shows what there is")
    return action
