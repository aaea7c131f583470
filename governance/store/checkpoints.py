"""Checkpoints: saving one with what it refers to, finding those that count, marking what a restore passed over."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, select

from governance.core.checkpoints import Checkpoint
from governance.core.events import Event
from governance.store.accounts import ACCOUNTS
from governance.store.engine import Store, rows
from governance.store.parameters import EVENT_COLUMNS, EVENT_PARAMETERS, event_values
from governance.store.schema.work import checkpoints

_COLUMNS = "id, stream, session_id, made_us, made_by, action_id, cycle, event_id, control, state, digest"
_PARAMETERS = ", ".join(f":{column.strip()}" for column in _COLUMNS.split(","))
# Of every stream the sessions that its actions of that time can be in.
_LATER = """SELECT a.id FROM sessions s JOIN actions a ON a.session_id = s.id
    WHERE s.stream = :stream AND s.window_end_us > :since AND a.created_us > :since"""


def control(store: Store, stream: str, session_id: str, limit: int) -> Mapping[str, Any]:
    """What a stream's control state is made of: its open tickets, the engaged switches, its session's balances."""
    tickets = store.read(
        """SELECT t.id, t.action_id, t.level, t.expires_us FROM tickets t JOIN actions a ON a.ticket_id = t.id
            WHERE t.state = 'pending' AND a.stream = :stream ORDER BY t.id LIMIT :limit""",
        {"stream": stream, "limit": limit},
    )
    switches = store.read("SELECT id, scope, scope_id, mode FROM switches WHERE released_us IS NULL ORDER BY id", {})
    accounts = store.read(
        f"""SELECT unit, limit_amount, posted, held FROM {ACCOUNTS} c
            WHERE scope = 'session' AND scope_id = :session ORDER BY unit""",
        {"session": session_id},
    )
    return {
        "session": session_id,
        "tickets": {row[0]: {"action": row[1], "level": row[2], "expires_us": row[3]} for row in tickets},
        "switches": {row[0]: f"{row[3]} {row[1]}:{row[2]}" for row in switches},
        "accounts": {row[0]: {"limit": row[1], "posted": row[2], "held": row[3]} for row in accounts},
    }


def save(store: Store, checkpoint: Checkpoint, event: Event, *, attempt: int | None, alone: bool = False) -> bool:
    """Writes a checkpoint and its event; with `attempt`, False unless that is the one that runs its action.

    `alone`: it takes the place of the earlier ones of its stream.
    """
    owned = "FROM actions WHERE id = :e_action AND attempt = :e_attempt AND state = 'running'"
    with store.transaction() as connection:
        if attempt is None:
            told = rows(
                connection,
                f"INSERT INTO events ({EVENT_COLUMNS}) VALUES ({EVENT_PARAMETERS}) RETURNING id",
                event_values(event),
            )
        else:
            told = rows(
                connection,
                f"INSERT INTO events ({EVENT_COLUMNS}) SELECT {EVENT_PARAMETERS} {owned} RETURNING id",
                event_values(event),
            )
        if told and alone:
            earlier = "DELETE FROM checkpoints WHERE stream = :stream RETURNING id"
            rows(connection, earlier, {"stream": checkpoint.stream})
        if told:
            values = {name.strip(): getattr(checkpoint, name.strip()) for name in _COLUMNS.split(",")}
            rows(connection, f"INSERT INTO checkpoints ({_COLUMNS}) VALUES ({_PARAMETERS})", values)
    return bool(told)


def find(store: Store, checkpoint_id: str) -> RowMapping | None:
    with store.statement() as connection:
        return connection.execute(select(checkpoints).where(checkpoints.c.id == checkpoint_id)).mappings().first()


def last(store: Store, stream: str, *, with_state: bool = False) -> RowMapping | None:
    """The latest checkpoint of a stream that no restore has passed over."""
    query = (
        select(checkpoints)
        .where(checkpoints.c.stream == stream, checkpoints.c.superseded_us.is_(None))
        .order_by(checkpoints.c.made_us.desc(), checkpoints.c.id.desc())
        .limit(1)
    )
    if with_state:
        query = query.where(checkpoints.c.state.is_not(None))
    with store.statement() as connection:
        return connection.execute(query).mappings().first()


def listing(store: Store, *, stream: str | None, limit: int) -> list[RowMapping]:
    """The latest first."""
    query = select(checkpoints).order_by(checkpoints.c.made_us.desc(), checkpoints.c.id.desc()).limit(limit)
    if stream is not None:
        query = query.where(checkpoints.c.stream == stream)
    with store.statement() as connection:
        return list(connection.execute(query).mappings())


def open_streams(store: Store, now_us: int) -> list[tuple[str, str]]:
    """(stream, session) of every window that is open now."""
    found = store.read(
        """SELECT stream, id FROM sessions
            WHERE closed_us IS NULL AND window_start_us <= :now AND window_end_us > :now ORDER BY stream""",
        {"now": now_us},
    )
    return [(str(row[0]), str(row[1])) for row in found]


def later_actions(store: Store, stream: str, since_us: int, state: str) -> list[str]:
    """Ids of the actions of a stream that were made after then and are in this state."""
    found = store.read(f"{_LATER} AND a.state = :state ORDER BY a.id", _since(stream, since_us) | {"state": state})
    return [str(row[0]) for row in found]


def supersede_in(
    connection: Connection, stream: str, *, since_us: int, by: str, at_us: int, limit: int
) -> Sequence[Any]:
    """Marks the checkpoints of a stream made after `by`, and a batch of the actions; (id, state) of those."""
    rows(
        connection,
        """UPDATE checkpoints SET superseded_us = :at, superseded_by = :by
            WHERE stream = :stream AND superseded_us IS NULL AND id <> :by
                AND (made_us > :since OR (made_us = :since AND id > :by))""",
        _since(stream, since_us) | {"at": at_us, "by": by},
    )
    return rows(
        connection,
        f"""UPDATE actions SET superseded_by = :by WHERE id IN ({_LATER} AND a.superseded_by IS NULL LIMIT :limit)
            RETURNING id, state""",
        _since(stream, since_us) | {"by": by, "limit": limit},
    )


def forget(store: Store, cutoff_us: int, limit: int) -> int:
    """Deletes up to `limit` checkpoints made before then whose session's history was pruned; how many.

    Never the last one of its stream that no restore has passed over, nor the last of these with an agent's state: that
    is what an agent goes on from.
    """
    return len(
        store.run(
            """DELETE FROM checkpoints WHERE id IN (SELECT c.id FROM checkpoints c WHERE c.made_us < :cutoff
                AND EXISTS (SELECT 1 FROM anchors n WHERE n.session_id = c.session_id)
                AND (c.superseded_us IS NOT NULL OR EXISTS (SELECT 1 FROM checkpoints l WHERE l.stream = c.stream
                    AND l.superseded_us IS NULL AND (l.made_us, l.id) > (c.made_us, c.id)
                    AND (l.state IS NOT NULL OR c.state IS NULL)))
                LIMIT :limit) RETURNING id""",
            {"cutoff": cutoff_us, "limit": limit},
        )
    )


def _since(stream: str, since_us: int) -> dict[str, Any]:
    return {"stream": stream, "since": since_us}
