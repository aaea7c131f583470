"""A change on PostgreSQL: one statement."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from governance.core.changes import Change
from governance.core.tickets import MoveTicket, OpenTicket
from governance.store.engine import Store
from governance.store.parameters import (
    EVENT_COLUMNS,
    EVENT_PARAMETERS,
    GRANT_LASTS,
    MOVE_TICKET,
    TICKET_COLUMNS,
    TICKET_PARAMETERS,
    USE_GRANT,
    change_values,
)

# Whether an admission waited for somebody's lock, as the server saw it: a client may only have waited for a processor.
# Where nobody waits, one commit is faster.
_QUEUED = ", clock_timestamp() - statement_timestamp() > interval '5 ms'"
# Of many writers a few find the account free: it is still a hot one.
_QUEUEING_WRITES = 8
_NOT_YET_DURABLE = ", set_config('synchronous_commit', 'off', true)"


def apply_wide(store: Store, change: Change) -> bool:
    """In autocommit. Where writers queue for a hot account, its lock is not held while the disk is waited for."""
    release_early = store.queueing > 0 and bool(change.holds or change.closings)
    sql, values = wide(change)
    found = store.run_then_flush(sql + _NOT_YET_DURABLE, values) if release_early else store.run(sql, values)
    waited = bool(change.holds) and bool(found[0][1])
    store.queueing = _QUEUEING_WRITES if waited else max(store.queueing - 1, 0)
    return bool(found[0][0])


def wide(change: Change) -> tuple[str, Mapping[str, Any]]:
    """The statement for `change`, and its values."""
    kind = {OpenTicket: "open", MoveTicket: "move"}.get(type(change.ticket), "")
    sql = _wide_sql(
        tuple(change.columns),
        kind,
        bool(change.holds),
        bool(change.closings),
        change.grant is not None,
        change.epoch is not None,
    )
    values = change_values(change)
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
                WHERE g.id = :gr_id AND {GRANT_LASTS} FOR UPDATE OF g)"""
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
        parts.append(f"ticket AS ({MOVE_TICKET} AND EXISTS (SELECT 1 FROM passed))")
    if grant:
        parts.append(f"grant_use AS ({USE_GRANT} AND EXISTS (SELECT 1 FROM passed))")
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
    return f"WITH {', '.join(parts)} SELECT count(*){_QUEUED if holds else ''} FROM moved"
