"""The trail: appending what is not a transition, sealing, and reading back."""

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import Connection

from governance.core.actions import State
from governance.core.events import GENESIS, Event, StoredEvent, chain_hash
from governance.store.engine import Reader, Store, rows
from governance.store.parameters import EVENT_COLUMNS, EVENT_PARAMETERS, event_values

_COLUMNS = "id, session_id, kind, actor, at_us, action_id, attempt, state, payload, seq, hash"


def append_in(connection: Connection, event: Event) -> None:
    """Appends `event` in the caller's transaction."""
    rows(connection, f"INSERT INTO events ({EVENT_COLUMNS}) VALUES ({EVENT_PARAMETERS})", event_values(event))


def payload_field(store: Store) -> str:
    """How a field of the payload of `events e` is read as text, before its name in quotes."""
    return "e.payload::json ->> " if store.is_postgresql else "e.payload ->> "


def append_owned(store: Store, event: Event) -> bool:
    """Appends an event that only the running attempt may write; False when it no longer owns the action."""
    return bool(
        store.run(
            f"""INSERT INTO events ({EVENT_COLUMNS}) SELECT {EVENT_PARAMETERS} FROM actions
                WHERE id = :e_action AND attempt = :e_attempt AND state = 'running' RETURNING id""",
            event_values(event),
        )
    )


def count_of(store: Store, action_id: str, kind: str) -> int:
    """How many events of a kind an action's history has."""
    found = store.read(
        "SELECT count(*) FROM events WHERE action_id = :id AND kind = :kind", {"id": action_id, "kind": kind}
    )
    return int(found[0][0])


def first_digest(store: Store, action_id: str) -> str | None:
    """The digest that an action was submitted with; None when that part of its history was pruned."""
    found = store.read(
        "SELECT payload FROM events WHERE action_id = :id AND kind = 'action.submitted'", {"id": action_id}
    )
    return str(json.loads(found[0][0])["digest"]) if found else None


def unsealed_sessions(store: Store, limit: int) -> list[str]:
    found = store.read(
        """SELECT session_id FROM (SELECT session_id, min(id) AS first FROM events WHERE seq IS NULL
            GROUP BY session_id) AS pending ORDER BY first LIMIT :limit""",
        {"limit": limit},
    )
    return [str(row[0]) for row in found]


def seal(store: Store, session_id: str, limit: int) -> int:
    """Numbers and chains up to `limit` unsealed events of a session; returns how many.

    The session's row is locked, so that of two sealers one waits; an event that commits later is simply numbered later.
    """
    with store.transaction() as connection:
        if store.is_postgresql:
            rows(connection, "SELECT 1 FROM sessions WHERE id = :id FOR NO KEY UPDATE", {"id": session_id})
        last = rows(
            connection,
            "SELECT seq, hash FROM events WHERE session_id = :id AND seq IS NOT NULL ORDER BY seq DESC LIMIT 1",
            {"id": session_id},
        )
        # All of it may have been pruned; what is new is chained to what was.
        last = last or rows(
            connection,
            "SELECT seq, hash FROM anchors WHERE session_id = :id ORDER BY seq DESC LIMIT 1",
            {"id": session_id},
        )
        seq, previous = (int(last[0][0]), str(last[0][1])) if last else (0, GENESIS)
        pending = [
            _event(row)
            for row in rows(
                connection,
                f"SELECT {_COLUMNS} FROM events WHERE session_id = :id AND seq IS NULL ORDER BY id LIMIT :limit",
                {"id": session_id, "limit": limit},
            )
        ]
        sealed: list[dict[str, object]] = []
        for event in pending:
            seq += 1
            previous = chain_hash(previous, event, seq)
            sealed.append({"id": event.id, "seq": seq, "hash": previous})
        if store.is_postgresql:
            rows(
                connection,
                """UPDATE events e SET seq = s.seq, hash = s.hash
                    FROM unnest(CAST(:ids AS bigint[]), CAST(:seqs AS bigint[]), CAST(:hashes AS text[]))
                        AS s(id, seq, hash)
                    WHERE e.id = s.id AND e.seq IS NULL""",
                {
                    "ids": [row["id"] for row in sealed],
                    "seqs": [row["seq"] for row in sealed],
                    "hashes": [row["hash"] for row in sealed],
                },
            )
        else:
            for row in sealed:
                rows(
                    connection,
                    "UPDATE events SET seq = :seq, hash = :hash WHERE id = :id AND seq IS NULL",
                    row,
                )
    return len(pending)


def replay(store: Reader, session_id: str, after_seq: int, limit: int) -> list[StoredEvent]:
    """Sealed events of a session in their order, from `after_seq` (exclusive) on."""
    found = store.read(
        f"""SELECT {_COLUMNS} FROM events WHERE session_id = :id AND seq > :after ORDER BY seq LIMIT :limit""",
        {"id": session_id, "after": after_seq, "limit": limit},
    )
    return [_event(row) for row in found]


