"""Actions as the sweeps pick them up: what is due, unpublished, silent, forsaken, or runs where nobody is."""

from collections.abc import Mapping
from typing import Any

from governance.store.action_rows import ActionRow
from governance.store.actions import listed
from governance.store.engine import Store

# What the sweeps look for goes by creation, not by id: the index of what is live ends there, and an order by id would
# tempt the database to walk through all of history in search of it.


def due(store: Store, now_us: int, limit: int) -> list[ActionRow]:
    """Deferred actions whose time has come, oldest first."""
    return listed(
        store,
        """a.delivered_us IS NULL AND a.state = 'deferred' AND a.switch_id IS NULL AND a.not_before_us <= :now
            ORDER BY a.created_us, a.id LIMIT :limit""",
        {"now": now_us, "limit": limit},
    )


def unpublished(store: Store, now_us: int, limit: int) -> list[ActionRow]:
    """Actions whose message is known not to be on its way, oldest first."""
    return listed(
        store,
        """a.delivered_us IS NULL AND NOT a.direct AND a.published_us IS NULL
            AND a.state IN ('queued', 'parked', 'denied', 'cancelled', 'failed', 'succeeded')
            AND (a.not_before_us IS NULL OR a.not_before_us <= :now) ORDER BY a.created_us, a.id LIMIT :limit""",
        {"now": now_us, "limit": limit},
    )


def silent(store: Store, *, stale_us: int, now_us: int, limit: int) -> list[ActionRow]:
    """Actions whose message had no effect for `stale_us`, or twice as long for every publication more.

    One from the future was published before the clock was put back: nobody knows how long ago.
    """
    return listed(
        store,
        """a.delivered_us IS NULL AND NOT a.direct
            AND a.state IN ('queued', 'denied', 'cancelled', 'failed', 'succeeded')
            AND (a.published_us > :now + CAST(:stale AS bigint)
                OR a.published_us + CAST(:stale AS bigint) * (1 << (CASE WHEN a.publish_count > 8 THEN 8
                    ELSE a.publish_count - 1 END)) <= :now)
            AND (a.not_before_us IS NULL OR a.not_before_us + :stale <= :now)
            ORDER BY a.created_us, a.id LIMIT :limit""",
        {"stale": stale_us, "now": now_us, "limit": limit},
    )


def forsaken(store: Store, before_us: int, limit: int) -> list[ActionRow]:
    """Direct calls that were recorded before then and never admitted: their callers are gone."""
    return listed(
        store,
        """a.delivered_us IS NULL AND a.direct AND a.state = 'queued' AND a.created_us < :before
            AND (a.started_us IS NULL OR a.started_us < :before) ORDER BY a.created_us, a.id LIMIT :limit""",
        {"before": before_us, "limit": limit},
    )


def orphaned(store: Store, before_us: int, limit: int) -> list[ActionRow]:
    """Running attempts, started before then, of an owner that nobody has registered."""
    return listed(
        store,
        """a.delivered_us IS NULL AND a.state = 'running' AND a.started_us < :before
            AND NOT EXISTS (SELECT 1 FROM workers w WHERE w.id = a.lease_worker)
            ORDER BY a.created_us, a.id LIMIT :limit""",
        {"before": before_us, "limit": limit},
    )


def in_doubt(store: Store, *, limit: int, without_ticket: bool = False) -> list[ActionRow]:
    """Actions in doubt, the oldest first; `without_ticket`: of those that nobody has been asked about.

    Nobody is asked about a drill's: it resolves its own.
    """
    asked = """a.name NOT LIKE 'acp.drill.%'
        AND NOT EXISTS (SELECT 1 FROM alerts t WHERE t.id = 'in-doubt:' || a.id || ':' || a.attempt)"""
    return listed(
        store,
        f"""a.delivered_us IS NULL AND a.state = 'in_doubt' AND {asked if without_ticket else "1 = 1"}
            ORDER BY a.created_us, a.id LIMIT :limit""",
        {"limit": limit},
    )


def leases_of(store: Store, worker_id: str, child: str | None = None) -> list[ActionRow]:
    """Every attempt that a worker runs, or one of its children: as many as they are, no page of them."""
    of_child = " AND a.lease_child = :child" if child is not None else ""
    return listed(
        store,
        f"a.delivered_us IS NULL AND a.state = 'running' AND a.lease_worker = :worker{of_child}",
        {"worker": worker_id, "child": child},
    )


