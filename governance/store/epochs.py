"""Epochs: every change of what may be admitted takes the next one: a switch, an early turn, a closing, a budget, a
directory.

An admission decides at an epoch and is written only at the same one, under a lock whose other side such a change takes:
after its commit nothing is admitted that did not see it. SQLite has one writer at a time.
"""

from typing import Final

from sqlalchemy import Connection, text

from governance.store.engine import Store, rows

# "acps" in ASCII.
LOCK: Final = 0x61637073
#: The present epoch, as an expression.
EPOCH: Final = """(SELECT max(latest) FROM (SELECT coalesce(max(epoch), 0) AS latest FROM switches
    UNION ALL SELECT coalesce(max(epoch), 0) FROM sessions UNION ALL SELECT coalesce(max(epoch), 0) FROM budgets
    UNION ALL SELECT coalesce(max(epoch), 0) FROM raises
    UNION ALL SELECT coalesce(max(epoch), 0) FROM directories) AS epochs)"""
#: How PostgreSQL asks for it in an admission: it takes the admissions' side of the lock, and only then reads.
SWITCH_EPOCH: Final = f"""CREATE OR REPLACE FUNCTION switch_epoch() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock_shared({LOCK});
        RETURN {EPOCH};
    END $$"""


def epoch_in(store: Store, connection: Connection) -> int:
    """The present epoch; nobody takes the next one before the caller's transaction ends."""
    now = "SELECT switch_epoch()" if store.is_postgresql else f"SELECT {EPOCH}"
    return int(rows(connection, now, {})[0][0])


def exclude_admissions(store: Store, connection: Connection) -> None:
    """Waits for the admissions under way and holds off others until the commit."""
    if store.is_postgresql:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
