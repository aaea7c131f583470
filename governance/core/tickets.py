"""Tickets: one approval request for one action, bound to the digest of its exact arguments, consumed once.

pending ──► approved ──► consumed
   └──► denied | expired
"""

from dataclasses import dataclass
from enum import StrEnum


class TicketState(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    CONSUMED = "consumed"
    DENIED = "denied"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket as the admission gate sees it."""

    id: str
    state: TicketState
    digest: str
    rule: str


@dataclass(frozen=True, slots=True)
class OpenTicket:
    """The ticket that parking an action opens."""

    id: str
    action_id: str
    digest: str
    rule: str
    reason: str
    requested_us: int
    expires_us: int


@dataclass(frozen=True, slots=True)
class MoveTicket:
    """A ticket's step from `before` to `after`; the decision's fields are None for a consumption."""

    id: str
    before: TicketState
    after: TicketState
    at_us: int
    decided_by: str | None = None
    decision_reason: str | None = None
