"""Actions in doubt: each is a ticket of its own kind, that asks a person what became of it.

Its ticket is an alert, one for each attempt that vanished: the webhook tells it, and whoever resolves the action
(`operations.resolve`) answers it.
"""

from dataclasses import dataclass

from governance.operations import notify
from governance.operations.context import Governance
from governance.store import sweeps
from governance.store.action_rows import ActionRow

KIND = "action.in_doubt"


@dataclass(frozen=True, slots=True)
class Doubt:
    """An action in doubt. `command_id` is what to look for outside: its effect carries it."""

    action_id: str
    ticket_id: str
    name: str
    command_id: str
    attempt: int
    session_id: str
    resource: str | None
    agent_id: str | None
    user: str | None
    started_us: int | None
    why: str


def list_doubts(gov: Governance, *, limit: int) -> list[Doubt]:
    """The oldest first."""
    return [_doubt(action) for action in sweeps.in_doubt(gov.store, limit=limit)]


def open_tickets(gov: Governance, limit: int) -> list[str]:
    """Opens the tickets of actions in doubt that have none, whichever way they came to it; the tickets' ids."""
    opened = []
    for action in sweeps.in_doubt(gov.store, limit=limit, without_ticket=True):
        doubt = _doubt(action)
        payload = {
            "action": doubt.action_id,
            "name": doubt.name,
            "command_id": doubt.command_id,
            "attempt": doubt.attempt,
            "session": doubt.session_id,
            "resource": doubt.resource,
            "agent": doubt.agent_id,
            "user": doubt.user,
            "why": doubt.why,
            "next": f"look whether its effect happened, then: acp recovery resolve {doubt.action_id} --as ...",
        }
        if notify.alert(gov, doubt.ticket_id, KIND, payload):
            opened.append(doubt.ticket_id)
    return opened


def _doubt(action: ActionRow) -> Doubt:
    return Doubt(
        action_id=action.ref.id,
        ticket_id=f"in-doubt:{action.ref.id}:{action.ref.attempt}",
        name=action.name,
        command_id=action.command_id,
        attempt=action.ref.attempt,
        session_id=action.ref.session_id,
        resource=action.resource,
        agent_id=action.agent_id,
        user=action.user,
        started_us=action.started_us,
        why=action.error or action.reason or "its attempt vanished",
    )
