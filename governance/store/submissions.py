"""Recording a submission: the action, its ticket if it waits for a person, and its first event; once per command_id."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from governance.core.actions import State, Submission
from governance.core.digest import canonical_json
from governance.core.events import Event
from governance.core.tickets import OpenTicket
from governance.store.directory import LOADED
from governance.store.engine import Store, rows
from governance.store.parameters import (
    EVENT_COLUMNS,
    EVENT_PARAMETERS,
    TICKET_COLUMNS,
    TICKET_PARAMETERS,
    event_values,
    ticket_values,
)

_ACTION = (
    "id",
    "command_id",
    "digest",
    "name",
    "stream",
    "session_id",
    "state",
    "attempt",
    "idempotent",
    "direct",
    "agent_id",
    "user",
    "team",
    "org",
    "filled",
    "signature",
    "risk",
    "resource",
    "model",
    "cost_micros",
    "tokens",
    "correlation_id",
    "message",
    "rule",
    "reason",
    "guidance",
    "suggest",
    "ticket_id",
    "not_before_us",
    "expires_us",
    "created_us",
    "published_us",
    "publish_count",
    "finished_us",
)
_COLUMNS = ", ".join(f'"{column}"' for column in _ACTION)
_PARAMETERS = ", ".join(f":a_{column}" for column in _ACTION)


@dataclass(frozen=True, slots=True)
class Recorded:
    """When the session's window ends, and the epoch of the directory that is in force."""

    ends_us: int
    directory_epoch: int


def record(
    store: Store,
    submission: Submission,
    *,
    session_id: str,
    state: State,
    event: Event,
    ticket: OpenTicket | None,
    rule: str,
    reason: str,
    guidance: str | None = None,
    suggest: tuple[str, ...] = (),
) -> Recorded | None:
    """What is known now, if this call recorded the action; None: its id or command_id was there before."""
    now_us = event.at_us
    values: dict[str, Any] = {
        "a_id": submission.action_id,
        "a_command_id": submission.command_id,
        "a_digest": submission.digest,
        "a_name": submission.name,
        "a_stream": submission.stream,
        "a_session_id": session_id,
        "a_state": state,
        "a_attempt": 0,
        "a_idempotent": submission.idempotent,
        "a_direct": not submission.can_wait,
        "a_agent_id": submission.agent_id,
        "a_user": submission.user,
        "a_team": submission.team,
        "a_org": submission.org,
        "a_filled": submission.filled,
        "a_signature": submission.signature,
        "a_risk": submission.risk,
        "a_resource": submission.resource,
        "a_model": submission.model,
        "a_cost_micros": submission.cost_micros,
        "a_tokens": submission.tokens,
        "a_correlation_id": submission.correlation_id,
        "a_message": submission.message,
        "a_rule": rule,
        "a_reason": reason,
        "a_guidance": guidance,
        "a_suggest": canonical_json(list(suggest)) if suggest else None,
        "a_ticket_id": ticket.id if ticket else None,
        "a_not_before_us": submission.not_before_us,
        "a_expires_us": submission.expires_us,
        "a_created_us": now_us,
        # Published right after the commit; whoever fails to, says so (`actions.unpublish`).
        "a_published_us": now_us,
        "a_publish_count": 1,
        "a_finished_us": now_us if state is State.DENIED else None,
        **event_values(event),
        **ticket_values(ticket),
    }
    if store.is_postgresql:
        found = store.run(_wide_sql(ticket is not None), values)
        return Recorded(*map(int, found[0])) if found else None
    return _stepwise(store, values, ticket)


@lru_cache(maxsize=2)
def _wide_sql(with_ticket: bool) -> str:
    ticket = (
        f"ticket AS (INSERT INTO tickets ({TICKET_COLUMNS}) SELECT {TICKET_PARAMETERS} FROM recorded),"
        if with_ticket
        else ""
    )
    return f"""WITH recorded AS (INSERT INTO actions ({_COLUMNS}) VALUES ({_PARAMETERS})
            ON CONFLICT DO NOTHING RETURNING id),
        {ticket}
        event AS (INSERT INTO events ({EVENT_COLUMNS}) SELECT {EVENT_PARAMETERS} FROM recorded)
        SELECT window_end_us, {LOADED} FROM sessions, recorded WHERE sessions.id = :a_session_id"""


def _stepwise(store: Store, values: Mapping[str, Any], ticket: OpenTicket | None) -> Recorded | None:
    with store.transaction() as connection:
        if not rows(
            connection,
            f"INSERT INTO actions ({_COLUMNS}) VALUES ({_PARAMETERS}) ON CONFLICT DO NOTHING RETURNING id",
            values,
        ):
            return None
        if ticket is not None:
            rows(connection, f"INSERT INTO tickets ({TICKET_COLUMNS}) VALUES ({TICKET_PARAMETERS})", values)
        rows(connection, f"INSERT INTO events ({EVENT_COLUMNS}) VALUES ({EVENT_PARAMETERS})", values)
        now = rows(connection, f"SELECT window_end_us, {LOADED} FROM sessions WHERE id = :a_session_id", values)
    return Recorded(*map(int, now[0]))
