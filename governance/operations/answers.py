"""What admission answers: one of these for every message."""

from dataclasses import dataclass
from typing import TypeAlias

from governance.core.changes import ActionRef
from governance.core.ledger import Hold
from governance.store.action_rows import ActionRow


@dataclass(frozen=True, slots=True)
class Admitted:
    """The attempt may run; its holds are taken. `action` is the row as it was before."""

    action: ActionRow
    ref: ActionRef
    holds: tuple[Hold, ...]


@dataclass(frozen=True, slots=True)
class Parked:
    """Waits for a person; a decision publishes its message again. `ticket_id` is there for who asks, not to admit."""

    action_id: str
    rule: str
    reason: str
    ticket_id: str | None = None


@dataclass(frozen=True, slots=True)
class Deferred:
    """Waits for its time or, paused, for the release of a switch."""

    action_id: str
    until_us: int
    reason: str
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Denied:
    action_id: str
    rule: str
    reason: str
    guidance: str | None
    suggest: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A kill switch ended it before it ran, or while it did."""

    action_id: str
    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The action ended, and this message is what tells Celery."""

    action: ActionRow


@dataclass(frozen=True, slots=True)
class Dropped:
    """Nothing to do for this message: the action runs elsewhere, has ended, or is not due."""

    action_id: str
    why: str


@dataclass(frozen=True, slots=True)
class NotSubmitted:
    """Nobody submitted it: it has to be submitted first."""


Admission: TypeAlias = Admitted | Parked | Deferred | Denied | Cancelled | Ended | Dropped | NotSubmitted
