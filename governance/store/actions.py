"""Reading actions: what admission gathers, what people list, and what the sweeps pick up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import RowMapping, func, select

from governance.core.actions import State
from governance.core.changes import ActionRef
from governance.core.ledger import Account, Hold, Unit
from governance.core.tickets import Ticket, TicketState
from governance.store.engine import Reader, Store
from governance.store.epochs import EPOCH
from governance.store.schema.ledger import entries
from governance.store.schema.work import actions


@dataclass(frozen=True, slots=True)
class ActionRow:
    """An action as admission reads it."""

    ref: ActionRef
    command_id: str
    name: str
    digest: str
    stream: str
    idempotent: bool
    direct: bool
    risk: str
    resource: str | None
    model: str | None
    agent_id: str | None
    user: str | None
    team: str | None
    org: str | None
    cost_micros: int
    tokens: int
    correlation_id: str
    message: str
    rule: str | None
    reason: str | None
    guidance: str | None
    suggest: str | None
    result: str | None
    error_type: str | None
    error: str | None
    not_before_us: int | None
    expires_us: int | None
    lease_worker: str | None
    lease_child: str | None
    created_us: int
    started_us: int | None
    published_us: int | None
    publish_count: int
    delivered_us: int | None
    grant_id: str | None
    switch_id: str | None
    ticket: Ticket | None


_ACTION = (
    "id",
    "session_id",
    "state",
    "attempt",
    "command_id",
    "name",
    "digest",
    "stream",
    "idempotent",
    "direct",
    "risk",
    "resource",
    "model",
    "agent_id",
    "user",
    "team",
    "org",
    "cost_micros",
    "tokens",
    "correlation_id",
    "message",
    "rule",
    "reason",
    "guidance",
    "suggest",
    "result",
    "error_type",
    "error",
    "not_before_us",
    "expires_us",
    "lease_worker",
    "lease_child",
    "created_us",
    "started_us",
    "published_us",
    "publish_count",
    "delivered_us",
    "grant_id",
    "switch_id",
)
_TICKET = ("id", "state", "digest", "rule", "policy_hash", "chain_hash", "step")
_COLUMNS = ", ".join([f'a."{column}"' for column in _ACTION] + [f"t.{column}" for column in _TICKET])
_FROM = "FROM actions a LEFT JOIN tickets t ON t.id = a.ticket_id"
_WIDTH = len(_ACTION) + len(_TICKET)


@lru_cache(maxsize=8)
def _gather_sql(accounts: int) -> str:
    names = ", ".join(f":account{n}" for n in range(accounts))
    return f"""SELECT {_COLUMNS}, c.id, c.unit, c.limit_amount, c.posted, c.held, c.window_end_us,
            {EPOCH}
        {_FROM} LEFT JOIN accounts c ON c.id IN ({names}) WHERE a.id = :id"""


def gather(
    store: Store, action_id: str, account_ids: Sequence[str]
) -> tuple[ActionRow, tuple[Account, ...], int] | None:
    """The action with its ticket, its accounts, the switches' epoch, as one statement saw them; None: unknown."""
    values: dict[str, object] = {"id": action_id}
    values.update((f"account{n}", account_id) for n, account_id in enumerate(account_ids))
    found = store.read(_gather_sql(len(account_ids)), values)
    if not found:
        return None
    accounts = tuple(
        Account(id=c[0], unit=Unit(c[1]), limit=c[2], posted=c[3], held=c[4], resets_us=c[5])
        for c in (row[_WIDTH:] for row in found)
        if c[0] is not None
    )
    return _action(found[0]), accounts, int(found[0][-1])


def find(store: Store, action_id: str) -> ActionRow | None:
    found = store.read(f"SELECT {_COLUMNS} {_FROM} WHERE a.id = :id", {"id": action_id})
    return _action(found[0]) if found else None


def find_by_command(store: Store, command_id: str, action_id: str) -> ActionRow | None:
    """The action that owns `command_id`, else the one that has `action_id`."""
    found = store.read(
        f"""SELECT {_COLUMNS} {_FROM} WHERE a.command_id = :command OR a.id = :id
            ORDER BY CASE WHEN a.command_id = :command THEN 0 ELSE 1 END LIMIT 1""",
        {"command": command_id, "id": action_id},
    )
    return _action(found[0]) if found else None


def standing(store: Store, action_id: str, attempt: int) -> tuple[bool, int]:
    """Whether `attempt` is the one that runs `action_id`, and the switches' epoch."""
    found = store.read(
        f"""SELECT (SELECT count(*) FROM actions WHERE id = :id AND attempt = :attempt AND state = 'running'),
            {EPOCH}""",
        {"id": action_id, "attempt": attempt},
    )
    return bool(found[0][0]), int(found[0][1])


