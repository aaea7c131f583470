"""Policies and sessions: written once, by whoever needs them first, never changed; safe to keep in memory."""

from collections.abc import Sequence

from sqlalchemy import Connection

from governance.core.events import Event
from governance.core.ledger import Account
from governance.core.policy import Policy
from governance.core.sessions import Session
from governance.core.windows import Window
from governance.store.accounts import open_in as open_account_in
from governance.store.engine import Reader, Store, rows
from governance.store.events import append_in

_COLUMNS = "id, stream, window_start_us, window_end_us, policy_hash"


def keep_policy(store: Store, policy: Policy, source: str, now_us: int) -> None:
    store.run(
        "INSERT INTO policies (hash, source, created_us) VALUES (:hash, :source, :now) ON CONFLICT DO NOTHING",
        {"hash": policy.hash, "source": source, "now": now_us},
    )


def policy_source(store: Store, policy_hash: str) -> str | None:
    found = store.read("SELECT source FROM policies WHERE hash = :hash", {"hash": policy_hash})
    return str(found[0][0]) if found else None


def find(store: Store, session_id: str) -> Session | None:
    found = store.read(f"SELECT {_COLUMNS} FROM sessions WHERE id = :id", {"id": session_id})
    return as_session(found[0]) if found else None


def latest(store: Reader, limit: int) -> list[tuple[str, str]]:
    """Ids and streams of the sessions with the latest windows."""
    found = store.read("SELECT id, stream FROM sessions ORDER BY window_end_us DESC, id LIMIT :limit", {"limit": limit})
    return [(row[0], row[1]) for row in found]


def ends(store: Reader) -> dict[str, int]:
    """When the window of every session ends that was ever opened, by its id."""
    return {str(row[0]): int(row[1]) for row in store.read("SELECT id, window_end_us FROM sessions", {})}


def at(store: Store, stream: str, now_us: int) -> Session | None:
    """The session of a stream whose window contains `now_us`."""
    found = store.read(
        f"""SELECT {_COLUMNS} FROM sessions WHERE stream = :stream AND window_start_us <= :now AND window_end_us > :now
            ORDER BY window_start_us DESC LIMIT 1""",
        {"stream": stream, "now": now_us},
    )
    return as_session(found[0]) if found else None


def last_end(store: Store, stream: str, now_us: int) -> int | None:
    """When the last session of a stream that is over ended."""
    found = store.read(
        "SELECT max(window_end_us) FROM sessions WHERE stream = :stream AND window_end_us <= :now",
        {"stream": stream, "now": now_us},
    )
    return found[0][0] if found else None


def next_start(store: Store, stream: str, from_us: int) -> int | None:
    """When the next session of a stream begins that was opened ahead."""
    found = store.read(
        "SELECT min(window_start_us) FROM sessions WHERE stream = :stream AND window_start_us > :from",
        {"stream": stream, "from": from_us},
    )
    return found[0][0] if found else None


def open_once(store: Store, session: Session, accounts: Sequence[Account], event: Event) -> Session:
    """Opens `session` with its accounts unless it is open already; returns the one that is."""
    with store.transaction() as connection:
        open_in(connection, session, accounts, event)
        return as_session(rows(connection, f"SELECT {_COLUMNS} FROM sessions WHERE id = :id", {"id": session.id})[0])


def open_in(connection: Connection, session: Session, accounts: Sequence[Account], event: Event) -> bool:
    """`open_once` in the caller's transaction; whether this call opened it."""
    opened = rows(
        connection,
        f"""INSERT INTO sessions ({_COLUMNS}, opened_us)
            VALUES (:id, :stream, :start, :end, :policy, :now) ON CONFLICT DO NOTHING RETURNING id""",
        {
            "id": session.id,
            "stream": session.stream,
            "start": session.window.start_us,
            "end": session.window.end_us,
            "policy": session.policy_hash,
            "now": event.at_us,
        },
    )
    for account in accounts if opened else ():
        open_account_in(connection, account, scope="session", scope_id=session.id, window=session.window)
    if opened:
        append_in(connection, event)
    return bool(opened)


def as_session(row: Sequence[object]) -> Session:
    id_, stream, start, end, policy_hash = row
    return Session(str(id_), str(stream), Window(int(str(start)), int(str(end))), str(policy_hash))
