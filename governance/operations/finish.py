"""Finish: one guarded transaction that ends an attempt: post the usage, release the rest, the outcome, the event."""

from dataclasses import dataclass, replace
from typing import TypeAlias, assert_never

from governance.core.actions import Lease, State
from governance.core.changes import ActionRef, Author, Change
from governance.core.endings import (
    abandoned,
    cancelled,
    closing_payload,
    failed,
    interrupted,
    retried,
    succeeded,
    suspended,
)
from governance.core.ledger import Hold, Usage, settle, void
from governance.operations.context import Governance
from governance.store import actions
from governance.store.changes import apply, close


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The body returned; `result` is JSON."""

    result: str


@dataclass(frozen=True, slots=True)
class Raised:
    error_type: str
    error: str


@dataclass(frozen=True, slots=True)
class AskedToRetry:
    """The body asked to run again, not before `not_before_us`; with other arguments it brings what belongs to them."""

    error: str
    not_before_us: int
    message: str | None = None
    digest: str | None = None
    resource: str | None = None
    signature: str | None = None


@dataclass(frozen=True, slots=True)
class Stopped:
    """A kill switch stopped the body. `in_doubt`: cut where its effect may have begun, and it must not run twice."""

    rule: str
    reason: str
    in_doubt: bool


@dataclass(frozen=True, slots=True)
class Suspended:
    """The body waits for other actions, and goes on in a further attempt: by `until_us` at the latest."""

    reason: str
    until_us: int


Outcome: TypeAlias = Succeeded | Raised | AskedToRetry | Stopped | Suspended


@dataclass(frozen=True, slots=True)
class Finish:
    """Everything that ends an attempt; it can be kept on disk and applied later, once."""

    ref: ActionRef
    holds: tuple[Hold, ...]
    outcome: Outcome
    usage: Usage
    actor: str
    at_us: int
    # More may have been held since: what is closed is what the store says.
    topped_up: bool = False


@dataclass(frozen=True, slots=True)
class Settled:
    """The attempt is ended and its holds are closed, by this call or by an earlier one whose answer was lost."""


@dataclass(frozen=True, slots=True)
class Fenced:
    """The attempt no longer owned the action; nothing was written."""


Finished: TypeAlias = Settled | Fenced


def finish(gov: Governance, finish: Finish) -> Finished:
    """Ends the attempt once, however often it is called."""
    change = _change(finish)
    if finish.topped_up:
        ended = close(gov.store, finish.ref, lambda holds: _change(replace(finish, holds=holds)))
    else:
        ended = apply(gov.store, change)
    if ended:
        return Settled()
    now = actions.find(gov.store, finish.ref.id)
    wanted = change.event.state
    if now is not None and now.ref.attempt == finish.ref.attempt and now.ref.state is wanted:
        return Settled()
    return Fenced()


def give_back(gov: Governance, action_id: str, lease: Lease, started_us: int | None) -> bool:
    """Abandons the attempt that `lease` was admitted to, whose body never started; at `started_us`, if that is known.

    False when there is none: the admission was not committed, or another one has followed.
    """
    action = actions.find(gov.store, action_id)
    if (
        action is None
        or action.ref.state is not State.RUNNING
        or (action.lease_worker, action.lease_child) != (lease.worker_id, lease.child)
        or started_us not in (None, action.started_us)
    ):
        return False
    ref, by = action.ref, Author(f"worker:{lease.worker_id}", gov.clock.now_us())
    return close(
        gov.store,
        ref,
        lambda holds: abandoned(ref, by, reason="interrupted during admission", closings=void(holds)),
    )


def _change(finish: Finish) -> Change:
    by = Author(finish.actor, finish.at_us)
    outcome = finish.outcome
    closings = settle(finish.holds, finish.usage)
    payload = closing_payload(closings)
    match outcome:
        case Succeeded(result):
            return succeeded(finish.ref, by, result=result, closings=closings, closing_payload=payload)
        case Raised(error_type, error):
            return failed(
                finish.ref, by, error_type=error_type, error=error, closings=closings, closing_payload=payload
            )
        case Stopped(rule, reason, in_doubt):
            if in_doubt:
                return interrupted(finish.ref, by, rule=rule, reason=reason, closings=closings, closing_payload=payload)
            return cancelled(
                finish.ref,
                by,
                rule=rule,
                reason=reason,
                delivered=True,
                closings=closings,
                closing_payload=payload,
            )
        case AskedToRetry(error, not_before_us, message, digest, resource, signature):
            return retried(
                finish.ref,
                by,
                not_before_us=not_before_us,
                error=error,
                closings=closings,
                closing_payload=payload,
                message=message,
                digest=digest,
                resource=resource,
                signature=signature,
            )
        case Suspended(reason, until_us):
            return suspended(
                finish.ref, by, until_us=until_us, reason=reason, closings=closings, closing_payload=payload
            )
        case _:
            assert_never(outcome)