def holds_of(store: Store, action_id: str, attempt: int) -> tuple[Hold, ...]:
    """What `attempt` holds and has not closed, in lock order."""
    found = store.read(
        """SELECT e.account_id, c.unit, e.held_delta FROM entries e JOIN accounts c ON c.id = e.account_id
            WHERE e.action_id = :id AND e.attempt = :attempt AND e.kind = 'hold' AND NOT EXISTS (
                SELECT 1 FROM entries d WHERE d.action_id = e.action_id AND d.attempt = e.attempt
                AND d.account_id = e.account_id AND d.kind <> 'hold')
            ORDER BY e.account_id""",
        {"id": action_id, "attempt": attempt},
    )
    return tuple(Hold(row[0], Unit(row[1]), row[2]) for row in found)


# What the sweeps look for goes by creation, not by id: the index of what is live ends there, and an order by id would
# tempt the database to walk through all of history in search of it.


def due(store: Store, now_us: int, limit: int) -> list[ActionRow]:
    """Deferred actions whose time has come, oldest first."""
    return _listed(
        store,
        """a.delivered_us IS NULL AND a.state = 'deferred' AND a.switch_id IS NULL AND a.not_before_us <= :now
            ORDER BY a.created_us, a.id LIMIT :limit""",
        {"now": now_us, "limit": limit},
    )


