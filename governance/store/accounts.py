"""Accounts: opening one, reading it as one, and moving the shares of its limit between its stripes.

Only PostgreSQL has several writers at a time: on SQLite every account is one row.

Lock order, on every path and over all rows: plain accounts by id, then stripes by account and number. An admission
waits for its plain rows in that order, then takes of each striped account any stripe that nobody has. Only if there is
none it gives everything back, and waits the next time, for stripes by number from its own upwards. A closing waits for
its rows in that order, a levelling for all stripes of one account in theirs. So nobody who has a stripe waits for a
plain row, nor anybody for a row that comes before one that they have: waiting never runs in a circle. A top-up names
its stripes, and waits for all of its rows in that order. Whoever holds off the admissions (`governance.store.epochs`)
and locks accounts does so before: an admission waits for that with its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from governance.core.ledger import Account, row_id, shares
from governance.core.windows import Window
from governance.store.engine import Store, rows
from governance.store.schema.ledger import totals

#: The accounts as a relation to select from: id, scope, scope_id, unit, window_start_us, window_end_us, limit_amount,
#: posted, held, stripes.
ACCOUNTS: Final = f"({totals.element})"
#: How rows `a` are ordered wherever several are locked on PostgreSQL: as Python sorts, whatever the collation.
LOCK_ORDER: Final = 'a.stripes > 1, a.account COLLATE "C", a.stripe'


def open_in(connection: Connection, account: Account, *, scope: str, scope_id: str, window: Window) -> bool:
    """Opens an empty account in `account.stripes` rows that share its limit; False when it is open already.

    Whoever opened it first has said how many rows it has.
    """
    stripes = account.stripes if connection.dialect.name == "postgresql" else 1
    values = {
        "account": account.id,
        "stripes": stripes,
        "scope": scope,
        "scope_id": scope_id,
        "unit": account.unit,
        "start": window.start_us,
        "end": window.end_us,
    }
    for stripe, share in enumerate(shares(account.limit, [0] * stripes)):
        opened = rows(
            connection,
            """INSERT INTO accounts (id, account, stripe, stripes, scope, scope_id, unit, window_start_us,
                window_end_us, limit_amount, account_limit, posted, held)
                VALUES (:id, :account, :stripe, :stripes, :scope, :scope_id, :unit, :start, :end, :share, :limit, 0, 0)
                ON CONFLICT DO NOTHING RETURNING id""",
            {
                **values,
                "id": row_id(account.id, stripe),
                "stripe": stripe,
                "share": share,
                "limit": account.limit if stripe == 0 and stripes > 1 else None,
            },
        )
        if not opened:
            return False
    return True


def make_room(store: Store, account_id: str, amount: int, stripe: int | None = None) -> bool:
    """`make_room_in` by itself; locks nothing where there is none."""
    found = store.read(
        """SELECT 1 FROM accounts WHERE account = :id GROUP BY account
            HAVING count(limit_amount) = 0 OR sum(limit_amount) - sum(posted + held) >= :amount""",
        {"id": account_id, "amount": amount},
    )
    if not found:
        return False
    with store.transaction() as connection:
        return make_room_in(connection, account_id, amount, stripe)


def make_room_in(connection: Connection, account_id: str, amount: int, stripe: int | None = None) -> bool:
    """Sees to it that one stripe, or the one that is named, has room for `amount`; False when the account has none."""
    found = _locked(connection, account_id)
    if not found or found[0].share is None:
        return bool(found)
    if any(row.has_room(amount) for row in found if stripe in (None, row.stripe)):
        return True
    if sum(row.share or 0 for row in found) - sum(row.used for row in found) < amount:
        return False
    _level(connection, found, amount=amount, first=stripe or 0)
    return True


def level_in(connection: Connection, account_id: str, *, limit_delta: int = 0) -> None:
    """Shares out an account's limit anew, changed by `limit_delta`; an account without a limit has none after it.

    What one stripe has used beyond its share is no room of the others then.
    """
    found = _locked(connection, account_id)
    _level(connection, found, limit_delta=limit_delta)
    if limit_delta:
        values = {"id": account_id, "delta": limit_delta}
        rows(connection, "UPDATE accounts SET account_limit = account_limit + :delta WHERE id = :id", values)


@dataclass(frozen=True, slots=True)
class _Row:
    id: str
    stripe: int
    share: int | None
    used: int

    def has_room(self, amount: int) -> bool:
        return self.share is None or self.used + amount <= self.share


def _locked(connection: Connection, account_id: str) -> list[_Row]:
    lock = " FOR NO KEY UPDATE OF a" if connection.dialect.name == "postgresql" else ""
    sql = f"""SELECT a.id, a.stripe, a.limit_amount, a.posted + a.held FROM accounts a
        WHERE a.account = :account ORDER BY a.stripe{lock}"""
    return [_Row(*row) for row in rows(connection, sql, {"account": account_id})]


def _level(
    connection: Connection, found: Sequence[_Row], *, limit_delta: int = 0, amount: int = 0, first: int = 0
) -> None:
    if not found or found[0].share is None:
        return
    limit = sum(row.share or 0 for row in found) + limit_delta
    cut = shares(limit, [row.used for row in found], amount, first)
    if connection.dialect.name == "postgresql":
        # In one round trip: everybody waits for these rows.
        sql = """UPDATE accounts a SET limit_amount = cut.share
            FROM unnest(CAST(:ids AS text[]), CAST(:shares AS bigint[])) AS cut(id, share)
            WHERE a.id = cut.id AND a.limit_amount <> cut.share"""
        rows(connection, sql, {"ids": [row.id for row in found], "shares": cut})
        return
    for row, share in zip(found, cut, strict=True):
        rows(connection, "UPDATE accounts SET limit_amount = :share WHERE id = :id", {"id": row.id, "share": share})
