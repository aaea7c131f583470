"""Drills: one row each, opened and closed with its event; and what a drill has to read of its own few actions."""

import json
from collections.abc import Mapping, Sequence

from sqlalchemy import RowMapping, func, select, text, update

from governance.core.actions import TERMINAL, State
from governance.core.events import Event
from governance.core.ledger import EntryKind
from governance.store.engine import Store, rows
from governance.store.events import append_in
from governance.store.schema.fleet import drills
from governance.store.schema.ledger import accounts, entries
from governance.store.schema.trail import events
from governance.store.schema.work import actions, sessions

# "acpd" in ASCII: two starts of drills exclude each other. SQLite has one writer at a time.
_START_LOCK = 0x61637064
_BATCH = 500


def start(
    store: Store, *, drill_id: str, kind: str, session_id: str, by: str, event: Event, alive_since_us: int
) -> str | None:
    """Writes the row and `event`, unless a drill of this kind runs that was started after `alive_since_us`: its id."""
    with store.transaction() as connection:
        if store.is_postgresql:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _START_LOCK})
        running = rows(
            connection,
            "SELECT id FROM drills WHERE kind = :kind AND finished_us IS NULL AND started_us > :alive LIMIT 1",
            {"kind": kind, "alive": alive_since_us},
        )
        if running:
            return str(running[0][0])
        rows(
            connection,
            """INSERT INTO drills (id, kind, session_id, started_us, started_by)
                VALUES (:id, :kind, :session, :at, :by)""",
            {"id": drill_id, "kind": kind, "session": session_id, "at": event.at_us, "by": by},
        )
        append_in(connection, event)
    return None


def finish(store: Store, drill_id: str, *, at_us: int, passed: bool, report: str, event: Event) -> bool:
    """False when it was finished before; the first report stays."""
    with store.transaction() as connection:
        finished = rows(
            connection,
            """UPDATE drills SET finished_us = :at, passed = :passed, report = :report
                WHERE id = :id AND finished_us IS NULL RETURNING id""",
            {"id": drill_id, "at": at_us, "passed": passed, "report": report},
        )
        if finished:
            append_in(connection, event)
    return bool(finished)


def listing(store: Store, *, kind: str | None, finished: bool | None, limit: int) -> list[RowMapping]:
    """The latest first; of one kind, or of all; finished or not, or both."""
    query = select(drills).order_by(drills.c.started_us.desc(), drills.c.id).limit(limit)
    if kind is not None:
        query = query.where(drills.c.kind == kind)
    if finished is not None:
        query = query.where(drills.c.finished_us.is_not(None) if finished else drills.c.finished_us.is_(None))
    with store.statement() as connection:
        return list(connection.execute(query).mappings())


def find(store: Store, drill_id: str) -> RowMapping | None:
    with store.statement() as connection:
        return connection.execute(select(drills).where(drills.c.id == drill_id)).mappings().first()


def fleet_began_us(store: Store) -> int | None:
    """When the first session was opened."""
    with store.statement() as connection:
        began_us: int | None = connection.execute(select(func.min(sessions.c.opened_us))).scalar()
    return began_us


def states(store: Store, action_ids: Sequence[str]) -> Mapping[str, State]:
    found: dict[str, State] = {}
    with store.statement() as connection:
        for ids in _batches(action_ids):
            query = select(actions.c.id, actions.c.state).where(actions.c.id.in_(ids))
            found |= {row.id: State(row.state) for row in connection.execute(query)}
    return found


def holds(store: Store, session_id: str, action_ids: Sequence[str]) -> tuple[int, int]:
    """How many holds these actions ever took, and what the session's accounts hold now, over all units."""
    taken = 0
    with store.statement() as connection:
        for ids in _batches(action_ids):
            query = select(func.count()).where(entries.c.action_id.in_(ids), entries.c.kind == EntryKind.HOLD)
            taken += connection.execute(query).scalar_one()
        held = select(func.coalesce(func.sum(accounts.c.held), 0)).where(
            accounts.c.scope == "session", accounts.c.scope_id == session_id
        )
        return taken, int(connection.execute(held).scalar_one())


def tell_nobody(store: Store, action_ids: Sequence[str], now_us: int) -> None:
    """Marks these ended actions as delivered: nobody waits for a drill's results, and its queues are gone."""
    ended = actions.c.state.in_(TERMINAL) & actions.c.delivered_us.is_(None)
    with store.statement() as connection:
        for ids in _batches(action_ids):
            connection.execute(update(actions).where(actions.c.id.in_(ids), ended).values(delivered_us=now_us))


def ended_by(store: Store, rule: str, *, after_id: int, except_session: str) -> list[str]:
    """Actions of other sessions that the switch `rule` ended, by the events after `after_id`."""
    query = select(events.c.action_id, events.c.payload).where(
        events.c.id > after_id,
        events.c.kind.in_(("action.cancelled", "action.interrupted")),
        events.c.session_id != except_session,
    )
    with store.statement() as connection:
        found = connection.execute(query).all()
    return [row.action_id for row in found if json.loads(row.payload).get("rule") == rule]


def _batches(ids: Sequence[str]) -> list[Sequence[str]]:
    return [ids[at : at + _BATCH] for at in range(0, len(ids), _BATCH)]
