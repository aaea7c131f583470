"""The one write path of an action's life: a whole `Change` or nothing.

Guards: the action is in the expected state and attempt, its ticket is where the decision saw it, and every hold still
fits its account. PostgreSQL does it in one statement of writable CTEs, so that a hot account stays locked for the time
of one round trip; SQLite does the same steps one by one in a transaction. The contract suite runs both.

Lock order is action, ticket, accounts by id, on every path, so writers wait and never deadlock.
"""

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection

from governance.core.changes import Change
from governance.core.digest import canonical_json
from governance.core.events import Event
from governance.core.ledger import EntryKind
from governance.core.tickets import MoveTicket, OpenTicket
from governance.store.engine import Store, rows


# A write that took longer waited for somebody's lock or for a slow disk; one that did not is faster as one commit.
_QUEUEING_S = 0.005
_NOT_YET_DURABLE = ", set_config('synchronous_commit', 'off', true)"


class _Moved(Exception):
    """The world is not as the change expected."""


def apply(store: Store, change: Change) -> bool:
    """Applies `change`; False when something it expected has moved on, and then nothing was written."""
    if store.is_postgresql:
        return _apply_wide(store, change)
    try:
        with store.transaction() as connection:
            if not apply_in(connection, change):
                raise _Moved
    except _Moved:
        return False
    return True


def apply_in(connection: Connection, change: Change) -> bool:
    """`apply` inside the caller's transaction, which must be rolled back on False."""
    if connection.dialect.name == "postgresql":
        sql, values = _wide(change)
        return bool(rows(connection, sql, values)[0][0])
    return _stepwise(connection, change)


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
TICKET_COLUMNS = "id, action_id, digest, state, rule, reason, requested_us, expires_us"
TICKET_PARAMETERS = ":t_id, :t_action, :t_digest, 'pending', :t_rule, :t_reason, :t_requested, :t_expires"


def ticket_values(ticket: OpenTicket | MoveTicket | None) -> dict[str, Any]:
    match ticket:
        case OpenTicket():
            return {
                "t_id": ticket.id,
                "t_action": ticket.action_id,
                "t_digest": ticket.digest,
                "t_rule": ticket.rule,
                "t_reason": ticket.reason,
                "t_requested": ticket.requested_us,
                "t_expires": ticket.expires_us,
            }
        case MoveTicket():
            return {
                "t_id": ticket.id,
                "t_before": ticket.before,
                "t_after": ticket.after,
                "t_at": ticket.at_us,
                "t_by": ticket.decided_by,
                "t_reason": ticket.decision_reason,
            }
        case None:
            return {}


# A consumption keeps the decision that it consumes.
_MOVE_TICKET = """UPDATE tickets SET state = :t_after,
    decided_us = CASE WHEN decided_us IS NULL THEN :t_at ELSE decided_us END,
    decided_by = CASE WHEN decided_by IS NULL THEN :t_by ELSE decided_by END,
    decision_reason = CASE WHEN decision_reason IS NULL THEN :t_reason ELSE decision_reason END
    WHERE id = :t_id AND state = :t_before"""


def _values(change: Change) -> dict[str, Any]:
    expected = change.expected
    return {
        "g_id": expected.id,
        "g_state": expected.state,
        "g_attempt": expected.attempt,
        **{f"s_{column}": _stored(value) for column, value in change.columns.items()},
        **event_values(change.event),
        **ticket_values(change.ticket),
    }


def _stored(value: object) -> object:
    return canonical_json(value) if isinstance(value, list) else value


# --- PostgreSQL: one statement ---------------------------------------------------------------------------------------


def _apply_wide(store: Store, change: Change) -> bool:
    """In autocommit. Where writers queue for a hot account, its lock is not held while the disk is waited for."""
    release_early = store.queueing and bool(change.holds or change.closings)
    sql, values = _wide(change)
    began_s = time.monotonic()
    found = store.run_then_flush(sql + _NOT_YET_DURABLE, values) if release_early else store.run(sql, values)
    store.queueing = time.monotonic() - began_s > _QUEUEING_S
    return bool(found[0][0])


def _wide(change: Change) -> tuple[str, Mapping[str, Any]]:
    kind = {OpenTicket: "open", MoveTicket: "move"}.get(type(change.ticket), "")
    sql = _wide_sql(tuple(change.columns), kind, bool(change.holds), bool(change.closings))
    values = _values(change)
    if change.holds:
        values |= {
            "h_ids": [hold.account_id for hold in change.holds],
            "h_amounts": [h.amount for h in change.holds],
        }
    if change.closings:
        values |= {
            "c_ids": [closing.account_id for closing in change.closings],
            "c_held": [closing.held_delta for closing in change.closings],
            "c_posted": [closing.posted_delta for closing in change.closings],
            "c_kinds": [str(closing.kind) for closing in change.closings],
            "c_flags": [closing.flag and str(closing.flag) for closing in change.closings],
        }
    return sql, values


