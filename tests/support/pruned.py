"""A desk whose history is pruned: time that passes, work, and what is left of it."""

from collections.abc import Sequence

from sqlalchemy import text

from governance.operations import retention
from governance.operations.archive import Archive
from governance.operations.retention import DAY_S
from tests.support.governed import ANN, Desk, ManualClock

WEEK_S = 7 * DAY_S
HISTORY = ("events", "entries", "tickets", "grants", "actions", "accounts")


def later(desk: Desk, seconds: float = WEEK_S + 3600) -> None:
    assert isinstance(desk.gov.clock, ManualClock)
    desk.gov.clock.pass_s(seconds)


def prune(desk: Desk, archive: Archive | None = None) -> retention.Retention:
    return retention.prune(desk.gov, older_than_s=WEEK_S, by=ANN, reason="a week is enough", archive=archive)


def work(desk: Desk, count: int = 3, stream: str = "default") -> None:
    for _ in range(count):
        desk.finish(desk.admitted(desk.submit(stream=stream)))


def left(desk: Desk, session_id: str) -> dict[str, int]:
    """How many rows there are of a session, by table; what is not its own by name is found by its actions."""
    of_actions = "IN (SELECT id FROM actions WHERE session_id = :id)"
    of_accounts = "IN (SELECT id FROM accounts WHERE scope_id = :id)"
    where = {
        "events": "session_id = :id",
        "entries": f"account_id {of_accounts}",
        "tickets": f"action_id {of_actions}",
        "grants": f"ticket_id IN (SELECT id FROM tickets WHERE action_id {of_actions})",
        "actions": "session_id = :id",
        "accounts": "scope_id = :id",
    }
    counts = {
        table: desk.gov.store.read(f"SELECT count(*) FROM {table} WHERE {where[table]}", {"id": session_id})
        for table in HISTORY
    }
    return {table: int(count[0][0]) for table, count in counts.items() if count[0][0]}


def sessions(desk: Desk, stream: str) -> list[str]:
    found = desk.gov.store.read(
        "SELECT id FROM sessions WHERE stream = :stream ORDER BY window_start_us", {"stream": stream}
    )
    return [str(row[0]) for row in found]


def unguarded(desk: Desk, statements: Sequence[str]) -> None:
    """What somebody with the database's password could do."""
    with desk.gov.store.transaction() as connection:
        names = {
            "events": ("events_sealed_once", "events_kept"),
            "entries": ("entries_kept",),
            "anchors": ("anchors_kept", "anchors_cleared_once"),
        }
        for table, triggers in names.items():
            for trigger in triggers:
                on = f" ON {table}" if desk.gov.store.is_postgresql else ""
                connection.exec_driver_sql(f"DROP TRIGGER {trigger}{on}")
        for statement in statements:
            connection.execute(text(statement))
