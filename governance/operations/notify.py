"""Notices: what the webhook tells of requests, escalations, decisions and alerts. Each is told at least once and in the
order of its ticket, under an id that never changes, so that a receiver can tell a repeat from news.

What a notice says is what was so when it happened, however late it is told: its payload is computed from the events up
to it (only the resource is the one of now, when somebody has edited the arguments since). It never holds an action's
arguments, only their digest.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias, assert_never

from sqlalchemy import RowMapping

from governance.core.alerts import runbook
from governance.core.approvals import Chain, parse_chain
from governance.core.digest import sha256, storable
from governance.core.events import Event
from governance.core.instants import iso
from governance.core.money import usd
from governance.core.tickets import TicketState
from governance.operations.context import CONTROL_STREAM, Governance
from governance.operations.sessions import in_force
from governance.store import notices
from governance.store.events import append_in
from governance.store.notices import TicketEvent, UntoldTicket

# Whoever did not hear of something for this long has found out, or does not care any more.
_OLD_S: Final = 24 * 3600.0
_KINDS: Final = {
    "action.submitted": "approval.requested",
    "action.parked": "approval.requested",
    "action.released": "approval.approved",
    "action.denied": "approval.denied",
    "action.cancelled": "approval.cancelled",
}
_DECISIONS: Final = ("approval.approved", "approval.denied", "approval.expired", "approval.cancelled")


@dataclass(frozen=True, slots=True)
class TicketSteps:
    """A notice tells the step `after` of a ticket of which `before` steps were told."""

    ticket_id: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class RaisedAlert:
    """A notice tells of an alert."""

    alert_id: str


About: TypeAlias = TicketSteps | RaisedAlert


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to tell. `id` is its idempotency id: letters, digits and -; `payload` is JSON for the receiver."""

    id: str
    kind: str
    at_us: int
    payload: Mapping[str, object]
    about: About

    @property
    def subject(self) -> str:
        """What it belongs to: notices of one subject are told in their order."""
        match self.about:
            case TicketSteps(ticket_id):
                return ticket_id
            case RaisedAlert(alert_id):
                return f"alert:{alert_id}"
            case _:
                assert_never(self.about)


@dataclass(frozen=True, slots=True)
class _Asked:
    """How a request stood after one of its events."""

    level: int
    due_us: int
    expires_us: int
    digest: str
    approvals: int

    def after(self, event: TicketEvent) -> "_Asked":
        said = event.payload
        return replace(
            self,
            level=said.get("level", self.level),
            due_us=said.get("due_us", self.due_us),
            expires_us=said.get("expires_us", self.expires_us),
            digest=said.get("digest", self.digest),
            approvals=said.get("approvals", self.approvals),
        )


def anything_to_tell(gov: Governance) -> bool:
    """Cheap: whoever has nothing to tell asks this every few seconds."""
    return notices.anything_untold(gov.store)


def pending_notices(gov: Governance, limit: int, after: str = "") -> list[Notice]:
    """What is to be told of the oldest `limit` untold tickets, each ticket's notices in their order.

    `after` is the last ticket of the page before; the first page begins with the alerts, which are few.
    """
    found = [] if after else [_of_alert(row) for row in notices.untold_alerts(gov.store, limit)]
    # A ticket's steps and its events have to be of the same moment.
    with gov.store.snapshot() as reader:
        for ticket in notices.untold_tickets(reader, limit, after):
            found += _of_ticket(ticket, notices.events_about(reader, ticket.action_id, ticket.id))
    return found


def notice_told(gov: Governance, notice: Notice) -> bool:
    """The receiver has heard of it, or never will; False when somebody else told it, or a later one, meanwhile."""
    match notice.about:
        case TicketSteps(ticket_id, before, after):
            return notices.told(gov.store, ticket_id, before=before, after=after)
        case RaisedAlert(alert_id):
            return notices.alert_told(gov.store, alert_id, gov.clock.now_us())
        case _:
            assert_never(notice.about)


def is_old(gov: Governance, notice: Notice) -> bool:
    """Whether it is too late to tell: it happened more than 24 real hours ago."""
    return notice.at_us < _old_us(gov)


def pass_over_old(gov: Governance, limit: int) -> int:
    """Counts as told, untold, what is too late to tell of up to `limit` decided tickets and of alerts; how many.

    What became too late of a ticket that is pending comes with its notices: see `is_old`.
    """
    return notices.pass_over(gov.store, before_us=_old_us(gov), now_us=gov.clock.now_us(), limit=limit)


def alert(
    gov: Governance,
    alert_id: str,
    kind: str,
    payload: Mapping[str, object],
    *,
    finding: str | None = None,
    also: Event | None = None,
) -> bool:
    """Raises an alert, with its event in the fleet's own session, once per `alert_id`; whether it is new.

    The id says what it is about, so that the same thing alerts once; so does `finding`, while its alert stands.
    `payload` is JSON; it is given the address of the runbook for this kind. `also` is written with a new one.
    """
    now_us = gov.clock.now_us()
    session = in_force(gov, CONTROL_STREAM, now_us).session
    with gov.store.transaction() as connection:
        new = notices.raise_alert(
            connection,
            alert_id=storable(alert_id),
            kind=kind,
            payload={**payload, "runbook": runbook(kind)},
            at_us=now_us,
            session_id=session.id,
            finding=finding,
        )
        if new and also is not None:
            append_in(connection, also)
        return new


