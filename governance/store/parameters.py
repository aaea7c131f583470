"""What a change binds: the columns and parameters of its event, ticket and grant, on either database."""

from typing import Any, Final

from governance.core.actions import Submission
from governance.core.changes import Change
from governance.core.digest import canonical_json
from governance.core.events import Event
from governance.core.tickets import MoveTicket, OpenTicket


def event_values(event: Event) -> dict[str, Any]:
    return {
        "e_session": event.session_id,
        "e_kind": event.kind,
        "e_actor": event.actor,
        "e_at": event.at_us,
        "e_action": event.action_id,
        "e_attempt": event.attempt,
        "e_state": event.state,
        "e_payload": event.payload_json(),
    }


EVENT_COLUMNS = "session_id, kind, actor, at_us, action_id, attempt, state, payload"
EVENT_PARAMETERS = ":e_session, :e_kind, :e_actor, :e_at, :e_action, :e_attempt, :e_state, :e_payload"
ECHO_PARAMETERS = EVENT_PARAMETERS.replace(":e_", ":o_")
TICKET_COLUMNS = """id, action_id, digest, state, rule, reason, policy_hash, chain, chain_hash, level, votes, step,
    told_step, requested_us, due_us, expires_us"""
TICKET_PARAMETERS = """:t_id, :t_action, :t_digest, 'pending', :t_rule, :t_reason, :t_policy, :t_chain, :t_chain_hash,
    0, '[]', 1, 0, :t_requested, :t_due, :t_expires"""


def ticket_values(ticket: OpenTicket | MoveTicket | None) -> dict[str, Any]:
    match ticket:
        case OpenTicket():
            return {
                "t_id": ticket.id,
                "t_action": ticket.action_id,
                "t_digest": ticket.digest,
                "t_rule": ticket.rule,
                "t_reason": ticket.reason,
                "t_policy": ticket.policy_hash,
                "t_chain": ticket.chain.text,
                "t_chain_hash": ticket.chain.hash,
                "t_requested": ticket.requested_us,
                "t_due": ticket.due_us,
                "t_expires": ticket.expires_us,
            }
        case MoveTicket():
            return {
                "t_id": ticket.id,
                "t_step": ticket.step,
                "t_before": ticket.before,
                "t_after": ticket.after,
                "t_at": ticket.at_us,
                "t_by": ticket.decided_by,
                "t_reason": ticket.decision_reason,
                "t_digest": ticket.digest,
                "t_level": ticket.level,
                "t_due": ticket.due_us,
                "t_expires": ticket.expires_us,
                "t_votes": ticket.votes,
            }
        case None:
            return {}


# A consumption keeps the decision that it consumes, and is no news for anybody who was told of the decision.
MOVE_TICKET = """UPDATE tickets SET state = :t_after, step = step + 1,
    told_step = told_step + CASE WHEN CAST(:t_after AS text) = 'consumed' AND told_step = step THEN 1 ELSE 0 END,
    decided_us = CASE WHEN decided_us IS NULL AND CAST(:t_after AS text) <> 'pending' THEN :t_at ELSE decided_us END,
    decided_by = coalesce(decided_by, CAST(:t_by AS text)),
    decision_reason = coalesce(decision_reason, CAST(:t_reason AS text)),
    digest = coalesce(CAST(:t_digest AS text), digest),
    level = coalesce(CAST(:t_level AS integer), level),
    due_us = coalesce(CAST(:t_due AS bigint), due_us),
    expires_us = coalesce(CAST(:t_expires AS bigint), expires_us),
    votes = coalesce(CAST(:t_votes AS text), votes)
    WHERE id = :t_id AND state = :t_before AND step = :t_step"""
GRANT_LASTS = """revoked_us IS NULL AND (until_us IS NULL OR until_us > CAST(:e_at AS bigint))
    AND (max_uses IS NULL OR uses + :gr_uses <= max_uses)
    AND (max_cost_micros IS NULL OR cost_micros + :gr_cost <= max_cost_micros)"""
USE_GRANT = "UPDATE grants SET uses = uses + :gr_uses, cost_micros = cost_micros + :gr_cost WHERE id = :gr_id"


# An action that waits as it was submitted: for nothing, asked of nobody, and its message was published once.
_NOTHING_SINCE = """not_before_us IS NULL AND expires_us IS NULL AND ticket_id IS NULL AND grant_id IS NULL
    AND switch_id IS NULL AND published_us = created_us"""
_SAID = ("command_id", "name", "digest", "stream", "correlation_id", "risk", "idempotent", "cost_micros", "tokens")
_SAID_IF_ANY = ("agent_id", "user", "team", "org", "filled", "resource", "model")
RECORDED_COLUMNS: Final = (
    *(_SAID + _SAID_IF_ANY),
    *("direct", "not_before_us", "expires_us", "ticket_id", "grant_id", "switch_id", "published_us", "created_us"),
)


def recorded_sql(is_same: str) -> str:
    """The condition that a row is as a submission made it; `is_same`: how the database compares with null."""
    said = [f"{column} = :r_{column}" for column in _SAID]
    said += [f'"{column}" {is_same} :r_{column}' for column in _SAID_IF_ANY]
    return f"{' AND '.join(said)} AND NOT direct AND {_NOTHING_SINCE}"


def recorded_values(submission: Submission) -> dict[str, Any]:
    said = {f"r_{column}": getattr(submission, column) for column in (*_SAID, *_SAID_IF_ANY)}
    # As text: of numbers, PostgreSQL would prepare the statement anew for each size.
    return {**said, "r_cost_micros": str(submission.cost_micros), "r_tokens": str(submission.tokens)}


def change_values(change: Change) -> dict[str, Any]:
    expected = change.expected
    values = {
        "g_id": expected.id,
        "g_session": expected.session_id,
        "g_state": expected.state,
        "g_attempt": expected.attempt,
        **{f"s_{column}": _stored(value) for column, value in change.columns.items()},
        **event_values(change.event),
        **ticket_values(change.ticket),
    }
    if change.grant is not None:
        values |= {"gr_id": change.grant.id, "gr_uses": change.grant.uses, "gr_cost": change.grant.cost_micros}
    if change.echo is not None:
        values |= {f"o{name[1:]}": value for name, value in event_values(change.echo).items()}
    if change.epoch is not None:
        values["g_epoch"] = change.epoch
    if change.recorded is not None:
        values |= recorded_values(change.recorded)
    return values


def _stored(value: object) -> object:
    return canonical_json(value) if isinstance(value, list) else value