def after_id(store: Store, event_id: int, limit: int) -> list[StoredEvent]:
    """Events in the order in which they were written, sealed or not."""
    found = store.read(
        f"SELECT {_COLUMNS} FROM events WHERE id > :id ORDER BY id LIMIT :limit",
        {"id": event_id, "limit": limit},
    )
    return [_event(row) for row in found]


def position(store: Store) -> int:
    """The last event that has been written."""
    return int(store.read("SELECT coalesce(max(id), 0) FROM events", {})[0][0])


def cancelled_after(store: Store, event_id: int, rule: str) -> set[str]:
    """The actions that `rule` has cancelled by the events after `event_id`, whoever wrote them."""
    found = store.read(
        """SELECT e.action_id FROM events e JOIN actions a ON a.id = e.action_id
            WHERE e.id > :id AND e.kind = 'action.cancelled' AND a.rule = :rule""",
        {"id": event_id, "rule": rule},
    )
    return {str(row[0]) for row in found}


def latest(store: Store, limit: int) -> list[StoredEvent]:
    found = store.read(f"SELECT {_COLUMNS} FROM events ORDER BY id DESC LIMIT :limit", {"limit": limit})
    return [_event(row) for row in reversed(found)]


def of_action(store: Store, action_id: str) -> list[StoredEvent]:
    found = store.read(f"SELECT {_COLUMNS} FROM events WHERE action_id = :id ORDER BY id", {"id": action_id})
    return [_event(row) for row in found]


def end_of_attempt(store: Store, action_id: str, attempt: int) -> tuple[State, int] | None:
    """(state, instant) of what ended an attempt."""
    found = store.read(
        """SELECT state, at_us FROM events WHERE action_id = :id AND attempt = :attempt AND state IS NOT NULL
            AND state <> 'running' AND kind NOT IN ('action.submitted', 'action.released') ORDER BY id LIMIT 1""",
        {"id": action_id, "attempt": attempt},
    )
    return (State(found[0][0]), int(found[0][1])) if found else None


def was_edited(store: Store, action_id: str, ticket_id: str) -> bool:
    """Whether somebody who decides about the ticket has put other arguments in place of the ones asked for."""
    found = store.read("SELECT payload FROM events WHERE action_id = :id AND kind = 'ticket.voted'", {"id": action_id})
    payloads = (json.loads(row[0]) for row in found)
    return any(payload.get("ticket") == ticket_id and "digest_before" in payload for payload in payloads)


def sessions_with_events(store: Reader) -> list[str]:
    return [str(row[0]) for row in store.read("SELECT DISTINCT session_id FROM events ORDER BY session_id", {})]


def silent_sessions(store: Reader) -> list[str]:
    """Sessions without any event, although each begins with one, and without an anchor in the place of them."""
    found = store.read(
        """SELECT id FROM sessions s WHERE NOT EXISTS (SELECT 1 FROM anchors n WHERE n.session_id = s.id)
            AND NOT EXISTS (SELECT 1 FROM events e WHERE e.session_id = s.id AND e.seq > 0)
            AND id NOT IN (SELECT session_id FROM events WHERE seq IS NULL) ORDER BY id""",
        {},
    )
    return [str(row[0]) for row in found]


def by_action(store: Reader, batch: int) -> Iterator[tuple[str, State | None, list[StoredEvent]]]:
    """Every action's state and whole history, one action at a time, in pages of `batch` actions."""
    last = ""
    while True:
        ids = store.read(
            "SELECT DISTINCT action_id FROM events WHERE action_id > :last ORDER BY action_id LIMIT :limit",
            {"last": last, "limit": batch},
        )
        if not ids:
            return
        page = {"first": str(ids[0][0]), "last": str(ids[-1][0])}
        last = page["last"]
        found = store.read(
            f"""SELECT {_COLUMNS} FROM events WHERE action_id >= :first AND action_id <= :last
                ORDER BY action_id, id""",
            page,
        )
        states = {
            str(row[0]): State(row[1])
            for row in store.read("SELECT id, state FROM actions WHERE id >= :first AND id <= :last", page)
        }
        for action_id, history in groupby(map(_event, found), key=lambda event: str(event.action_id)):
            yield action_id, states.get(action_id), list(history)


def _event(row: Sequence[Any]) -> StoredEvent:
    return StoredEvent(
        id=row[0],
        session_id=row[1],
        kind=row[2],
        actor=row[3],
        at_us=row[4],
        action_id=row[5],
        attempt=row[6],
        state=State(row[7]) if row[7] is not None else None,
        payload=row[8],
        seq=row[9],
        hash=row[10],
    )
