"""One row of an action with its ticket, and the columns that it is read by."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from governance.core.actions import State
from governance.core.changes import ActionRef
from governance.core.identity import Identity, claimed_of, parse_filled
from governance.core.signing import Signable
from governance.core.tickets import Ticket, TicketState


@dataclass(frozen=True, slots=True)
class ActionRow:
    """An action as admission reads it."""

    ref: ActionRef
    command_id: str
    name: str
    digest: str
    stream: str
    idempotent: bool
    direct: bool
    risk: str
    resource: str | None
    model: str | None
    agent_id: str | None
    user: str | None
    team: str | None
    org: str | None
    filled: str | None
    signature: str | None
    cost_micros: int
    tokens: int
    correlation_id: str
    message: str
    rule: str | None
    reason: str | None
    guidance: str | None
    suggest: str | None
    result: str | None
    error_type: str | None
    error: str | None
    not_before_us: int | None
    expires_us: int | None
    lease_worker: str | None
    lease_child: str | None
    created_us: int
    started_us: int | None
    published_us: int | None
    publish_count: int
    delivered_us: int | None
    grant_id: str | None
    switch_id: str | None
    ticket: Ticket | None

    @property
    def identity(self) -> Identity:
        return Identity(self.user, self.team, self.org)

    @property
    def signable(self) -> Signable:
        return Signable(
            action_id=self.ref.id,
            command_id=self.command_id,
            name=self.name,
            stream=self.stream,
            agent_id=self.agent_id,
            claimed=self.claimed,
            risk=self.risk,
            idempotent=self.idempotent,
            direct=self.direct,
            model=self.model,
            cost_micros=self.cost_micros,
            tokens=self.tokens,
            correlation_id=self.correlation_id,
            digest=self.digest,
            resource=self.resource,
            message=self.message,
        )

    @property
    def claimed(self) -> Identity:
        """What of it the caller said."""
        return claimed_of(self.identity, parse_filled(self.filled))


_ACTION = (
    "id",
    "session_id",
    "state",
    "attempt",
    "command_id",
    "name",
    "digest",
    "stream",
    "idempotent",
    "direct",
    "risk",
    "resource",
    "model",
    "agent_id",
    "user",
    "team",
    "org",
    "filled",
    "signature",
    "cost_micros",
    "tokens",
    "correlation_id",
    "message",
    "rule",
    "reason",
    "guidance",
    "suggest",
    "result",
    "error_type",
    "error",
    "not_before_us",
    "expires_us",
    "lease_worker",
    "lease_child",
    "created_us",
    "started_us",
    "published_us",
    "publish_count",
    "delivered_us",
    "grant_id",
    "switch_id",
)
_TICKET = ("id", "state", "digest", "rule", "policy_hash", "chain_hash", "step")
#: Of an action `a` and its ticket `t`, and where they are from.
COLUMNS = ", ".join([f'a."{column}"' for column in _ACTION] + [f"t.{column}" for column in _TICKET])
FROM = "FROM actions a LEFT JOIN tickets t ON t.id = a.ticket_id"
_WIDTH = len(_ACTION) + len(_TICKET)


def row_of(row: Sequence[Any]) -> ActionRow:
    """From the columns of `COLUMNS`, in their order; what follows them is the caller's."""
    id_, session_id, state, attempt, *columns = row[: len(_ACTION)]
    ticket_id, ticket_state, *ticket = row[len(_ACTION) : _WIDTH]
    named = dict(zip(_ACTION[4:], columns, strict=True))
    named |= {"idempotent": bool(named["idempotent"]), "direct": bool(named["direct"])}
    return ActionRow(
        ref=ActionRef(id_, session_id, State(state), attempt),
        ticket=Ticket(ticket_id, TicketState(ticket_state), *ticket) if ticket_id else None,
        **named,
    )
