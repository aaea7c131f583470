"""Pruning: what stands in the way of it, the anchor that replaces a session's history, and deleting in small steps.

The anchor is written first, in one transaction that finds the session at rest. From then on its history no longer
counts, whatever is left of it; any process may go on deleting.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from governance.core.actions import State
from governance.core.audit import Anchor, Beginning
from governance.core.events import Event
from governance.store.accounts import ACCOUNTS
from governance.store.engine import Reader, Store, rows
from governance.store.events import append_in
from governance.store.guards import PRUNES

_ANCHOR = "session_id, seq, hash, events, pruned_us, recorded_in, cleared_us"


@dataclass(frozen=True, slots=True)
class Aged:
    """A session whose window is over, with sealed events that no anchor stands for: those after `after_seq`."""

    session_id: str
    window_start_us: int
    after_seq: int
    seq: int
    hash: str

    @property
    def events(self) -> int:
        return self.seq - self.after_seq


# What keeps a session, and how many of it there are. In the order in which people are told.
_IN_THE_WAY: tuple[tuple[str, str], ...] = (
    (
        "actions are not over, or nobody has been told of their end",
        "SELECT count(*) FROM actions WHERE delivered_us IS NULL AND session_id = :session",
    ),
    (
        "events are not sealed",
        "SELECT count(*) FROM events WHERE seq IS NULL AND session_id = :session",
    ),
    (
        "accounts hold something",
        f"SELECT count(*) FROM {ACCOUNTS} c WHERE scope = 'session' AND scope_id = :session AND held <> 0",
    ),
    (
        "events are younger",
        """SELECT count(*) FROM events
            WHERE session_id = :session AND seq > :after AND seq <= :seq AND at_us > :cutoff""",
    ),
    (
        "grants stand on decisions in it",
        """SELECT count(*) FROM grants g JOIN tickets t ON t.id = g.ticket_id JOIN actions a ON a.id = t.action_id
            WHERE a.session_id = :session AND coalesce(g.revoked_us, :cutoff + 1) > :cutoff
            AND coalesce(g.until_us, :cutoff + 1) > :cutoff AND NOT EXISTS (SELECT 1 FROM sessions w
                WHERE w.id = g.session_id AND w.window_end_us <= :cutoff)""",
    ),
)
# What would be lost as evidence, and how much of it there is.
_WRONG: tuple[tuple[str, str], ...] = (
    (
        "actions are not in the state in which its trail left them",
        """SELECT count(*) FROM actions a WHERE a.session_id = :session
            AND a.id IN (SELECT action_id FROM events WHERE session_id = :session AND seq > :after AND seq <= :seq)
            AND a.state <> (SELECT e.state FROM events e
                WHERE e.action_id = a.id AND e.state IS NOT NULL ORDER BY e.id DESC LIMIT 1)""",
    ),
    (
        "accounts are not the sums of their entries",
        """SELECT count(DISTINCT a.account) FROM accounts a
            WHERE a.scope = 'session' AND a.scope_id = :session AND a.posted <>
            (SELECT coalesce(sum(e.posted_delta), 0) FROM entries e WHERE e.account_id = a.id)""",
    ),
)


def aged(store: Reader, cutoff_us: int) -> list[Aged]:
    """Sessions whose window ended before then and that have something to prune, the earliest first."""
    found = store.read(
        """SELECT s.id, s.window_start_us, s.after_seq, e.seq, e.hash FROM
            (SELECT id, window_start_us, window_end_us, coalesce((SELECT max(n.seq) FROM anchors n
                WHERE n.session_id = sessions.id), 0) AS after_seq FROM sessions WHERE window_end_us <= :cutoff) s
            JOIN events e ON e.session_id = s.id AND e.seq = (SELECT max(l.seq) FROM events l
                WHERE l.session_id = s.id AND l.seq IS NOT NULL)
            WHERE e.seq > s.after_seq ORDER BY s.window_start_us, s.id""",
        {"cutoff": cutoff_us},
    )
    return [Aged(str(row[0]), int(row[1]), int(row[2]), int(row[3]), str(row[4])) for row in found]


def in_the_way(connection: Connection, session: Aged, cutoff_us: int) -> str | None:
    """Why a session has to stay for now; None when nothing keeps it."""
    return _first(connection, _IN_THE_WAY, session, cutoff_us)


def earlier(connection: Connection, session: Aged) -> list[str]:
    """Earlier sessions whose history is kept and goes on in this one: an action's is cut at its beginning only."""
    found = rows(
        connection,
        """SELECT DISTINCT f.session_id FROM events e
            JOIN events f ON f.action_id = e.action_id AND f.session_id <> e.session_id
            JOIN sessions s ON s.id = f.session_id AND s.window_start_us < :start
            WHERE e.session_id = :session AND e.seq > :after AND e.seq <= :seq AND NOT EXISTS
                (SELECT 1 FROM anchors n WHERE n.session_id = f.session_id AND n.seq >= f.seq) ORDER BY f.session_id""",
        _values(session),
    )
    return [str(row[0]) for row in found]


