"""What became of an action in doubt, as a person says; and what Celery threw away because somebody revoked it."""

from governance.core.actions import State
from governance.core.changes import Author
from governance.core.digest import storable
from governance.core.endings import resolved
from governance.core.principals import Principal
from governance.core.tickets import MoveTicket, TicketState
from governance.core.transitions import denied
from governance.errors import InvalidOption, NotFound, StateConflict
from governance.operations.commanded import Decided, commanded, earlier, fingerprint
from governance.operations.context import Governance
from governance.operations.principals import require
from governance.store import actions
from governance.store.changes import apply

_RESOLUTIONS = {"succeeded": State.SUCCEEDED, "failed": State.FAILED, "retry": State.QUEUED}


def resolve(
    gov: Governance, action_id: str, *, outcome: str, by: Principal, reason: str, command_id: str | None
) -> Decided:
    """Says what became of an action in doubt: `succeeded`, `failed`, or `retry`.

    Raises NotFound, StateConflict when it is not in doubt, InvalidOption, NotAllowed, CommandConflict.
    """
    require(by, "operator")
    after = _RESOLUTIONS.get(outcome)
    if after is None:
        raise InvalidOption("as", outcome, "succeeded, failed or retry")
    if not reason.strip():
        raise InvalidOption("reason", reason, "a sentence: how it was found out")
    digest = fingerprint("resolve", action_id, outcome, by.name, reason)
    before = earlier(gov, command_id, digest)
    if before is not None:
        return before[0]
    action = actions.find(gov.store, action_id)
    if action is None:
        raise NotFound("action", action_id, "acp actions list shows what there is")
    if action.ref.state is not State.IN_DOUBT:
        raise StateConflict("action", action_id, action.ref.state, "resolved", "only an action in doubt is resolved")
    change = resolved(action.ref, Author(by.actor, gov.clock.now_us()), after=after, reason=storable(reason))
    return commanded(gov, [change], [Decided(action_id, after)], "resolve", command_id, digest)[0]


def revoked(gov: Governance, action_id: str, actor: str) -> bool:
    """Celery threw its message away because somebody revoked it: what has not started is denied."""
    action = actions.find(gov.store, action_id)
    if action is None or action.ref.state not in (State.QUEUED, State.PARKED):
        return False
    now_us = gov.clock.now_us()
    reason = "it was revoked through Celery"
    ticket = action.ticket
    move = (
        MoveTicket(ticket.id, ticket.step, TicketState.PENDING, TicketState.DENIED, now_us, actor, reason)
        if ticket is not None and ticket.state is TicketState.PENDING
        else None
    )
    change = denied(action.ref, Author(actor, now_us), rule="revoked", reason=reason, ticket=move, delivered=True)
    return apply(gov.store, change)
