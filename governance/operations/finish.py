"""Finish: one guarded transaction that ends an attempt: post the usage, release the rest, the outcome, the event."""

from dataclasses import dataclass
from typing import TypeAlias, assert_never

from governance.core.actions import State
from governance.core.changes import (
    ActionRef,
    Author,
    Change,
    abandoned,
    closing_payload,
    failed,
    retried,
    succeeded,
)
from governance.core.ledger import Hold, Usage, settle, void
from governance.operations.context import Governance
from governance.store import actions
from governance.store.changes import apply


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
    """The body asked to run again, not before `not_before_us`; with other arguments it brings message and digest."""

    error: str
    not_before_us: int
    message: str | None = None
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Abandoned:
    """The body never started."""

    reason: str


Outcome: TypeAlias = Succeeded | Raised | AskedToRetry | Abandoned


@dataclass(frozen=True, slots=True)
class Finish:
    """Everything that ends an attempt; it can be kept on disk and applied later, once."""

    ref: ActionRef
    holds: tuple[Hold, ...]
    outcome: Outcome
    usage: Usage
    actor: str
    at_us: int


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
    if apply(gov.store, change):
        return Settled()
    now = actions.find(gov.store, finish.ref.id)
    wanted = change.event.state
    if now is not None and now.ref.attempt == finish.ref.attempt and now.ref.state is wanted:
        return Settled()
    return Fenced()


def _change(finish: Finish) -> Change:
    by = Author(finish.actor, finish.at_us)
    outcome = finish.outcome
    if isinstance(outcome, Abandoned):
        return abandoned(finish.ref, by, reason=outcome.reason, closings=void(finish.holds))
    closings = settle(finish.holds, finish.usage)
    payload = closing_payload(closings)
    match outcome:
        case Succeeded(result):
            return succeeded(finish.ref, by, result=result, closings=closings, closing_payload=payload)
        case Raised(error_type, error):
            return failed(
                finish.ref, by, error_type=error_type, error=error, closings=closings, closing_payload=payload
            )
        case AskedToRetry(error, not_before_us, message, digest):
            return retried(
                finish.ref,
                by,
                not_before_us=not_before_us,
                error=error,
                closings=closings,
                closing_payload=payload,
                message=message,
                digest=digest,
            )
        case _:
            assert_never(outcome)


def running(action_id: str, session_id: str, attempt: int) -> ActionRef:
    """The guard of a finish: exactly this attempt, still running."""
    return ActionRef(action_id, session_id, State.RUNNING, attempt)
