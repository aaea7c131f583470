"""The one write path of an action's life: a whole `Change` or nothing.

Guards: the action is in the expected session, state and attempt, its ticket at the expected step, the switches at the
expected epoch, the grant that is used still lasts, and every hold fits its account. PostgreSQL does it in one statement
of writable CTEs, so that a hot account stays locked for the time of one round trip; SQLite does the same steps one by
one in a transaction. The contract suite runs both.

Lock order is action, ticket, grant, accounts by id, on every path, so writers wait and never deadlock.
"""

import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection

from governance.core.changes import Change
from governance.core.digest import canonical_json
from governance.core.events import Event
from governance.core.ledger import EntryKind
from governance.core.tickets import MoveTicket, OpenTicket
from governance.store.engine import Store, rows
from governance.store.epochs import EPOCH

# A write that took longer waited for somebody's lock or for a slow disk; one that did not is faster as one commit.
_QUEUEING_S = 0.005
_NOT_YET_DURABLE = ", set_config('synchronous_commit', 'off', true)"


class _Moved(Exception):
    """The world is not as the change expected."""


def apply(store: Store, change: Change) -> bool:
    """Applies `change`; False when something it expected has moved on, and then nothing was written."""
    assert change.echo is None, "one statement writes one event"
    if store.is_postgresql:
        return _apply_wide(store, change)
    try:
        with store.transaction() as connection:
            if not apply_in(connection, change):
                raise _Moved
    except _Moved:
        return False
    return True


def apply_each(store: Store, changes: Sequence[Change]) -> list[bool]:
    """Many changes in one transaction; each as a whole or not at all. For changes that touch no account.

    In order of action ids, so that two callers wait for each other and never deadlock.
    """
    assert not any(change.holds or change.closings for change in changes), "accounts are locked one change at a time"
    applied: dict[int, bool] = {}
    order = sorted(range(len(changes)), key=lambda number: changes[number].expected.id)
    with store.transaction() as connection:
        for number in order:
            if store.is_postgresql:
                applied[number] = apply_in(connection, changes[number])
                continue
            rows(connection, "SAVEPOINT change", {})
            applied[number] = apply_in(connection, changes[number])
            rows(connection, "RELEASE change" if applied[number] else "ROLLBACK TO change", {})
    return [applied[number] for number in range(len(changes))]


def apply_in(connection: Connection, change: Change) -> bool:
    """`apply` inside the caller's transaction, which must be rolled back on False."""
    if connection.dialect.name == "postgresql":
        sql, values = _wide(change)
        applied = bool(rows(connection, sql, values)[0][0])
    else:
        applied = _stepwise(connection, change)
    if applied and change.echo is not None:
        rows(
            connection,
            f"INSERT INTO events ({EVENT_COLUMNS}) VALUES ({EVENT_PARAMETERS})",
            event_values(change.echo),
        )
    return applied


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
_MOVE_TICKET = """UPDATE tickets SET state = :t_after, step = step + 1,
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
_GRANT_LASTS = """revoked_us IS NULL AND (until_us IS NULL OR until_us > CAST(:e_at AS bigint))
    AND (max_uses IS NULL OR uses + :gr_uses <= max_uses)
    AND (max_cost_micros IS NULL OR cost_micros + :gr_cost <= max_cost_micros)"""
_USE_GRANT = "UPDATE grants SET uses = uses + :gr_uses, cost_micros = cost_micros + :gr_cost WHERE id = :gr_id"


def _values(change: Change) -> dict[str, Any]:
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
    if change.epoch is not None:
        values["g_epoch"] = change.epoch
    return values


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
    sql = _wide_sql(
        tuple(change.columns),
        kind,
        bool(change.holds),
        bool(change.closings),
        change.grant is not None,
        change.epoch is not None,
    )
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
def _wide_sql(columns: tuple[str, ...], ticket: str, holds: bool, closings: bool, grant: bool, epoch: bool) -> str:
    """The statement for one shape of change. Every write selects FROM passed, so either all happen or none."""
    parts = [
        """found AS MATERIALIZED (SELECT id FROM actions
            WHERE id = :g_id AND session_id = :g_session AND state = :g_state AND attempt = :g_attempt FOR UPDATE)"""
    ]
    passed, before = ["EXISTS (SELECT 1 FROM found)"], ["found"]
    if ticket == "move":
        parts.append(
            """asked AS MATERIALIZED (SELECT t.id FROM tickets t, found
                WHERE t.id = :t_id AND t.state = :t_before AND t.step = :t_step FOR UPDATE OF t)"""
        )
        passed.append("EXISTS (SELECT 1 FROM asked)")
        before.append("asked")
    if grant:
        parts.append(
            f"""granted AS MATERIALIZED (SELECT g.id FROM grants g, {", ".join(before)}
                WHERE g.id = :gr_id AND {_GRANT_LASTS} FOR UPDATE OF g)"""
        )
        passed.append("EXISTS (SELECT 1 FROM granted)")
        before.append("granted")
    if holds:
        parts.append(
            f"""locked AS MATERIALIZED (SELECT a.id, a.limit_amount, a.posted, a.held, wanted.amount
                FROM {", ".join(before)}, accounts a
                JOIN unnest(CAST(:h_ids AS text[]), CAST(:h_amounts AS bigint[])) AS wanted(id, amount)
                    ON wanted.id = a.id
                ORDER BY a.id FOR NO KEY UPDATE OF a)"""
        )
        passed.append(
            """(SELECT count(*) = cardinality(CAST(:h_ids AS text[])) AND bool_and(
                limit_amount IS NULL OR posted + held + amount <= limit_amount) FROM locked)"""
        )
    if epoch:
        passed.append("switch_epoch() = :g_epoch")
    parts.append(f"passed AS MATERIALIZED (SELECT 1 AS yes WHERE {' AND '.join(passed)})")
    if ticket == "move":
        parts.append(f"ticket AS ({_MOVE_TICKET} AND EXISTS (SELECT 1 FROM passed))")
    if grant:
        parts.append(f"grant_use AS ({_USE_GRANT} AND EXISTS (SELECT 1 FROM passed))")
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
    if change.epoch is not None and not rows(connection, f"SELECT 1 WHERE {EPOCH} = :g_epoch", values):
        return False
    sets = ", ".join(f'"{column}" = :s_{column}' for column in change.columns)
    moved = f"""UPDATE actions SET {sets} WHERE id = :g_id AND session_id = :g_session AND state = :g_state
        AND attempt = :g_attempt RETURNING id"""
    if not rows(connection, moved, values):
        return False
    if isinstance(change.ticket, MoveTicket) and not rows(connection, f"{_MOVE_TICKET} RETURNING id", values):
        return False
    if isinstance(change.ticket, OpenTicket):
        rows(connection, f"INSERT INTO tickets ({TICKET_COLUMNS}) VALUES ({TICKET_PARAMETERS})", values)
    if change.grant is not None and not rows(connection, f"{_USE_GRANT} AND {_GRANT_LASTS} RETURNING id", values):
        return False
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
