"""A pending request with its action, and whether this person may decide it now."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping

from governance.core.approvals import Chain, parse_chain, parse_votes
from governance.core.changes import Author
from governance.core.instants import iso
from governance.core.policy import Risk
from governance.core.principals import Principal
from governance.core.tickets import MoveTicket, TicketState
from governance.errors import InvalidOption, NotAllowed, NotFound, StateConflict
from governance.operations.context import Governance
from governance.store import actions, events, tickets
from governance.store.action_rows import ActionRow

_RISKY = (Risk.HIGH, Risk.CRITICAL)


@dataclass(frozen=True, slots=True)
class Asked:
    """A pending request with its action, and the person who decides."""

    ticket: RowMapping
    action: ActionRow
    chain: Chain
    by: Principal
    reason: str | None
    now_us: int

    def move(self, after: TicketState, **changed: Any) -> MoveTicket:
        ticket = self.ticket
        decided = after is not TicketState.PENDING
        return MoveTicket(
            ticket["id"],
            ticket["step"],
            TicketState.PENDING,
            after,
            self.now_us,
            self.by.actor if decided else None,
            self.reason if decided else None,
            **changed,
        )

    @property
    def author(self) -> Author:
        return Author(self.by.actor, self.now_us)


def find_asked(gov: Governance, ref: str, by: Principal, reason: str | None, wanted: str) -> Asked:
    """The request behind `ref`, if it is pending, in time, and `by` may decide it."""
    ticket = tickets.find(gov.store, ref)
    if ticket is None:
        raise NotFound("ticket", ref, "acp approvals list shows the open ones")
    now_us = gov.clock.now_us()
    if ticket["state"] == TicketState.EXPIRED:
        why = f"nobody answered until {iso(ticket['expires_us'])}, so it was denied; the caller can ask again"
        raise StateConflict("ticket", ticket["id"], "expired", wanted, why)
    if ticket["state"] != TicketState.PENDING:
        raise StateConflict("ticket", ticket["id"], ticket["state"], wanted, "a decision is made once")
    if ticket["expires_us"] <= now_us:
        raise StateConflict("ticket", ticket["id"], "overdue", wanted, "nobody answered in time, so it is denied")
    chain = parse_chain(ticket["chain"])
    roles = chain.roles_at(ticket["level"])
    if not by.may_approve(roles):
        needed = " or ".join(f"approver:{role}" for role in roles) or "approver"
        raise NotAllowed(by.name, f"decide ticket {ticket['id']}, which asks for {needed}", sorted(by.roles))
    own = _is_one_of(by.name, ticket["user"], ticket["agent_id"])
    if wanted != "denied" and own and not chain.requester_may_approve:
        what = {"approved": "approve", "extended": "extend"}[wanted]
        raise NotAllowed(by.name, f"{what} ticket {ticket['id']}, which they asked for themselves", sorted(by.roles))
    if wanted == "approved":
        _check_approver(ticket, chain, by, reason)
    action = actions.find(gov.store, ticket["action_id"])
    assert action is not None, "a ticket's action is never deleted while it is pending"
    return Asked(ticket, action, chain, by, reason, now_us)


def _check_approver(ticket: RowMapping, chain: Chain, by: Principal, reason: str | None) -> None:
    if any(vote.by == by.name for vote in parse_votes(ticket["votes"])):
        why = f"{chain.approvals} different people have to approve"
        raise StateConflict("ticket", ticket["id"], f"approved by {by.name} already", "approved again", why)
    if ticket["risk"] in _RISKY and not (reason and reason.strip()):
        raise InvalidOption("reason", reason, f"a sentence: a decision on {ticket['risk']} risk says why")


def check_seen(gov: Governance, one: Asked, seen: str | None) -> None:
    """Nobody approves arguments that were put in place of those they have looked at."""
    current = one.action.digest
    if seen is not None and not current.startswith(seen):
        why = "look again: acp approvals show prints the arguments and their digest"
        raise StateConflict("ticket", one.ticket["id"], f"about other arguments ({current[:12]})", "approved", why)
    if seen is None and events.was_edited(gov.store, one.action.ref.id, one.ticket["id"]):
        expected = f"how the digest begins that acp approvals show prints ({current[:12]}): the arguments were edited"
        raise InvalidOption("digest", None, expected)


def _is_one_of(name: str, *requesters: str | None) -> bool:
    """Whatever case it is written in: two people are not told apart by that."""
    return name.casefold() in {requester.casefold() for requester in requesters if requester}
