"""Sessions whose window is over: what is left to be done in them, closing them, and turning one before its time."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, select

from governance.core.digest import canonical_json
from governance.core.events import Event
from governance.core.ledger import Account
from governance.core.sessions import Session
from governance.store.accounts import ACCOUNTS, LOCK_ORDER
from governance.store.engine import Store, rows
from governance.store.epochs import EPOCH, exclude_admissions
from governance.store.events import append_in
from governance.store.schema.work import sessions
from governance.store.sessions import as_session, open_in

_SESSION = "s.id, s.stream, s.window_start_us, s.window_end_us, s.policy_hash"
_OPEN = "a.delivered_us IS NULL AND a.state IN ('queued', 'parked', 'deferred', 'in_doubt', 'running')"
_SEALED = """SELECT kind, count(*), max(seq) FROM events
             WHERE session_id = :id AND seq IS NOT NULL GROUP BY kind"""


def ending(store: Store, before_us: int, limit: int, after: str = "") -> list[Session]:
    """A page, by id after `after`, of sessions that are not closed and whose window ends by then."""
    found = store.read(
        f"""SELECT {_SESSION} FROM sessions s
            WHERE s.closed_us IS NULL AND s.window_end_us <= :before AND s.id > :after ORDER BY s.id LIMIT :limit""",
        {"before": before_us, "after": after, "limit": limit},
    )
    return [as_session(row) for row in found]


def stragglers(store: Store, since_us: int, limit: int) -> list[Session]:
    """Sessions closed since then that something belongs to which is not over: it was written down late."""
    found = store.read(
        f"""SELECT {_SESSION} FROM sessions s WHERE s.closed_us >= :since
            AND EXISTS (SELECT 1 FROM actions a WHERE a.session_id = s.id AND {_OPEN}) ORDER BY s.id LIMIT :limit""",
        {"since": since_us, "limit": limit},
    )
    return [as_session(row) for row in found]


def was_used(store: Store, session_id: str) -> bool:
    """Whether anything has happened in a session besides its opening."""
    found = store.read(
        """SELECT (SELECT count(*) FROM (SELECT 1 FROM events
                WHERE session_id = :id AND seq IS NOT NULL LIMIT 2) AS sealed)
            + (SELECT count(*) FROM (SELECT 1 FROM events WHERE session_id = :id AND seq IS NULL LIMIT 2) AS others)""",
        {"id": session_id},
    )
    return int(found[0][0]) > 1


def begins(store: Store, stream: str, at_us: int) -> bool:
    """Whether a session of a stream begins then."""
    return bool(
        store.read(
            "SELECT 1 FROM sessions WHERE stream = :stream AND window_start_us = :at", {"stream": stream, "at": at_us}
        )
    )


def close(store: Store, session: Session, *, actor: str, at_us: int) -> dict[str, Any] | None:
    """Closes a session in which nothing is left to be done; its summary, None while something is, or when it is closed.

    No admission is under way meanwhile.
    """
    # What is sealed stays as it is: a day's millions are counted before the fleet is held up.
    sealed = store.read(_SEALED, _id(session))
    with store.transaction() as connection:
        exclude_admissions(store, connection)
        left = rows(connection, f"SELECT 1 FROM actions a WHERE a.session_id = :id AND {_OPEN} LIMIT 1", _id(session))
        closed = rows(connection, "SELECT closed_us FROM sessions WHERE id = :id", _id(session))
        if left or closed[0][0] is not None:
            return None
        summary = _summary(connection, session, sealed)
        rows(
            connection,
            f"""UPDATE sessions SET closed_us = :at, summary = :summary, epoch = {EPOCH} + 1
                WHERE id = :id AND closed_us IS NULL""",
            {**_id(session), "at": at_us, "summary": canonical_json(summary)},
        )
        append_in(connection, Event(session.id, "session.closed", actor, at_us, payload=summary))
    return summary


def turn(
    store: Store,
    session: Session,
    following: Session,
    *,
    accounts: Sequence[Account],
    turned: Event,
    opened: Event,
) -> bool:
    """Ends `session` where `following` begins, and opens that; False when it has ended or was turned meanwhile."""
    mine = f"SELECT 1 FROM accounts a WHERE scope = 'session' AND scope_id = :id ORDER BY {LOCK_ORDER} FOR UPDATE"
    with store.transaction() as connection:
        if store.is_postgresql:
            # Before the admissions are held off: they lock accounts first, too.
            rows(connection, mine, _id(session))
        exclude_admissions(store, connection)
        values = {**_id(session), "end": following.window.start_us, "before": session.window.end_us}
        ended = rows(
            connection,
            f"""UPDATE sessions SET window_end_us = :end, epoch = {EPOCH} + 1
                WHERE id = :id AND window_end_us = :before AND window_start_us < :end AND closed_us IS NULL
                RETURNING id""",
            values,
        )
        if not ended:
            return False
        rows(
            connection,
            "UPDATE accounts SET window_end_us = :end WHERE scope = 'session' AND scope_id = :id",
            values,
        )
        append_in(connection, turned)
        return open_in(connection, following, accounts, opened)


def used(store: Store, stream: str, since_us: int) -> dict[str, int]:
    """What the sessions of a stream that began since then have posted and hold, by unit."""
    found = store.read(
        """SELECT c.unit, sum(c.posted + c.held) FROM accounts c JOIN sessions s ON s.id = c.scope_id
            WHERE c.scope = 'session' AND s.stream = :stream AND s.window_start_us >= :since GROUP BY c.unit""",
        {"stream": stream, "since": since_us},
    )
    return {str(unit): int(amount) for unit, amount in found}


def listing(store: Store, *, stream: str | None, limit: int) -> list[RowMapping]:
    """Sessions for people, the latest first."""
    query = select(sessions).order_by(sessions.c.window_start_us.desc(), sessions.c.id).limit(limit)
    if stream is not None:
        query = query.where(sessions.c.stream == stream)
    with store.statement() as connection:
        return list(connection.execute(query).mappings())


def find(store: Store, session_id: str) -> RowMapping | None:
    with store.statement() as connection:
        return connection.execute(select(sessions).where(sessions.c.id == session_id)).mappings().first()


def _id(session: Session) -> dict[str, Any]:
    return {"id": session.id}


def _summary(connection: Connection, session: Session, sealed: Sequence[Any]) -> dict[str, Any]:
    kinds = Counter({kind: int(times) for kind, times, _ in sealed})
    upto = max((last for _, _, last in sealed), default=0)
    for rest in ("seq > :upto", "seq IS NULL"):
        for (kind,) in rows(
            connection, f"SELECT kind FROM events WHERE session_id = :id AND {rest}", {**_id(session), "upto": upto}
        ):
            kinds[kind] += 1
    accounts = rows(
        connection,
        f"""SELECT unit, limit_amount, posted FROM {ACCOUNTS} c
            WHERE scope = 'session' AND scope_id = :id ORDER BY unit""",
        _id(session),
    )
    return {
        "events": dict(sorted(kinds.items())),
        "accounts": {unit: {"limit": limit, "posted": posted} for unit, limit, posted in accounts},
    }
