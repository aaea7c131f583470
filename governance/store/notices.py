"""What the webhook has not heard of yet. The trail is its outbox: a ticket's `step` counts the events about it, its
`told_step` those that were told, so nothing has to be written twice, and nothing can be told that did not happen.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, select

from governance.core.digest import canonical_json
from governance.core.events import Event
from governance.store.engine import Reader, Store, rows
from governance.store.events import append_in
from governance.store.schema.trail import alerts

# Rows of `ticks` that are no ticks: until when somebody tells, or the receiver is left alone. One for each way to tell.
WEBHOOK_TURN: Final = "acp.notices.turn"
PUSH_TURN: Final = "acp.alerts.turn"


@dataclass(frozen=True, slots=True)
class UntoldTicket:
    """A ticket with steps to tell, and its action. Steps `told_step` + 1 to `step` are the last events about it."""

    id: str
    action_id: str
    state: str
    digest: str
    rule: str
    reason: str
    chain: str
    step: int
    told_step: int
    requested_us: int
    action_name: str
    risk: str
    resource: str | None
    agent_id: str | None
    user: str | None
    team: str | None
    org: str | None
    correlation_id: str
    cost_micros: int


@dataclass(frozen=True, slots=True)
class TicketEvent:
    """An event about a ticket, with its payload read."""

    id: int
    session_id: str
    kind: str
    actor: str
    at_us: int
    payload: Mapping[str, Any]


def anything_untold(store: Store) -> bool:
    found = store.read(
        """SELECT 1 WHERE EXISTS (SELECT 1 FROM tickets WHERE told_step < step)
            OR EXISTS (SELECT 1 FROM alerts WHERE told_us IS NULL)""",
        {},
    )
    return bool(found)


def untold_tickets(store: Reader, limit: int, after: str = "") -> list[UntoldTicket]:
    """The oldest first (a ticket's id begins with its time), from `after` (exclusive) on; never a drill's."""
    found = store.read(
        """SELECT t.id, t.action_id, t.state, t.digest, t.rule, t.reason, t.chain, t.step, t.told_step, t.requested_us,
                a.name, a.risk, a.resource, a.agent_id, a."user", a.team, a.org, a.correlation_id, a.cost_micros
            FROM tickets t JOIN actions a ON a.id = t.action_id
            WHERE t.told_step < t.step AND t.id > :after AND a.name NOT LIKE 'acp.drill.%'
            ORDER BY t.id LIMIT :limit""",
        {"after": after, "limit": limit},
    )
    return [UntoldTicket(*row) for row in found]


def events_about(store: Reader, action_id: str, ticket_id: str) -> list[TicketEvent]:
    """The events that made a ticket's steps, in their order."""
    found = store.read(
        "SELECT id, session_id, kind, actor, at_us, payload FROM events WHERE action_id = :id ORDER BY id",
        {"id": action_id},
    )
    read = [TicketEvent(row[0], row[1], row[2], row[3], row[4], json.loads(row[5])) for row in found]
    return [event for event in read if event.payload.get("ticket") == ticket_id]


def told(store: Store, ticket_id: str, *, before: int, after: int) -> bool:
    """Steps up to `after` are told; False when somebody else told since `before` was the last one.

    A consumption is the last step of its ticket and is not told: it counts as told with the one before it.
    """
    return bool(
        store.run(
            """UPDATE tickets SET told_step =
                    CASE WHEN state = 'consumed' AND step = CAST(:after AS integer) + 1 THEN step
                    ELSE CAST(:after AS integer) END
                WHERE id = :id AND told_step = :before RETURNING id""",
            {"id": ticket_id, "before": before, "after": after},
        )
    )


def untold_alerts(store: Store, limit: int) -> list[RowMapping]:
    """The oldest first."""
    query = select(alerts).where(alerts.c.told_us.is_(None)).order_by(alerts.c.at_us, alerts.c.id).limit(limit)
    with store.statement() as connection:
        return list(connection.execute(query).mappings())


def alert_told(store: Store, alert_id: str, now_us: int) -> bool:
    """False when somebody else has told it."""
    return bool(
        store.run(
            "UPDATE alerts SET told_us = :now WHERE id = :id AND told_us IS NULL RETURNING id",
            {"id": alert_id, "now": now_us},
        )
    )


def raise_alert(
    connection: Connection,
    *,
    alert_id: str,
    kind: str,
    payload: Mapping[str, object],
    at_us: int,
    session_id: str,
    finding: str | None,
) -> bool:
    """A new alert and its event in `session_id`, in the caller's transaction.

    False, and no event, when it is known or one for the same finding stands.
    """
    raised = rows(
        connection,
        """INSERT INTO alerts (id, kind, payload, at_us, finding) VALUES (:id, :kind, :payload, :at, :finding)
            ON CONFLICT DO NOTHING RETURNING id""",
        {"id": alert_id, "kind": kind, "payload": canonical_json(payload), "at": at_us, "finding": finding},
    )
    if raised:
        about = {"alert": alert_id, "kind": kind, "details": payload}
        append_in(connection, Event(session_id, "alert.raised", "governance", at_us, payload=about))
    return bool(raised)


def pass_over(store: Store, *, before_us: int, now_us: int, limit: int) -> int:
    """Counts up to `limit` tickets decided, and all alerts raised, before `before_us` as told, and a drill's; how many.

    Only decided tickets: all that can still happen to them is to be consumed, so that no step can slip in unseen.
    """
    passed = store.run(
        """UPDATE tickets SET told_step = step WHERE told_step < step AND id IN
            (SELECT t.id FROM tickets t JOIN actions a ON a.id = t.action_id WHERE t.told_step < t.step
                AND t.decided_us IS NOT NULL AND (t.decided_us < :before OR a.name LIKE 'acp.drill.%')
                ORDER BY t.id LIMIT :limit)
            RETURNING id""",
        {"before": before_us, "limit": limit},
    )
    passed_alerts = store.run(
        "UPDATE alerts SET told_us = :now WHERE told_us IS NULL AND at_us < :before RETURNING id",
        {"before": before_us, "now": now_us},
    )
    return len(passed) + len(passed_alerts)


def take_turn(store: Store, turn: str, *, now_us: int, until_us: int) -> bool:
    """True for the one caller that may tell until `until_us`; False while somebody else's turn or a rest lasts."""
    return bool(
        store.run(
            """INSERT INTO ticks (job, tick, claimed_us) VALUES (:job, 0, :until)
                ON CONFLICT (job, tick) DO UPDATE SET claimed_us = excluded.claimed_us
                    WHERE ticks.claimed_us <= :now RETURNING job""",
            {"job": turn, "now": now_us, "until": until_us},
        )
    )


def end_turn(store: Store, turn: str, *, until_us: int, free_us: int) -> None:
    """Ends the turn that was taken until `until_us`, if it still lasts; the next one may begin at `free_us`."""
    store.run(
        "UPDATE ticks SET claimed_us = :free WHERE job = :job AND tick = 0 AND claimed_us = :until",
        {"job": turn, "free": free_us, "until": until_us},
    )
