"""Tickets: one approval request for one action, bound to the digest of its exact arguments, consumed once.

pending ──► approved ──► consumed
   └──► denied | expired | cancelled

A ticket's `step` counts what happened to it, its request included; every change expects the step it was decided at.
"""

from dataclasses import dataclass
from enum import StrEnum

from governance.core.approvals import Chain


class TicketState(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    CONSUMED = "consumed"
    DENIED = "denied"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket as the admission gate sees it. What an approval is bound to: digest, rule, policy and chain."""

    id: str
    state: TicketState
    digest: str
    rule: str
    policy_hash: str
    chain_hash: str
    step: int


@dataclass(frozen=True, slots=True)
class OpenTicket:
    """The ticket that parking an action opens, at the first level of its chain."""

    id: str
    action_id: str
    digest: str
    rule: str
    reason: str
    policy_hash: str
    chain: Chain
    requested_us: int

    @property
    def due_us(self) -> int:
        return self.requested_us + self.chain.levels[0].within_us

    @property
    def expires_us(self) -> int:
        return self.requested_us + self.chain.timeout_us


@dataclass(frozen=True, slots=True)
class MoveTicket:
    """A ticket's next step, from `before` to `after` (the same for an escalation, a vote or an extension).

    The decision's fields are None where nothing is decided, and the others None where they stay as they are.
    """

    id: str
    step: int
    before: TicketState
    after: TicketState
    at_us: int
    decided_by: str | None = None
    decision_reason: str | None = None
    digest: str | None = None
    level: int | None = None
    due_us: int | None = None
    expires_us: int | None = None
    votes: str | None = None
