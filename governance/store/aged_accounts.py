"""Pruning the entries of budgets: the account stays, as the anchor of its entries, and says what they summed to.

Where the window is over that is all that it says. Where it never ends, the transaction that deletes entries adds them
to `summed`: at every moment the account is the sum of that and of the entries that are left.
"""

from typing import Final

from governance.core.events import Event
from governance.core.windows import DAY_US, NEVER_US
from governance.store.engine import Reader, Store, rows
from governance.store.events import append_in
from governance.store.guards import PRUNES

# Holds that are closed, and all of whose entries are as old as that: a hold of nothing has its closing entry, too.
_CLOSED: Final = """SELECT {columns} FROM entries e WHERE e.account_id = {account}
    AND e.kind IN ('post', 'void', 'expire') AND e.at_us <= {until} AND NOT EXISTS (SELECT 1 FROM entries l
        WHERE l.account_id = e.account_id AND l.action_id = e.action_id AND l.attempt = e.attempt
        AND l.at_us > {until}) LIMIT {limit}"""


def listed(store: Reader, cutoff_us: int, *, after: str, limit: int) -> list[str]:
    """A page, by id after `after`, of accounts of budgets whose windows ended before then, that hold nothing and have
    entries still.
    """
    found = store.read(
        """SELECT account FROM accounts WHERE scope = 'budget' AND window_end_us <= :cutoff AND pruned_us IS NULL
            AND account > :after GROUP BY account HAVING sum(held) = 0 ORDER BY account LIMIT :limit""",
        {"cutoff": cutoff_us, "after": after, "limit": limit},
    )
    return [str(row[0]) for row in found]


def sum_up(store: Store, account_id: str, event: Event) -> bool:
    """From now on an account says by itself what its entries summed to; False when they do not, or it holds again."""
    lock = " FOR UPDATE" if store.is_postgresql else ""
    values = {"account": account_id, "now": event.at_us}
    with store.transaction() as connection:
        rows(connection, f"SELECT 1 FROM accounts WHERE account = :account ORDER BY stripe{lock}", values)
        wrong_rows = rows(
            connection,
            """SELECT 1 FROM accounts a WHERE a.account = :account AND (a.held <> 0 OR a.pruned_us IS NOT NULL
                OR a.posted <> (SELECT coalesce(sum(e.posted_delta), 0) FROM entries e WHERE e.account_id = a.id))""",
            values,
        )
        # A hold of nothing is one, too: what it comes to is posted when its attempt ends.
        awaited = rows(
            connection,
            """SELECT 1 FROM actions r JOIN entries e ON e.action_id = r.id AND e.attempt = r.attempt
                JOIN accounts a ON a.id = e.account_id
                WHERE r.delivered_us IS NULL AND r.state = 'running' AND a.account = :account LIMIT 1""",
            values,
        )
        if wrong_rows or awaited:
            return False
        rows(connection, "UPDATE accounts SET pruned_us = :now WHERE account = :account", values)
        append_in(connection, event)
    return True


def clear_summed_up(store: Store, limit: int) -> int:
    """Deletes up to `limit` entries of accounts that say by themselves what they summed to."""
    with store.transaction() as connection:
        if store.is_postgresql:
            rows(connection, f"SELECT set_config('{PRUNES}', 'on', true)", {})
        return len(
            rows(
                connection,
                """DELETE FROM entries WHERE id IN (SELECT e.id FROM accounts a JOIN entries e ON e.account_id = a.id
                    WHERE a.scope = 'budget' AND a.pruned_us IS NOT NULL LIMIT :limit) RETURNING id""",
                {"limit": limit},
            )
        )


def endless(store: Reader, cutoff_us: int, *, after: str, limit: int) -> list[str]:
    """A page, by id after `after`, of rows of accounts whose window never ends and that have closed holds from before
    then, unless they were summed up to the day before.
    """
    closed = _CLOSED.format(columns="1", account="a.id", until=":cutoff", limit="1")
    found = store.read(
        f"""SELECT a.id FROM accounts a WHERE a.scope = 'budget' AND a.window_end_us >= :never AND a.id > :after
            AND (a.summed_us IS NULL OR a.summed_us <= :before) AND EXISTS ({closed}) ORDER BY a.id LIMIT :limit""",
        {"never": NEVER_US, "after": after, "cutoff": cutoff_us, "before": cutoff_us - DAY_US, "limit": limit},
    )
    return [str(row[0]) for row in found]


def sum_up_until(store: Store, row: str, cutoff_us: int, event: Event) -> bool:
    """From now on holds that were closed before then may go; False when the row is not the sum of its entries."""
    lock = " FOR NO KEY UPDATE" if store.is_postgresql else ""
    values = {"row": row, "cutoff": cutoff_us}
    with store.transaction() as connection:
        rows(connection, f"SELECT 1 FROM accounts WHERE id = :row{lock}", values)
        agreeing = rows(
            connection,
            """UPDATE accounts SET summed_us = :cutoff WHERE id = :row AND coalesce(summed_us, 0) < :cutoff
                AND held = (SELECT coalesce(sum(e.held_delta), 0) FROM entries e WHERE e.account_id = :row)
                AND posted - coalesce(summed, 0) =
                    (SELECT coalesce(sum(e.posted_delta), 0) FROM entries e WHERE e.account_id = :row)
                RETURNING id""",
            values,
        )
        if agreeing:
            append_in(connection, event)
    return bool(agreeing)


def summing(store: Reader) -> list[tuple[str, int]]:
    """(row, until when) of the accounts that never end and have closed holds to be deleted."""
    closed = _CLOSED.format(columns="1", account="a.id", until="a.summed_us", limit="1")
    found = store.read(
        f"""SELECT a.id, a.summed_us FROM accounts a WHERE a.scope = 'budget' AND a.summed_us IS NOT NULL
            AND EXISTS ({closed}) ORDER BY a.id""",
        {},
    )
    return [(str(row[0]), int(row[1])) for row in found]


def clear_closed(store: Store, row: str, until_us: int, limit: int) -> int:
    """Deletes up to `limit` closed holds of a row, whole, and keeps their sum; how many entries."""
    values = {"row": row, "until": until_us, "limit": limit}
    closed = _CLOSED.format(columns="e.action_id, e.attempt", account=":row", until=":until", limit=":limit")
    with store.transaction() as connection:
        if store.is_postgresql:
            rows(connection, f"SELECT set_config('{PRUNES}', 'on', true)", {})
            rows(connection, "SELECT 1 FROM accounts WHERE id = :row FOR NO KEY UPDATE", values)
        gone = rows(
            connection,
            f"""DELETE FROM entries WHERE account_id = :row AND (action_id, attempt) IN ({closed})
                RETURNING posted_delta""",
            values,
        )
        posted = {"row": row, "posted": sum(int(entry[0]) for entry in gone)}
        rows(connection, "UPDATE accounts SET summed = coalesce(summed, 0) + :posted WHERE id = :row", posted)
    return len(gone)