def wrong(connection: Connection, session: Aged) -> str | None:
    """What of a session's books does not agree, apart from its chain."""
    return _first(connection, _WRONG, session, 0)


def anchor(store: Store, session: Aged, cutoff_us: int, event: Event) -> bool:
    """Puts an anchor in place of a session's history, with its event; False when the session is no longer at rest."""
    with store.transaction() as connection:
        if store.is_postgresql:
            rows(connection, "SELECT 1 FROM sessions WHERE id = :id FOR UPDATE", {"id": session.session_id})
        if in_the_way(connection, session, cutoff_us) is not None:
            return False
        anchored = rows(
            connection,
            f"""INSERT INTO anchors ({_ANCHOR}) SELECT session_id, seq, hash, :events, :now, :recorded, NULL
                FROM events WHERE session_id = :session AND seq = :seq AND hash = :hash AND seq = (SELECT max(l.seq)
                    FROM events l WHERE l.session_id = :session AND l.seq IS NOT NULL)
                ON CONFLICT DO NOTHING RETURNING seq""",
            {
                "session": session.session_id,
                "seq": session.seq,
                "hash": session.hash,
                "events": session.events,
                "now": event.at_us,
                "recorded": event.session_id,
            },
        )
        if anchored:
            _cut_histories(store, connection, session)
            append_in(connection, event)
    return bool(anchored)


def _cut_histories(store: Store, connection: Connection, session: Aged) -> None:
    """Notes at the actions that went on in later sessions how far their history is pruned."""
    values = _values(session)
    carried = """session_id <> :session AND id IN (SELECT action_id FROM events
        WHERE session_id = :session AND seq > :after AND seq <= :seq AND state IS NOT NULL)"""
    if store.is_postgresql:
        # In the order in which others lock several actions.
        rows(connection, f"SELECT 1 FROM actions WHERE {carried} ORDER BY id FOR NO KEY UPDATE", values)
    last = """(SELECT {column} FROM events e WHERE e.action_id = actions.id AND e.session_id = :session
        AND e.seq <= :seq AND e.state IS NOT NULL ORDER BY e.id DESC LIMIT 1)"""
    rows(
        connection,
        f"""UPDATE actions SET pruned_state = {last.format(column="e.state")},
            pruned_attempt = {last.format(column="e.attempt")} WHERE {carried}""",
        values,
    )


def clear(store: Store, session_id: str, seq: int, limit: int, now_us: int) -> int:
    """Deletes up to `limit` rows of what an anchor stands for, children first; 0 when it is cleared."""
    values = {"session": session_id, "seq": seq, "limit": limit, "now": now_us}
    with store.transaction() as connection:
        if store.is_postgresql:
            rows(connection, f"SELECT set_config('{PRUNES}', 'on', true)", {})
            rows(connection, "SELECT 1 FROM sessions WHERE id = :session FOR NO KEY UPDATE", values)
        for step in (_clear_entries, _clear_events):
            if deleted := step(connection, values):
                return deleted
        rows(connection, "DELETE FROM accounts WHERE scope = 'session' AND scope_id = :session", values)
        rows(
            connection,
            """UPDATE anchors SET cleared_us = :now
                WHERE session_id = :session AND seq = :seq AND cleared_us IS NULL""",
            values,
        )
    return 0


