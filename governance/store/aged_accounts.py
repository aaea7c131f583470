"""Pruning the entries of budgets: the account stays, as the anchor of its entries, and says what they summed to."""

from governance.core.events import Event
from governance.store.engine import Reader, Store, rows
from governance.store.events import append_in
from governance.store.guards import PRUNES


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
