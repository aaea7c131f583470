"""A change on SQLite: the same steps one by one, in one transaction."""

from sqlalchemy import Connection

from governance.core.changes import Change
from governance.core.ledger import EntryKind
from governance.core.tickets import MoveTicket, OpenTicket
from governance.store.engine import rows
from governance.store.epochs import EPOCH
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


def stepwise(connection: Connection, change: Change) -> bool:
    """False when a guard refuses; what was written until then is the caller's to roll back."""
    values = change_values(change)
    if change.epoch is not None and not rows(connection, f"SELECT 1 WHERE {EPOCH} = :g_epoch", values):
        return False
    sets = ", ".join(f'"{column}" = :s_{column}' for column in change.columns)
    moved = f"""UPDATE actions SET {sets} WHERE id = :g_id AND session_id = :g_session AND state = :g_state
        AND attempt = :g_attempt RETURNING id"""
    if not rows(connection, moved, values):
        return False
    if isinstance(change.ticket, MoveTicket) and not rows(connection, f"{MOVE_TICKET} RETURNING id", values):
        return False
    if isinstance(change.ticket, OpenTicket):
        rows(connection, f"INSERT INTO tickets ({TICKET_COLUMNS}) VALUES ({TICKET_PARAMETERS})", values)
    if change.grant is not None and not rows(connection, f"{USE_GRANT} AND {GRANT_LASTS} RETURNING id", values):
        return False
    assert not any(hold.stripes > 1 for hold in change.holds), "one writer needs no stripes"
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
