"""An action before an attempt runs: one constructor per edge, which columns it writes, and what its event says."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from governance.core.actions import Lease, State
from governance.core.budgets import Payer
from governance.core.changes import ActionRef, Author, Change, event_of
from governance.core.events import MODEL_ACCESS_DENIED, Event
from governance.core.grants import UseGrant
from governance.core.identity import Part, Resolved, filled_text
from governance.core.ledger import EntryKind, Hold, row_id
from governance.core.models import ModelRefused, Override, named
from governance.core.tickets import MoveTicket, OpenTicket, Ticket, TicketState


@dataclass(frozen=True, slots=True)
class Edit:
    """Other arguments than the ones that were asked for, by the person who approves: the whole message anew."""

    message: str
    digest: str
    digest_before: str
    resource: str | None


def admitted(
    ref: ActionRef,
    by: Author,
    *,
    session_id: str,
    lease: Lease,
    holds: tuple[Hold, ...],
    ticket: MoveTicket | None,
    rule: str,
    epoch: int | None = None,
    grant: UseGrant | None = None,
    override: Override | None = None,
) -> Change:
    payload: dict[str, object] = {
        "rule": rule,
        "worker": lease.worker_id,
        "child": lease.child,
        "holds": {hold.account_id: hold.amount for hold in holds},
    }
    if session_id != ref.session_id:
        payload["carried_from"] = ref.session_id
    if ticket is not None:
        payload["ticket"] = ticket.id
    if grant is not None:
        payload["grant"] = grant.id
    if override is not None:
        payload["model_override"] = override.payload()
    return Change(
        expected=ref,
        event=event_of(
            "action.admitted", ref, by, State.RUNNING, payload, session_id=session_id, attempt=ref.attempt + 1
        ),
        columns={
            "state": State.RUNNING,
            "attempt": ref.attempt + 1,
            "session_id": session_id,
            "lease_worker": lease.worker_id,
            "lease_child": lease.child,
            "started_us": by.at_us,
            **({"grant_id": grant.id} if grant is not None else {}),
        },
        holds=holds,
        ticket=ticket,
        grant=grant,
        epoch=epoch,
    )


def parked(ref: ActionRef, by: Author, ticket: OpenTicket) -> Change:
    payload = {
        "rule": ticket.rule,
        "reason": ticket.reason,
        "ticket": ticket.id,
        "due_us": ticket.due_us,
        "expires_us": ticket.expires_us,
    }
    return Change(
        expected=ref,
        event=event_of("action.parked", ref, by, State.PARKED, payload),
        columns={"state": State.PARKED, "rule": ticket.rule, "reason": ticket.reason, "ticket_id": ticket.id},
        ticket=ticket,
    )


def deferred(
    ref: ActionRef, by: Author, *, until_us: int, rule: str, reason: str, switch_id: str | None = None
) -> Change:
    """Not before `until_us` or, with a switch, not before its release."""
    when: dict[str, object] = {"switch": switch_id} if switch_id else {"until_us": until_us}
    return Change(
        expected=ref,
        event=event_of("action.deferred", ref, by, State.DEFERRED, {"rule": rule, "reason": reason, **when}),
        columns={
            "state": State.DEFERRED,
            "not_before_us": until_us,
            "rule": rule,
            "reason": reason,
            "switch_id": switch_id,
        },
    )


def denied(
    ref: ActionRef,
    by: Author,
    *,
    rule: str,
    reason: str,
    guidance: str | None = None,
    suggest: tuple[str, ...] = (),
    ticket: MoveTicket | None = None,
    delivered: bool = False,
    echo: Event | None = None,
) -> Change:
    """Refused. `delivered`: by the worker that holds its message, which tells Celery at once."""
    payload: dict[str, object] = {"rule": rule, "reason": reason}
    if guidance:
        payload |= {"guidance": guidance, "suggest": list(suggest)}
    if ticket is not None:
        payload["ticket"] = ticket.id
    return Change(
        expected=ref,
        event=event_of("action.denied", ref, by, State.DENIED, payload),
        columns={
            "state": State.DENIED,
            "rule": rule,
            "reason": reason,
            "guidance": guidance,
            "suggest": list(suggest),
            "finished_us": by.at_us,
            "published_us": by.at_us,
            "delivered_us": by.at_us if delivered else None,
        },
        ticket=ticket,
        echo=echo,
    )


def model_denied(ref: ActionRef, by: Author, refused: ModelRefused, identity: Payer) -> Event:
    """What the trail says of a model that was refused, beside what it says of the action."""
    return event_of(
        MODEL_ACCESS_DENIED,
        ref,
        by,
        None,
        {"model": refused.model, "rule": refused.rule, "reason": refused.reason, **named(identity)},
    )


def released(
    ref: ActionRef, by: Author, *, cause: str, ticket: MoveTicket | None = None, edit: Edit | None = None
) -> Change:
    """Parked or deferred, and free to be admitted: its stored message is published again, or the edited one."""
    payload: dict[str, object] = {"cause": cause}
    if ticket is not None:
        payload["ticket"] = ticket.id
        if ticket.decision_reason:
            payload["reason"] = ticket.decision_reason
    if edit is not None:
        payload |= {"digest": edit.digest, "digest_before": edit.digest_before}
    return Change(
        expected=ref,
        event=event_of("action.released", ref, by, State.QUEUED, payload),
        columns={
            "state": State.QUEUED,
            "not_before_us": None,
            "switch_id": None,
            "published_us": by.at_us,
            "publish_count": 1,
            **_edited(edit),
            # The time a person took is not the caller's to lose.
            **({"expires_us": None} if ticket is not None and ticket.after is TicketState.APPROVED else {}),
        },
        ticket=ticket,
    )


def _edited(edit: Edit | None) -> Mapping[str, object]:
    return {} if edit is None else {"message": edit.message, "digest": edit.digest, "resource": edit.resource}


def asked_on(
    ref: ActionRef,
    by: Author,
    *,
    kind: str,
    ticket: MoveTicket,
    payload: Mapping[str, object],
    edit: Edit | None = None,
) -> Change:
    """A step of the ticket that leaves its action parked: `ticket.escalated`, `ticket.voted`, `ticket.extended`."""
    return Change(
        expected=ref,
        event=event_of(kind, ref, by, None, {"ticket": ticket.id, **payload}),
        columns={"state": ref.state, **_edited(edit)},
        ticket=ticket,
    )


def carried(ref: ActionRef, by: Author, *, into: str, epoch: int) -> Change:
    """Its window is over and it waits on, in the next one; both trails say so."""
    side = event_of("action.carried_out", ref, by, None, {"state": ref.state, "into": into})
    return Change(
        expected=ref,
        event=side,
        columns={"session_id": into},
        epoch=epoch,
        echo=replace(
            side,
            session_id=into,
            kind="action.carried_in",
            payload={"state": ref.state, "from": ref.session_id},
        ),
    )


def consumption(ticket: Ticket, at_us: int) -> MoveTicket:
    return MoveTicket(ticket.id, ticket.step, TicketState.APPROVED, TicketState.CONSUMED, at_us)


def identified(change: Change, resolved: Resolved) -> Change:
    """`change`, which also writes down whom its action is charged to, in the row and in the trail."""
    said = {str(part): getattr(resolved.identity, part) for part in Part}
    columns = {**change.columns, **said, "filled": filled_text(resolved.filled)}
    payload = {**change.event.payload, "identity": {part: value for part, value in said.items() if value is not None}}
    return replace(change, columns=columns, event=replace(change.event, payload=payload))


def topped_up(ref: ActionRef, by: Author, more: tuple[Hold, ...], *, epoch: int) -> Change:
    """The attempt that runs holds so much more; its action stays as it is."""
    return Change(
        expected=ref,
        event=event_of("action.topped_up", ref, by, None, {"holds": {hold.account_id: hold.amount for hold in more}}),
        columns={"state": State.RUNNING},
        # On the stripe that holds already, so that one closing entry ends all of it.
        holds=tuple(Hold(row_id(hold.account_id, hold.stripe), hold.unit, hold.amount) for hold in more),
        epoch=epoch,
        hold_kind=EntryKind.TOP_UP,
    )
