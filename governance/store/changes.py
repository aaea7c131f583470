"""The one write path of an action's life: a whole `Change` or nothing.

Guards: the action is in the expected session, state and attempt, its ticket at the expected step, the switches at the
expected epoch, the grant that is used still lasts, and every hold fits its account. PostgreSQL does it in one statement
of writable CTEs, so that a hot account stays locked for the time of one round trip; SQLite does the same steps one by
one in a transaction. The contract suite runs both.

Lock order is action, ticket, grant, accounts (`governance.store.accounts`), on every path, so writers wait and never
deadlock.
"""

from collections.abc import Callable, Sequence
from typing import assert_never

from sqlalchemy import Connection

from governance.core.changes import ActionRef, Change
from governance.core.ledger import Hold
from governance.store.accounts import make_room
from governance.store.actions import holds_in
from governance.store.engine import Store, rows
from governance.store.stepwise import stepwise
from governance.store.wide import Moved, Short, Taken, apply_wide, apply_wide_in

# Each time that room was made for a hold, somebody else's took it; after so many the decision is made anew.
_ROUNDS_MAX = 8


class _Moved(Exception):
    """The world is not as the change expected."""


def apply(store: Store, change: Change) -> bool:
    """Applies `change`; False when something it expected has moved on, and then nothing was written."""
    return take(store, change) is not None


def take(store: Store, change: Change) -> tuple[Hold, ...] | None:
    """`apply` for a change that holds: its holds, each with the stripe that was taken; None where that says False."""
    if store.is_postgresql:
        return _take_wide(store, change)
    try:
        with store.transaction() as connection:
            if not apply_in(connection, change):
                raise _Moved
    except _Moved:
        return None
    return change.holds


def _take_wide(store: Store, change: Change) -> tuple[Hold, ...] | None:
    for _ in range(_ROUNDS_MAX):
        written = apply_wide(store, change)
        if isinstance(written, Short):
            written = apply_wide(store, change, awaited=True)
        match written:
            case Taken(holds):
                return holds
            case Moved():
                return None
            case Short(holds):
                if not all(make_room(store, hold.account_id, hold.amount) for hold in holds):
                    return None
            case _:
                assert_never(written)
    return None


def close(store: Store, ref: ActionRef, closing: Callable[[tuple[Hold, ...]], Change]) -> bool:
    """`apply` for the end of the attempt `ref`, made of all that it holds by now.

    That is read with its action locked: a top-up is there by then, or finds that the attempt is over.
    """
    try:
        with store.transaction() as connection:
            if store.is_postgresql:
                rows(connection, "SELECT 1 FROM actions WHERE id = :id FOR UPDATE", {"id": ref.id})
            if not apply_in(connection, closing(holds_in(connection, ref.id, ref.attempt))):
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
        applied = isinstance(apply_wide_in(connection, change), Taken)
    else:
        applied = stepwise(connection, change)
    return applied
