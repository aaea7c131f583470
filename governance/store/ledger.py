"""Reading the ledger: what people see of budgets, and what the audit recomputes."""

from collections.abc import Sequence

from sqlalchemy import Connection, RowMapping, select

from governance.core.budgets import SCOPE
from governance.core.ledger import Account, Unit
from governance.store.accounts import LOCK_ORDER, level_in
from governance.store.engine import Reader, Store, rows
from governance.store.schema.ledger import totals


def listing(store: Store, *, session_id: str | None, now_us: int, budget_id: str | None = None) -> list[RowMapping]:
    """The accounts of a session, or of every window that is open now, or of those of one budget."""
    query = select(totals).order_by(totals.c.window_start_us.desc(), totals.c.id)
    if session_id is not None:
        query = query.where(totals.c.scope_id == session_id)
    else:
        query = query.where(totals.c.window_start_us <= now_us, totals.c.window_end_us > now_us)
    if budget_id is not None:
        query = query.where(totals.c.scope == SCOPE, totals.c.scope_id.startswith(f"{budget_id}:", autoescape=True))
    with store.statement() as connection:
        return list(connection.execute(query).mappings())


def listed(store: Store, account_ids: Sequence[str]) -> list[RowMapping]:
    """These accounts, as far as they are open, by id."""
    query = select(totals).where(totals.c.id.in_(account_ids)).order_by(totals.c.id)
    with store.statement() as connection:
        return list(connection.execute(query).mappings()) if account_ids else []


def accounts(store: Store, account_ids: Sequence[str]) -> tuple[Account, ...]:
    """`listed`, as the gates see them."""
    return tuple(_account(row) for row in listed(store, account_ids))


def locked_in(connection: Connection, account_ids: Sequence[str]) -> tuple[Account, ...]:
    """`accounts`, with every row of them locked until the transaction ends."""
    if not account_ids:
        return ()
    if connection.dialect.name == "postgresql":
        names = {f"id{number}": account_id for number, account_id in enumerate(account_ids)}
        named = ", ".join(f":{name}" for name in names)
        rows(
            connection,
            f"SELECT 1 FROM accounts a WHERE a.account IN ({named}) ORDER BY {LOCK_ORDER} FOR NO KEY UPDATE OF a",
            names,
        )
    query = select(totals).where(totals.c.id.in_(account_ids)).order_by(totals.c.id)
    return tuple(_account(row) for row in connection.execute(query).mappings())


def post_in(connection: Connection, source: str, account: Account, amount: int, at_us: int) -> None:
    """Posts what nobody held to an account that is locked, in the name of `source`, once.

    On the account's first row: what that has used beyond its share is no room of the others then.
    """
    values = {"id": account.id, "posted": amount, "source": source, "at": at_us}
    rows(connection, "UPDATE accounts SET posted = posted + :posted WHERE id = :id", values)
    rows(
        connection,
        """INSERT INTO entries (account_id, action_id, attempt, kind, held_delta, posted_delta, at_us)
            VALUES (:id, :source, 0, 'post', 0, :posted, :at)""",
        values,
    )
    if account.stripes > 1:
        level_in(connection, account.id)


def _account(row: RowMapping) -> Account:
    return Account(
        row["id"],
        Unit(row["unit"]),
        row["limit_amount"],
        row["posted"],
        row["held"],
        row["window_end_us"],
        row["stripes"],
    )


def account_count(store: Reader) -> int:
    return int(store.read("SELECT count(*) FROM accounts WHERE stripe = 0", {})[0][0])


# Of what is being deleted behind an anchor, whatever part is left.
_PRUNED = """SELECT 1 FROM accounts p JOIN anchors n ON n.session_id = p.scope_id AND n.cleared_us IS NULL
    WHERE p.scope = 'session' AND p.id = {account}"""


def unbalanced(store: Reader) -> list[tuple[str, int, int, int, int]]:
    """Accounts whose columns are not the sums of their entries: (id, held, sum held, posted, sum posted).

    What was summed up of those that are gone counts with the rest.
    """
    posted = "coalesce(a.summed, 0) + coalesce(s.posted, 0)"
    found = store.read(
        f"""SELECT a.id, a.held, coalesce(s.held, 0), a.posted, {posted} FROM accounts a LEFT JOIN
            (SELECT account_id, sum(held_delta) AS held, sum(posted_delta) AS posted FROM entries GROUP BY account_id) s
            ON s.account_id = a.id WHERE (a.held <> coalesce(s.held, 0) OR a.posted <> {posted})
            AND a.pruned_us IS NULL AND NOT EXISTS ({_PRUNED.format(account="a.id")}) ORDER BY a.id""",
        {},
    )
    return [(str(r[0]), int(r[1]), int(r[2]), int(r[3]), int(r[4])) for r in found]


def unshared(store: Reader) -> list[tuple[str, int, int, int | None, int | None]]:
    """Accounts in several rows that are not all there, or whose shares do not sum to the limit.

    (id, rows there are, rows there should be, limit, sum of the shares), None where one is unlimited.
    """
    found = store.read(
        """SELECT account, count(*), max(stripes), max(account_limit),
                CASE WHEN count(limit_amount) > 0 THEN sum(coalesce(limit_amount, 0)) END
            FROM accounts WHERE stripes > 1 OR stripe > 0 GROUP BY account
            HAVING count(*) <> max(stripes) OR count(*) <> min(stripes)
                OR count(limit_amount) <> CASE WHEN max(account_limit) IS NULL THEN 0 ELSE count(*) END
                OR coalesce(sum(limit_amount), 0) <> coalesce(max(account_limit), 0) ORDER BY account""",
        {},
    )
    return [(str(r[0]), int(r[1]), int(r[2]), _amount(r[3]), _amount(r[4])) for r in found]


def _amount(value: object) -> int | None:
    return None if value is None else int(str(value))


def orphan_holds(store: Reader) -> list[tuple[str, int, str]]:
    """Holds that no running attempt owns and that are not closed, or not whole: (action, attempt, account)."""
    found = store.read(
        f"""SELECT h.action_id, h.attempt, h.account_id FROM (SELECT action_id, attempt, account_id,
                sum(held_delta) AS held, sum(CASE WHEN kind IN ('hold', 'top_up') THEN 0 ELSE 1 END) AS closings
                FROM entries GROUP BY action_id, attempt, account_id) h
            WHERE (h.held <> 0 OR h.closings = 0) AND NOT (h.closings = 0 AND EXISTS (SELECT 1 FROM actions a
                WHERE a.id = h.action_id AND a.attempt = h.attempt AND a.state = 'running'))
            AND NOT EXISTS ({_PRUNED.format(account="h.account_id")}) ORDER BY h.action_id, h.attempt, h.account_id""",
        {},
    )
    return [(str(r[0]), int(r[1]), str(r[2])) for r in found]