def leased_by(store: Store, worker_id: str, limit: int) -> list[ActionRow]:
    return listed(
        store,
        """a.delivered_us IS NULL AND a.state = 'running' AND a.lease_worker = :worker
            ORDER BY a.created_us, a.id LIMIT :limit""",
        {"worker": worker_id, "limit": limit},
    )


def running_where(store: Store, where: str, values: Mapping[str, Any]) -> list[ActionRow]:
    """Running attempts under a condition on `actions a`, as many as there are."""
    return listed(store, f"a.delivered_us IS NULL AND a.state = 'running' AND {where}", dict(values))


def waiting_where(
    store: Store, where: str, values: Mapping[str, Any], *, after: tuple[int, str], limit: int
) -> list[ActionRow]:
    """A page, by creation and id after `after`, of what has not started under a condition on `actions a`."""
    return listed(
        store,
        f"""a.delivered_us IS NULL AND a.state IN ('queued', 'parked', 'deferred')
            AND (a.created_us, a.id) > (:after_us, :after_id) AND {where}
            ORDER BY a.created_us, a.id LIMIT :limit""",
        {**values, "after_us": after[0], "after_id": after[1], "limit": limit},
    )


def waiting_for(store: Store, rule: str, *, after: tuple[int, str], limit: int) -> list[ActionRow]:
    """A page, by creation and id after `after`, of what a rule has parked or deferred."""
    return listed(
        store,
        """a.delivered_us IS NULL AND a.state IN ('parked', 'deferred') AND a.rule = :rule AND a.switch_id IS NULL
            AND (a.created_us, a.id) > (:after_us, :after_id) ORDER BY a.created_us, a.id LIMIT :limit""",
        {"rule": rule, "after_us": after[0], "after_id": after[1], "limit": limit},
    )


def approval_of(store: Store, action_id: str) -> str | None:
    """The latest ticket of an action on which a person approved it for another rule than a budget's."""
    found = store.read(
        """SELECT id FROM tickets WHERE action_id = :id AND state IN ('approved', 'consumed')
            AND rule NOT LIKE 'budget:%' ORDER BY requested_us DESC LIMIT 1""",
        {"id": action_id},
    )
    return str(found[0][0]) if found else None


def open_in(store: Store, session_id: str, *, after: str, limit: int) -> list[ActionRow]:
    """A page, by id after `after`, of what waits in a session: for a worker, a person or a time."""
    return listed(
        store,
        """a.delivered_us IS NULL AND a.session_id = :session AND a.id > :after
            AND a.state IN ('queued', 'parked', 'deferred', 'in_doubt') ORDER BY a.id LIMIT :limit""",
        {"session": session_id, "after": after, "limit": limit},
    )


def running_in(store: Store, session_id: str, limit: int) -> list[ActionRow]:
    return listed(
        store,
        "a.delivered_us IS NULL AND a.session_id = :session AND a.state = 'running' ORDER BY a.id LIMIT :limit",
        {"session": session_id, "limit": limit},
    )


def any_open(store: Store, stream: str, name: str) -> bool:
    """Whether an action of that name, in a stream, is not over: one in doubt waits for a person."""
    return bool(
        store.read(
            """SELECT 1 FROM sessions s JOIN actions a ON a.session_id = s.id WHERE s.stream = :stream
                AND a.delivered_us IS NULL AND a.name = :name
                AND a.state IN ('queued', 'parked', 'deferred', 'running', 'in_doubt') LIMIT 1""",
            {"stream": stream, "name": name},
        )
    )


def made_since(store: Store, stream: str, name: str, since_us: int) -> tuple[int, int | None]:
    """How many actions of that name were made in a stream since then, and when the last of them."""
    found = store.read(
        """SELECT count(*), max(a.created_us) FROM sessions s JOIN actions a ON a.session_id = s.id
            WHERE s.stream = :stream AND s.window_end_us > :since AND a.name = :name AND a.created_us > :since""",
        {"stream": stream, "name": name, "since": since_us},
    )
    return int(found[0][0]), found[0][1]


def paused_by_released(store: Store, limit: int) -> list[ActionRow]:
    """Actions that wait for the end of a pause that is over."""
    return listed(
        store,
        """a.delivered_us IS NULL AND a.state = 'deferred' AND a.switch_id IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM switches s WHERE s.id = a.switch_id AND s.released_us IS NULL)
            ORDER BY a.created_us, a.id LIMIT :limit""",
        {"limit": limit},
    )