@lru_cache(maxsize=64)
def _wide_sql(columns: tuple[str, ...], ticket: str, holds: bool, closings: bool) -> str:
    """The statement for one shape of change. Every write selects FROM passed, so either all happen or none."""
    parts = [
        """found AS MATERIALIZED (SELECT id FROM actions
            WHERE id = :g_id AND state = :g_state AND attempt = :g_attempt FOR UPDATE)"""
    ]
    passed = ["EXISTS (SELECT 1 FROM found)"]
    if ticket == "move":
        parts.append(
            """asked AS MATERIALIZED (SELECT t.id FROM tickets t, found
                WHERE t.id = :t_id AND t.state = :t_before FOR UPDATE OF t)"""
        )
        passed.append("EXISTS (SELECT 1 FROM asked)")
    if holds:
        source = "found" if ticket != "move" else "found, asked"
        parts.append(
            f"""locked AS MATERIALIZED (SELECT a.id, a.limit_amount, a.posted, a.held, wanted.amount
                FROM {source}, accounts a
                JOIN unnest(CAST(:h_ids AS text[]), CAST(:h_amounts AS bigint[])) AS wanted(id, amount)
                    ON wanted.id = a.id
                ORDER BY a.id FOR NO KEY UPDATE OF a)"""
        )
        passed.append(
            """(SELECT count(*) = cardinality(CAST(:h_ids AS text[])) AND bool_and(
                limit_amount IS NULL OR posted + held + amount <= limit_amount) FROM locked)"""
        )
    parts.append(f"passed AS MATERIALIZED (SELECT 1 AS yes WHERE {' AND '.join(passed)})")
    if ticket == "move":
        parts.append(f"ticket AS ({_MOVE_TICKET} AND EXISTS (SELECT 1 FROM passed))")
    if ticket == "open":
        parts.append(f"ticket AS (INSERT INTO tickets ({TICKET_COLUMNS}) SELECT {TICKET_PARAMETERS} FROM passed)")
    if holds:
        parts.append(
            """held AS (UPDATE accounts a SET held = a.held + locked.amount
                FROM locked, passed WHERE a.id = locked.id)"""
        )
        parts.append(
            """hold_entries AS (INSERT INTO entries
                (account_id, action_id, attempt, kind, held_delta, posted_delta, at_us)
                SELECT locked.id, :g_id, CAST(:e_attempt AS integer), 'hold', locked.amount, 0, CAST(:e_at AS bigint)
                FROM locked, passed)"""
        )
    sets = ", ".join(f'"{column}" = :s_{column}' for column in columns)
    parts.append(f"moved AS (UPDATE actions SET {sets} FROM passed WHERE actions.id = :g_id RETURNING 1)")
    parts.append(f"event AS (INSERT INTO events ({EVENT_COLUMNS}) SELECT {EVENT_PARAMETERS} FROM passed)")
    if closings:
        parts += [
            """closing AS MATERIALIZED (SELECT c.* FROM found, unnest(
                CAST(:c_ids AS text[]), CAST(:c_held AS bigint[]), CAST(:c_posted AS bigint[]),
                CAST(:c_kinds AS text[]), CAST(:c_flags AS text[])) AS c(id, held, posted, kind, flag))""",
            """closing_entries AS (INSERT INTO entries
                (account_id, action_id, attempt, kind, held_delta, posted_delta, flag, at_us)
                SELECT closing.id, :g_id, CAST(:e_attempt AS integer), closing.kind, closing.held, closing.posted,
                    closing.flag, CAST(:e_at AS bigint) FROM closing, passed)""",
            # Last, because a hot account is locked from here to the end of the commit and nothing else waits on it.
            """settling AS MATERIALIZED (SELECT a.id, closing.held, closing.posted
                FROM accounts a JOIN closing ON closing.id = a.id ORDER BY a.id FOR NO KEY UPDATE OF a)""",
            """settled AS (UPDATE accounts a SET held = a.held + settling.held, posted = a.posted + settling.posted
                FROM settling, passed WHERE a.id = settling.id)""",
        ]
    return f"WITH {', '.join(parts)} SELECT count(*) FROM moved"


# --- SQLite: the same steps in one transaction -----------------------------------------------------------------------


def _stepwise(connection: Connection, change: Change) -> bool:
    values = _values(change)
    sets = ", ".join(f'"{column}" = :s_{column}' for column in change.columns)
    moved = f"UPDATE actions SET {sets} WHERE id = :g_id AND state = :g_state AND attempt = :g_attempt RETURNING id"
    if not rows(connection, moved, values):
        return False
    if isinstance(change.ticket, MoveTicket) and not rows(connection, f"{_MOVE_TICKET} RETURNING id", values):
        return False
    if isinstance(change.ticket, OpenTicket):
        rows(connection, f"INSERT INTO tickets ({TICKET_COLUMNS}) VALUES ({TICKET_PARAMETERS})", values)
    for hold in change.holds:
        row = {"id": hold.account_id, "amount": hold.amount}
        if not rows(
            connection,
            """UPDATE accounts SET held = held + :amount WHERE id = :id
                AND (limit_amount IS NULL OR posted + held + :amount <= limit_amount) RETURNING id""",
            row,
        ):
            return False
        _entry(connection, change, hold.account_id, EntryKind.HOLD, hold.amount, 0, None)
    for closing in change.closings:
        rows(
            connection,
            "UPDATE accounts SET held = held + :held, posted = posted + :posted WHERE id = :id",
            {"id": closing.account_id, "held": closing.held_delta, "posted": closing.posted_delta},
        )
        _entry(
            connection,
            change,
            closing.account_id,
            closing.kind,
            closing.held_delta,
            closing.posted_delta,
            closing.flag,
        )
    rows(connection, f"INSERT INTO events ({EVENT_COLUMNS}) VALUES ({EVENT_PARAMETERS})", values)
    return True


def _entry(
    connection: Connection,
    change: Change,
    account_id: str,
    kind: EntryKind,
    held: int,
    posted: int,
    flag: str | None,
) -> None:
    rows(
        connection,
        """INSERT INTO entries (account_id, action_id, attempt, kind, held_delta, posted_delta, flag, at_us)
            VALUES (:account, :action, :attempt, :kind, :held, :posted, :flag, :at)""",
        {
            "account": account_id,
            "action": change.expected.id,
            "attempt": change.attempt,
            "kind": kind,
            "held": held,
            "posted": posted,
            "flag": flag,
            "at": change.event.at_us,
        },
    )