@dataclass(frozen=True, slots=True)
class Turn:
    """The right to tell in one way, until it is ended or has lasted too long."""

    way: str
    until_us: int


def take_turn(gov: Governance, real_s: float, way: str = notices.WEBHOOK_TURN) -> Turn | None:
    """The right to tell for at most `real_s` real seconds; None while somebody else has it, or a rest lasts."""
    now_us = gov.clock.now_us()
    until_us = now_us + gov.clock.span_us(real_s)
    return Turn(way, until_us) if notices.take_turn(gov.store, way, now_us=now_us, until_us=until_us) else None


def end_turn(gov: Governance, turn: Turn, rest_s: float) -> None:
    """Gives the turn back; nobody takes another one for `rest_s` real seconds."""
    free_us = gov.clock.now_us() + gov.clock.span_us(rest_s)
    notices.end_turn(gov.store, turn.way, until_us=turn.until_us, free_us=free_us)


def _old_us(gov: Governance) -> int:
    return gov.clock.now_us() - gov.clock.span_us(_OLD_S)


def _of_ticket(ticket: UntoldTicket, events: list[TicketEvent]) -> Iterator[Notice]:
    chain = parse_chain(ticket.chain)
    due_us = ticket.requested_us + chain.levels[0].within_us
    asked = _Asked(0, due_us, ticket.requested_us + chain.timeout_us, _first_digest(ticket, events), 0)
    # A ticket that is older than its steps has fewer events than steps; the last of both belong together.
    first_step = ticket.step - len(events) + 1
    before = ticket.told_step
    for step, event in enumerate(events, first_step):
        asked = asked.after(event)
        kind = _kind(event, ticket)
        if step <= ticket.told_step or kind is None:
            continue
        yield Notice(
            # The event's number is unique in its database only, and a receiver may listen to several fleets.
            id=f"{ticket.id}-{event.id}",
            kind=kind,
            at_us=event.at_us,
            payload=_payload(ticket, chain, asked, event, kind),
            about=TicketSteps(ticket.id, before, step),
        )
        before = step


def _first_digest(ticket: UntoldTicket, events: list[TicketEvent]) -> str:
    """Of the arguments that were asked for: an approver may have put others in their place since."""
    replaced = (event.payload["digest_before"] for event in events if "digest_before" in event.payload)
    return next(replaced, ticket.digest)


def _kind(event: TicketEvent, ticket: UntoldTicket) -> str | None:
    """None for what is not told: that an approval was consumed, the action's own life tells."""
    if event.kind == "action.denied" and ticket.state == TicketState.EXPIRED:
        return "approval.expired"
    if event.kind == "action.released" and ticket.state == TicketState.CANCELLED:
        return "approval.cancelled"
    noun, _, verb = event.kind.partition(".")
    return f"approval.{verb}" if noun == "ticket" else _KINDS.get(event.kind)


def _payload(ticket: UntoldTicket, chain: Chain, asked: _Asked, event: TicketEvent, kind: str) -> Mapping[str, object]:
    decided = kind in _DECISIONS
    said = None if kind == "approval.requested" else event.payload.get("reason")
    return {
        "ticket_id": ticket.id,
        "action_id": ticket.action_id,
        "action_name": ticket.action_name,
        "digest": asked.digest,
        "risk": ticket.risk,
        "resource": ticket.resource,
        "agent_id": ticket.agent_id,
        "user": ticket.user,
        "team": ticket.team,
        "org": ticket.org,
        "session_id": event.session_id,
        "correlation_id": ticket.correlation_id,
        "cost_usd": usd(ticket.cost_micros).removeprefix("$"),
        "rule": ticket.rule,
        "reason": ticket.reason,
        "level": asked.level,
        "levels": len(chain.levels),
        "roles": list(chain.roles_at(asked.level)),
        "approvals": chain.approvals if kind == "approval.approved" else asked.approvals,
        "approvals_wanted": chain.approvals,
        "due": iso(asked.due_us),
        "expires": iso(asked.expires_us),
        "by": event.actor,
        "comment": None if decided else said,
        "decided_by": event.actor if decided else None,
        "decision_reason": said if decided else None,
    }


def _of_alert(row: RowMapping) -> Notice:
    return Notice(
        # An alert's id may be any text, and the same in another fleet.
        id="alert-" + sha256(f"{row['id']} {row['at_us']}")[:32],
        kind="alert.raised",
        at_us=row["at_us"],
        payload={"alert_id": row["id"], "alert_kind": row["kind"], "details": json.loads(row["payload"])},
        about=RaisedAlert(row["id"]),
    )