def unpublished(store: Store, now_us: int, limit: int) -> list[ActionRow]:
    """Actions whose message is known not to be on its way, oldest first."""
    return _listed(
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
    return _listed(
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
    return _listed(
        store,
        """a.delivered_us IS NULL AND a.direct AND a.state = 'queued' AND a.created_us < :before
            AND (a.started_us IS NULL OR a.started_us < :before) ORDER BY a.created_us, a.id LIMIT :limit""",
        {"before": before_us, "limit": limit},
    )


def orphaned(store: Store, before_us: int, limit: int) -> list[ActionRow]:
    """Running attempts, started before then, of an owner that nobody has registered."""
    return _listed(
        store,
        """a.delivered_us IS NULL AND a.state = 'running' AND a.started_us < :before
            AND NOT EXISTS (SELECT 1 FROM workers w WHERE w.id = a.lease_worker)
            ORDER BY a.created_us, a.id LIMIT :limit""",
        {"before": before_us, "limit": limit},
    )


def in_doubt(store: Store, *, limit: int, without_ticket: bool = False) -> list[ActionRow]:
    """Actions in doubt, the oldest first; `without_ticket`: of those that nobody has been asked about."""
    asked = "NOT EXISTS (SELECT 1 FROM alerts t WHERE t.id = 'in-doubt:' || a.id || ':' || a.attempt)"
    return _listed(
        store,
        f"""a.delivered_us IS NULL AND a.state = 'in_doubt' AND {asked if without_ticket else "1 = 1"}
            ORDER BY a.created_us, a.id LIMIT :limit""",
        {"limit": limit},
    )


def leases_of(store: Store, worker_id: str, child: str | None = None) -> list[ActionRow]:
    """Every attempt that a worker runs, or one of its children: as many as they are, no page of them."""
    of_child = " AND a.lease_child = :child" if child is not None else ""
    return _listed(
        store,
        f"a.delivered_us IS NULL AND a.state = 'running' AND a.lease_worker = :worker{of_child}",
        {"worker": worker_id, "child": child},
    )


def leased_by(store: Store, worker_id: str, limit: int) -> list[ActionRow]:
    return _listed(
        store,
        """a.delivered_us IS NULL AND a.state = 'running' AND a.lease_worker = :worker
            ORDER BY a.created_us, a.id LIMIT :limit""",
        {"worker": worker_id, "limit": limit},
    )


def running_where(store: Store, where: str, values: Mapping[str, Any]) -> list[ActionRow]:
    """Running attempts under a condition on `actions a`, as many as there are."""
    return _listed(store, f"a.delivered_us IS NULL AND a.state = 'running' AND {where}", dict(values))


def waiting_where(
    store: Store, where: str, values: Mapping[str, Any], *, after: tuple[int, str], limit: int
) -> list[ActionRow]:
    """A page, by creation and id after `after`, of what has not started under a condition on `actions a`."""
    return _listed(
        store,
        f"""a.delivered_us IS NULL AND a.state IN ('queued', 'parked', 'deferred')
            AND (a.created_us, a.id) > (:after_us, :after_id) AND {where}
            ORDER BY a.created_us, a.id LIMIT :limit""",
        {**values, "after_us": after[0], "after_id": after[1], "limit": limit},
    )


def open_in(store: Store, session_id: str, *, after: str, limit: int) -> list[ActionRow]:
    """A page, by id after `after`, of what waits in a session: for a worker, a person or a time."""
    return _listed(
        store,
        """a.delivered_us IS NULL AND a.session_id = :session AND a.id > :after
            AND a.state IN ('queued', 'parked', 'deferred', 'in_doubt') ORDER BY a.id LIMIT :limit""",
        {"session": session_id, "after": after, "limit": limit},
    )


def running_in(store: Store, session_id: str, limit: int) -> list[ActionRow]:
    return _listed(
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
    return _listed(
        store,
        """a.delivered_us IS NULL AND a.state = 'deferred' AND a.switch_id IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM switches s WHERE s.id = a.switch_id AND s.released_us IS NULL)
            ORDER BY a.created_us, a.id LIMIT :limit""",
        {"limit": limit},
    )


def republished(store: Store, action: ActionRow, now_us: int) -> bool:
    """Claims the next publication of a message, so that of two relays one publishes it."""
    return bool(
        store.run(
            """UPDATE actions SET published_us = :now, publish_count = publish_count + 1
                WHERE id = :id AND state = :state AND attempt = :attempt AND publish_count = :count RETURNING id""",
            {
                "now": now_us,
                "id": action.ref.id,
                "state": action.ref.state,
                "attempt": action.ref.attempt,
                "count": action.publish_count,
            },
        )
    )


def delivered(store: Store, action_id: str, now_us: int) -> bool:
    """Claims the delivery of a terminal action's outcome; False when it was delivered before."""
    return bool(
        store.run(
            """UPDATE actions SET delivered_us = :now WHERE id = :id AND delivered_us IS NULL
                AND state IN ('succeeded', 'failed', 'denied', 'cancelled') RETURNING id""",
            {"id": action_id, "now": now_us},
        )
    )


def undeliver(store: Store, action_id: str) -> None:
    """Has the outcome of an action that ended told again."""
    store.run(
        """UPDATE actions SET delivered_us = NULL, published_us = NULL
            WHERE id = :id AND delivered_us IS NOT NULL AND NOT direct""",
        {"id": action_id},
    )


def unpublish(store: Store, action_id: str) -> None:
    """Says that the message of a recorded action did not reach the broker; the relay publishes it."""
    store.run("UPDATE actions SET published_us = NULL WHERE id = :id AND delivered_us IS NULL", {"id": action_id})


def counts_by_state(store: Reader) -> dict[str, int]:
    found = store.read("SELECT state, count(*) FROM actions GROUP BY state", {})
    return {str(row[0]): int(row[1]) for row in found}


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


def whole(store: Store, action_id: str) -> RowMapping | None:
    with store.statement() as connection:
        return connection.execute(select(actions).where(actions.c.id == action_id)).mappings().first()


def spent(store: Store, action_id: str) -> dict[str, int]:
    """What an action has posted so far, by account."""
    query = (
        select(entries.c.account_id, func.sum(entries.c.posted_delta))
        .where(entries.c.action_id == action_id)
        .group_by(entries.c.account_id)
    )
    with store.statement() as connection:
        return {str(account): int(total) for account, total in connection.execute(query)}


def _listed(store: Store, where: str, values: dict[str, Any]) -> list[ActionRow]:
    """The actions under a condition, in order of creation; a limit in it goes before their tickets are looked up."""
    sql = f"""SELECT {_COLUMNS} FROM (SELECT * FROM actions a WHERE {where}) a
        LEFT JOIN tickets t ON t.id = a.ticket_id ORDER BY a.created_us, a.id"""
    return [_action(row) for row in store.read(sql, values)]


def _action(row: Sequence[Any]) -> ActionRow:
    id_, session_id, state, attempt, *columns = row[: len(_ACTION)]
    ticket_id, ticket_state, *ticket = row[len(_ACTION) : _WIDTH]
    named = dict(zip(_ACTION[4:], columns, strict=True))
    named |= {"idempotent": bool(named["idempotent"]), "direct": bool(named["direct"])}
    return ActionRow(
        ref=ActionRef(id_, session_id, State(state), attempt),
        ticket=Ticket(ticket_id, TicketState(ticket_state), *ticket) if ticket_id else None,
        **named,
    )
