"""One constructor per edge of `governance.core.actions.EDGES`: which columns it writes, and what its event says."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from governance.core.actions import Lease, State
from governance.core.changes import ActionRef, Author, Change
from governance.core.events import Event
from governance.core.grants import UseGrant
from governance.core.ledger import Closing, Hold
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
    return Change(
        expected=ref,
        event=_event(
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
        event=_event("action.parked", ref, by, State.PARKED, payload),
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
        event=_event("action.deferred", ref, by, State.DEFERRED, {"rule": rule, "reason": reason, **when}),
        columns={
            "state": State.DEFERRED,
            "not_before_us": until_us,
            "rule": rule,
            "reason": reason,
            "switch_id": switch_id,
        },
    )


def cancelled(
    ref: ActionRef,
    by: Author,
    *,
    rule: str,
    reason: str,
    ticket: MoveTicket | None = None,
    delivered: bool = False,
    due: bool = True,
    closings: tuple[Closing, ...] = (),
    closing_payload: Mapping[str, object] | None = None,
) -> Change:
    """A kill switch ended it: before it ran, or while it did.

    `delivered`: by the worker that tells Celery at once. Not `due`: its message, if there is one, is held back.
    """
    columns: dict[str, object] = {
        "state": State.CANCELLED,
        "rule": rule,
        "reason": reason,
        "finished_us": by.at_us,
        "delivered_us": by.at_us if delivered else None,
        "switch_id": None,
        "not_before_us": None,
        **_LEASE_GONE,
    }
    if ref.state in (State.PARKED, State.DEFERRED) or not due:
        # No message is on its way that could tell its caller soon.
        columns["published_us"] = None
    payload = {"rule": rule, "reason": reason, **(closing_payload or {})}
    if ticket is not None:
        payload["ticket"] = ticket.id
    return Change(
        expected=ref,
        event=_event("action.cancelled", ref, by, State.CANCELLED, payload),
        columns=columns,
        ticket=ticket,
        closings=closings,
    )


def interrupted(
    ref: ActionRef,
    by: Author,
    *,
    rule: str,
    reason: str,
    closings: tuple[Closing, ...],
    closing_payload: Mapping[str, object],
) -> Change:
    """A kill switch cut it where its effect may have begun, and it must not run twice: a person resolves it."""
    return Change(
        expected=ref,
        event=_event(
            "action.interrupted", ref, by, State.IN_DOUBT, {"rule": rule, "reason": reason, **closing_payload}
        ),
        columns={
            "state": State.IN_DOUBT,
            "rule": rule,
            "reason": reason,
            "error_type": "ActionStopped",
            "error": reason,
            **_LEASE_GONE,
        },
        closings=closings,
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
) -> Change:
    """Refused. `delivered`: by the worker that holds its message, which tells Celery at once."""
    payload: dict[str, object] = {"rule": rule, "reason": reason}
    if guidance:
        payload |= {"guidance": guidance, "suggest": list(suggest)}
    if ticket is not None:
        payload["ticket"] = ticket.id
    return Change(
        expected=ref,
        event=_event("action.denied", ref, by, State.DENIED, payload),
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
        event=_event("action.released", ref, by, State.QUEUED, payload),
        columns={
            "state": State.QUEUED,
            "not_before_us": None,
            "switch_id": None,
            "published_us": by.at_us,
            "publish_count": 1,
            **_edited(edit),
            # The time a person took is not the caller's to lose.
            **({"expires_us": None} if ticket is not None else {}),
        },
        ticket=ticket,
    )


def succeeded(
    ref: ActionRef,
    by: Author,
    *,
    result: str,
    closings: tuple[Closing, ...],
    closing_payload: Mapping[str, object],
) -> Change:
    return Change(
        expected=ref,
        event=_event("action.succeeded", ref, by, State.SUCCEEDED, closing_payload),
        columns={
            "state": State.SUCCEEDED,
            "result": result,
            "finished_us": by.at_us,
            "delivered_us": by.at_us,
            **_LEASE_GONE,
        },
        closings=closings,
    )


def failed(
    ref: ActionRef,
    by: Author,
    *,
    error_type: str,
    error: str,
    closings: tuple[Closing, ...],
    closing_payload: Mapping[str, object],
) -> Change:
    return Change(
        expected=ref,
        event=_event(
            "action.failed",
            ref,
            by,
            State.FAILED,
            {**closing_payload, "error_type": error_type, "error": error},
        ),
        columns={
            "state": State.FAILED,
            "error_type": error_type,
            "error": error,
            "finished_us": by.at_us,
            "delivered_us": by.at_us,
            **_LEASE_GONE,
        },
        closings=closings,
    )


def retried(
    ref: ActionRef,
    by: Author,
    *,
    not_before_us: int,
    error: str,
    closings: tuple[Closing, ...],
    closing_payload: Mapping[str, object],
    message: str | None,
    digest: str | None,
    resource: str | None = None,
) -> Change:
    """The body asked to run again; with other arguments it brings its new message, digest and resource."""
    columns: dict[str, object] = {
        "state": State.QUEUED,
        "not_before_us": not_before_us,
        "published_us": by.at_us,
        "publish_count": 1,
        **_LEASE_GONE,
    }
    if message is not None:
        columns["message"] = message
    if digest is not None:
        columns |= {"digest": digest, "resource": resource}
    payload = {**closing_payload, "error": error, "not_before_us": not_before_us}
    if digest is not None:
        payload["digest"] = digest
    return Change(
        expected=ref,
        event=_event("action.retried", ref, by, State.QUEUED, payload),
        columns=columns,
        closings=closings,
    )


def abandoned(ref: ActionRef, by: Author, *, reason: str, closings: tuple[Closing, ...]) -> Change:
    """Admitted, but the body never started: the holds are void and the action waits for a message again."""
    return Change(
        expected=ref,
        event=_event("action.abandoned", ref, by, State.QUEUED, {"reason": reason}),
        columns={"state": State.QUEUED, "published_us": None, **_LEASE_GONE},
        closings=closings,
    )


def reclaimed(
    ref: ActionRef,
    by: Author,
    *,
    after: State,
    reason: str,
    error_type: str,
    closings: tuple[Closing, ...],
    delivered: bool,
) -> Change:
    """The attempt vanished. `after` is queued (run again), in_doubt (a person decides) or failed.

    `delivered`: Celery has been told already (it has no other way to end at a hard time limit).
    """
    columns: dict[str, object] = {"state": after, **_LEASE_GONE}
    if after is State.QUEUED:
        columns["published_us"] = None
    else:
        columns |= {"error_type": error_type, "error": reason}
    if after is State.FAILED:
        columns |= {
            "finished_us": by.at_us,
            "published_us": None,
            "delivered_us": by.at_us if delivered else None,
        }
    return Change(
        expected=ref,
        event=_event("action.reclaimed", ref, by, after, {"reason": reason, "posted": _posted(closings)}),
        columns=columns,
        closings=closings,
    )


def resolved(ref: ActionRef, by: Author, *, after: State, reason: str) -> Change:
    """A person said what became of an action in doubt."""
    columns: dict[str, object] = {"state": after, "published_us": by.at_us, "publish_count": 1}
    if after is not State.QUEUED:
        columns["finished_us"] = by.at_us
    if after is State.SUCCEEDED:
        columns |= {"result": "null", "error_type": None, "error": None}
    return Change(
        expected=ref,
        event=_event("action.resolved", ref, by, after, {"reason": reason}),
        columns=columns,
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
        event=Event(
            session_id=ref.session_id,
            kind=kind,
            actor=by.actor,
            at_us=by.at_us,
            action_id=ref.id,
            attempt=ref.attempt,
            payload={"ticket": ticket.id, **payload},
        ),
        columns={"state": ref.state, **_edited(edit)},
        ticket=ticket,
    )


def carried(ref: ActionRef, by: Author, *, into: str, epoch: int) -> Change:
    """Its window is over and it waits on, in the next one; both trails say so."""
    side = Event(
        session_id=ref.session_id,
        kind="action.carried_out",
        actor=by.actor,
        at_us=by.at_us,
        action_id=ref.id,
        attempt=ref.attempt,
        payload={"state": ref.state, "into": into},
    )
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


def closing_payload(closings: tuple[Closing, ...]) -> dict[str, object]:
    """What a finish event says of the money: posted per account, and which postings are flagged."""
    payload: dict[str, object] = {"posted": _posted(closings)}
    flags = {c.account_id: str(c.flag) for c in closings if c.flag is not None}
    if flags:
        payload["flags"] = flags
    return payload


_LEASE_GONE: Mapping[str, object] = {"lease_worker": None, "lease_child": None}


def _posted(closings: tuple[Closing, ...]) -> dict[str, int]:
    return {c.account_id: c.posted_delta for c in closings}


def _event(
    kind: str,
    ref: ActionRef,
    by: Author,
    state: State,
    payload: Mapping[str, object],
    *,
    session_id: str | None = None,
    attempt: int | None = None,
) -> Event:
    return Event(
        session_id=session_id or ref.session_id,
        kind=kind,
        actor=by.actor,
        at_us=by.at_us,
        action_id=ref.id,
        attempt=ref.attempt if attempt is None else attempt,
        state=state,
        payload=payload,
    )