def _clear_entries(connection: Connection, values: dict[str, Any]) -> int:
    return len(
        rows(
            connection,
            """DELETE FROM entries WHERE id IN (SELECT e.id FROM entries e WHERE e.account_id IN
                (SELECT id FROM accounts WHERE scope = 'session' AND scope_id = :session) LIMIT :limit) RETURNING id""",
            values,
        )
    )


def _clear_events(connection: Connection, values: dict[str, Any]) -> int:
    """The earliest events, and the actions they speak of, if they ended in this session, with all that is theirs."""
    last = rows(
        connection,
        """SELECT max(seq) FROM (SELECT seq FROM events WHERE session_id = :session AND seq <= :seq
            ORDER BY seq LIMIT :limit) AS page""",
        values,
    )[0][0]
    if last is None:
        return 0
    page = {"session": values["session"], "last": last}
    ended = """SELECT id FROM actions WHERE session_id = :session AND id IN
        (SELECT action_id FROM events WHERE session_id = :session AND seq <= :last)"""
    tickets = f"SELECT id FROM tickets WHERE action_id IN ({ended})"
    rows(connection, f"DELETE FROM grants WHERE ticket_id IN ({tickets})", page)
    rows(connection, f"DELETE FROM tickets WHERE action_id IN ({ended})", page)
    rows(connection, f"DELETE FROM model_calls WHERE action_id IN ({ended})", page)
    rows(connection, f"DELETE FROM actions WHERE id IN ({ended})", page)
    return len(
        rows(connection, "DELETE FROM events WHERE session_id = :session AND seq <= :last RETURNING id", page),
    )


def prune_commands(store: Store, cutoff_us: int, limit: int) -> int:
    """Forgets up to `limit` answers of calls before then."""
    return len(
        store.run(
            """DELETE FROM commands WHERE id IN
                (SELECT id FROM commands WHERE at_us < :cutoff ORDER BY at_us LIMIT :limit) RETURNING id""",
            {"cutoff": cutoff_us, "limit": limit},
        )
    )


def prune_ticks(store: Store, cutoff_us: int) -> int:
    """Forgets the ticks before then; `claim_tick` keeps them few."""
    return len(store.run("DELETE FROM ticks WHERE claimed_us < :cutoff RETURNING job", {"cutoff": cutoff_us}))


def anchors(store: Reader, session_id: str | None = None) -> list[Anchor]:
    """Every anchor, or those of one session, in the order of their numbers."""
    where = "WHERE session_id = :id" if session_id is not None else ""
    found = store.read(f"SELECT {_ANCHOR} FROM anchors {where} ORDER BY session_id, seq", {"id": session_id})
    return [_anchor(row) for row in found]


def uncleared(store: Reader) -> list[Anchor]:
    found = store.read(
        f"SELECT {_ANCHOR} FROM anchors WHERE cleared_us IS NULL ORDER BY pruned_us, session_id, seq", {}
    )
    return [_anchor(row) for row in found]


def beginnings(store: Reader) -> dict[str, Beginning]:
    """Where the histories begin whose first part is pruned, by action."""
    found = store.read("SELECT id, pruned_state, pruned_attempt FROM actions WHERE pruned_state IS NOT NULL", {})
    return {str(row[0]): Beginning(State(row[1]), int(row[2])) for row in found}


def _first(connection: Connection, checks: Sequence[tuple[str, str]], session: Aged, cutoff_us: int) -> str | None:
    values = {**_values(session), "cutoff": cutoff_us}
    for what, sql in checks:
        if count := int(rows(connection, sql, values)[0][0]):
            return f"{count} {what}"
    return None


def _values(session: Aged) -> dict[str, Any]:
    return {
        "session": session.session_id,
        "start": session.window_start_us,
        "after": session.after_seq,
        "seq": session.seq,
    }


def _anchor(row: Sequence[Any]) -> Anchor:
    return Anchor(
        session_id=row[0],
        seq=row[1],
        hash=row[2],
        events=row[3],
        pruned_us=row[4],
        recorded_in=row[5],
        cleared=row[6] is not None,
    )
