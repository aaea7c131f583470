"""Actions as people read them: listed, counted, whole."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import RowMapping, func, select

from governance.core.actions import State
from governance.store.engine import Reader, Store
from governance.store.schema.ledger import accounts, entries
from governance.store.schema.work import actions


def counts_by_state(store: Reader) -> dict[str, int]:
    """What drills do by themselves, and undo, is left out."""
    found = store.read("SELECT state, count(*) FROM actions WHERE name NOT LIKE 'acp.drill.%' GROUP BY state", {})
    return {str(row[0]): int(row[1]) for row in found}


def busiest(store: Reader, limit: int) -> list[Sequence[Any]]:
    """(agent, user, stream, session, running, waiting) of what has not ended, most running first."""
    return list(
        store.read(
            """SELECT agent_id, "user", stream, session_id,
                sum(CASE WHEN state = 'running' THEN 1 ELSE 0 END) AS running,
                sum(CASE WHEN state = 'running' THEN 0 ELSE 1 END) AS waiting FROM actions
                WHERE delivered_us IS NULL AND state IN ('running', 'queued', 'parked', 'deferred')
                GROUP BY agent_id, "user", stream, session_id
                ORDER BY running DESC, waiting DESC, session_id, agent_id, "user" LIMIT :limit""",
            {"limit": limit},
        )
    )


def without_trail(store: Reader) -> int:
    """How many actions no event speaks of."""
    found = store.read(
        "SELECT count(*) FROM actions a WHERE NOT EXISTS (SELECT 1 FROM events e WHERE e.action_id = a.id)", {}
    )
    return int(found[0][0])


def listing(store: Store, *, state: State | None, session_id: str | None, limit: int) -> list[RowMapping]:
    """Actions for people, newest first."""
    query = select(actions).order_by(actions.c.created_us.desc(), actions.c.id).limit(limit)
    if state is not None:
        query = query.where(actions.c.state == state)
    if session_id is not None:
        query = query.where(actions.c.session_id == session_id)
    with store.statement() as connection:
        return list(connection.execute(query).mappings())


def of_agent(store: Store, agent_id: str, *, except_id: str, limit: int) -> list[RowMapping]:
    """What an agent asked for, the newest first, without one action."""
    query = (
        select(actions)
        .where(actions.c.agent_id == agent_id, actions.c.id != except_id)
        .order_by(actions.c.created_us.desc(), actions.c.id)
        .limit(limit)
    )
    with store.statement() as connection:
        return list(connection.execute(query).mappings())


def latest_values(store: Store, column: str, limit: int) -> list[str]:
    """What the latest `limit` actions have in a column of theirs, each once."""
    value = actions.c[column]
    latest = select(value.label("value")).order_by(actions.c.id.desc()).limit(limit).subquery()
    query = select(latest.c.value).where(latest.c.value.is_not(None)).distinct()
    with store.statement() as connection:
        return [str(row[0]) for row in connection.execute(query)]


def whole(store: Store, action_id: str) -> RowMapping | None:
    with store.statement() as connection:
        return connection.execute(select(actions).where(actions.c.id == action_id)).mappings().first()


def spent(store: Store, action_id: str) -> dict[str, int]:
    """What an action has posted so far, by account."""
    query = (
        select(accounts.c.account, func.sum(entries.c.posted_delta))
        .join_from(entries, accounts, accounts.c.id == entries.c.account_id)
        .where(entries.c.action_id == action_id)
        .group_by(accounts.c.account)
    )
    with store.statement() as connection:
        return {str(account): int(total) for account, total in connection.execute(query)}
