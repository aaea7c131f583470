"""The escalation sweep: an overdue request goes up its chain, level by level, and is denied by default at its end.

What a budget has parked is asked about until the budget resets: then nobody needs to answer, and the action goes on.

Two sweeps at once change nothing twice: every step is guarded by the ticket's. A late sweep takes the same steps as one
in time would have taken: the next level's time begins where the last one's ended, not when the sweep came.
"""

from dataclasses import dataclass, field

from governance.core.admit import waits_for_a_reset
from governance.core.approvals import parse_chain
from governance.core.changes import Author, Change
from governance.core.tickets import MoveTicket, TicketState
from governance.core.transitions import asked_on, denied
from governance.operations.charges import asked_anew
from governance.operations.context import Governance
from governance.store import tickets
from governance.store.changes import apply_each
from governance.store.tickets import Overdue

_BATCH = 500


@dataclass(slots=True)
class Escalated:
    """What a sweep did: how many went up a level, and the actions it denied and let go, to be published."""

    moved_up: int = 0
    denied: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)


def escalate_overdue(gov: Governance, actor: str) -> Escalated:
    """Batch after batch, to the end. Raises StoreUnavailable; what was done until then stays done."""
    swept = Escalated()
    while True:
        now_us = gov.clock.now_us()
        batch = tickets.overdue(gov.store, now_us, _BATCH)
        changes = [_step(gov, overdue, Author(actor, now_us)) for overdue in batch]
        applied = [change for change, done in zip(changes, apply_each(gov.store, changes), strict=True) if done]
        if not applied:
            return swept
        swept.denied += _of(applied, "action.denied")
        swept.released += _of(applied, "action.released")
        swept.moved_up += len(_of(applied, "ticket.escalated"))


def _of(applied: list[Change], kind: str) -> list[str]:
    return [change.expected.id for change in applied if change.event.kind == kind]


def _step(gov: Governance, overdue: Overdue, by: Author) -> Change:
    chain = parse_chain(overdue.chain)
    level = overdue.level + 1
    if level < len(chain.levels):
        due_us = min(overdue.due_us + chain.levels[level].within_us, overdue.expires_us)
        move = MoveTicket(
            overdue.id,
            overdue.step,
            TicketState.PENDING,
            TicketState.PENDING,
            by.at_us,
            level=level,
            due_us=due_us,
        )
        payload: dict[str, object] = {"level": level, "roles": list(chain.levels[level].roles), "due_us": due_us}
        return asked_on(overdue.ref, by, kind="ticket.escalated", ticket=move, payload=payload)
    if waits_for_a_reset(overdue.rule, overdue.chain):
        return asked_anew(gov, overdue.ref, by, cause="reset", ticket=_not_needed(overdue, by))
    reason = "nobody answered in time, so it is denied"
    move = MoveTicket(overdue.id, overdue.step, TicketState.PENDING, TicketState.EXPIRED, by.at_us, by.actor, reason)
    return denied(overdue.ref, by, rule=overdue.rule, reason=reason, ticket=move)


def _not_needed(overdue: Overdue, by: Author) -> MoveTicket:
    reason = "the budget has reset: nobody needs to raise it"
    return MoveTicket(overdue.id, overdue.step, TicketState.PENDING, TicketState.CANCELLED, by.at_us, by.actor, reason)
