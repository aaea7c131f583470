"""A change on SQLite: the same steps one by one, in one transaction."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from governance.core.changes import Change
from governance.core.tickets import MoveTicket, OpenTicket
from governance.store.engine import insert_each, rows
from governance.store.epochs import EPOCH
from governance.store.parameters import (
    ECHO_PARAMETERS,
    EVENT_COLUMNS,
    EVENT_PARAMETERS,
    GRANT_LASTS,
    MOVE_TICKET,
    TICKET_COLUMNS,
    TICKET_PARAMETERS,
    USE_GRANT,
    change_values,
    recorded_sql,
)

_AS_RECORDED = f"AND {recorded_sql('IS')}"
_ENTRY = """INSERT INTO entries (account_id, action_id, attempt, kind, held_delta, posted_delta, flag, at_us)
    VALUES (:account, :g_id, :e_attempt, :kind, :held, :posted, :flag, :e_at)"""


def stepwise(connection: Connection, change: Change) -> bool:
    """False when a guard refuses; what was written until then is the caller's to roll back."""
    values = change_values(change)
    if change.epoch is not None and not rows(connection, f"SELECT 1 WHERE {EPOCH} = :g_epoch", values):
        return False
    sets = ", ".join(f'"{column}" = :s_{column}' for column in change.columns)
    moved = f"""UPDATE actions SET {sets} WHERE id = :g_id AND session_id = :g_session AND state = :g_state
        AND attempt = :g_attempt {_AS_RECORDED if change.recorded is not None else ""} RETURNING id"""
    if not rows(connection, moved, values):
        return False
    if isinstance(change.ticket, MoveTicket) and not rows(connection, f"{MOVE_TICKET} RETURNING id", values):
        return False
    if isinstance(change.ticket, OpenTicket):
        rows(connection, f"INSERT INTO tickets ({TICKET_COLUMNS}) VALUES ({TICKET_PARAMETERS})", values)
    if change.grant is not None and not rows(connection, f"{USE_GRANT} AND {GRANT_LASTS} RETURNING id", values):
        return False
    if not _held(connection, change, values):
        return False
    _closed(connection, change, values)
    rows(connection, f"INSERT INTO events ({EVENT_COLUMNS}) VALUES ({EVENT_PARAMETERS})", values)
    if change.echo is not None:
        rows(connection, f"INSERT INTO events ({EVENT_COLUMNS}) VALUES ({ECHO_PARAMETERS})", values)
    return True


def _held(connection: Connection, change: Change, values: Mapping[str, Any]) -> bool:
    """All holds together, however many accounts; False when one of them does not fit."""
    if not change.holds:
        return True
    assert not any(hold.stripes > 1 for hold in change.holds), "one writer needs no stripes"
    wanted = {"holds": json.dumps([[hold.account_id, hold.amount] for hold in change.holds])}
    fitting = rows(
        connection,
        """UPDATE accounts SET held = held + w.amount
            FROM (SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS amount
                FROM json_each(:holds)) AS w
            WHERE accounts.id = w.id AND (limit_amount IS NULL OR posted + held + w.amount <= limit_amount)
            RETURNING 1""",
        wanted,
    )
    if len(fitting) != len(change.holds):
        return False
    entry = {**_who(values), "kind": change.hold_kind, "posted": 0, "flag": None}
    insert_each(
        connection, _ENTRY, [{**entry, "account": hold.account_id, "held": hold.amount} for hold in change.holds]
    )
    return True


def _closed(connection: Connection, change: Change, values: Mapping[str, Any]) -> None:
    """All closings together."""
    if not change.closings:
        return
    closing = {"closings": json.dumps([[c.account_id, c.held_delta, c.posted_delta] for c in change.closings])}
    rows(
        connection,
        """UPDATE accounts SET held = accounts.held + c.held, posted = accounts.posted + c.posted
            FROM (SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS held,
                json_extract(value, '$[2]') AS posted FROM json_each(:closings)) AS c
            WHERE accounts.id = c.id""",
        closing,
    )
    insert_each(
        connection,
        _ENTRY,
        [
            {
                **_who(values),
                "account": closing.account_id,
                "kind": closing.kind,
                "held": closing.held_delta,
                "posted": closing.posted_delta,
                "flag": closing.flag,
            }
            for closing in change.closings
        ],
    )


def _who(values: Mapping[str, Any]) -> dict[str, Any]:
    """The attempt that entries belong to, and when."""
    return {name: values[name] for name in ("g_id", "e_attempt", "e_at")}
