"""How an attempt ends, and its action with it or not: one constructor per edge, as in `governance.core.transitions`."""

from collections.abc import Mapping
from typing import Final

from governance.core.actions import State
from governance.core.changes import ActionRef, Author, Change, event_of
from governance.core.ledger import Closing
from governance.core.tickets import MoveTicket

# The rule behind the deferral of an action that waits for others.
WAITS: Final = "waits"


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
        event=event_of("action.cancelled", ref, by, State.CANCELLED, payload),
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
        event=event_of(
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
        event=event_of("action.succeeded", ref, by, State.SUCCEEDED, closing_payload),
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
        event=event_of(
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
    signature: str | None = None,
) -> Change:
    """The body asked to run again; with other arguments it brings its new message, digest and resource.

    `signature`: whoever ran it vouches for the message that it brings.
    """
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
    if signature is not None:
        columns["signature"] = signature
    payload = {**closing_payload, "error": error, "not_before_us": not_before_us}
    if digest is not None:
        payload["digest"] = digest
    return Change(
        expected=ref,
        event=event_of("action.retried", ref, by, State.QUEUED, payload),
        columns=columns,
        closings=closings,
    )


def suspended(
    ref: ActionRef,
    by: Author,
    *,
    until_us: int,
    reason: str,
    closings: tuple[Closing, ...],
    closing_payload: Mapping[str, object],
) -> Change:
    """The body waits for other actions: it goes on in a further attempt once one of them ends, at the latest then."""
    return Change(
        expected=ref,
        event=event_of(
            "action.suspended",
            ref,
            by,
            State.DEFERRED,
            {**closing_payload, "rule": WAITS, "reason": reason, "until_us": until_us},
        ),
        columns={
            "state": State.DEFERRED,
            "not_before_us": until_us,
            "rule": WAITS,
            "reason": reason,
            "switch_id": None,
            **_LEASE_GONE,
        },
        closings=closings,
    )


def abandoned(ref: ActionRef, by: Author, *, reason: str, closings: tuple[Closing, ...]) -> Change:
    """Admitted, but the body never started: the holds are void and the action waits for a message again."""
    return Change(
        expected=ref,
        event=event_of("action.abandoned", ref, by, State.QUEUED, {"reason": reason}),
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
        event=event_of("action.reclaimed", ref, by, after, {"reason": reason, "posted": _posted(closings)}),
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
        event=event_of("action.resolved", ref, by, after, {"reason": reason}),
        columns=columns,
    )


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
