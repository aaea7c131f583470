"""A change: everything one transition of an action writes, decided beforehand and applied in one transaction or not
at all. `governance.core.transitions` and `governance.core.endings` have its constructors, the store one guarded
statement for all.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from governance.core.actions import State, Submission
from governance.core.events import Event
from governance.core.grants import UseGrant
from governance.core.ledger import Closing, EntryKind, Hold
from governance.core.tickets import MoveTicket, OpenTicket


@dataclass(frozen=True, slots=True)
class ActionRef:
    """The action a change expects to find: the guard of every transition."""

    id: str
    session_id: str
    state: State
    attempt: int


@dataclass(frozen=True, slots=True)
class Change:
    """Applied only while the action is as `expected`, every hold fits, the ticket is at the step and the switches at
    the epoch (None: whatever they are) that the decision saw, the row says what is `recorded`, and the grant that is
    used still lasts.
    """

    expected: ActionRef
    event: Event
    columns: Mapping[str, object]
    holds: tuple[Hold, ...] = ()
    closings: tuple[Closing, ...] = ()
    ticket: OpenTicket | MoveTicket | None = None
    grant: UseGrant | None = None
    epoch: int | None = None
    #: What the decision took the row to say besides, where nobody had read it.
    recorded: Submission | None = None
    #: What the holds are written as: an attempt's first one, or more of it.
    hold_kind: EntryKind = EntryKind.HOLD
    #: What another session's trail says of the same change, or its own trail besides.
    echo: Event | None = None

    @property
    def attempt(self) -> int:
        """The attempt that the ledger entries of this change belong to."""
        return self.event.attempt or 0


@dataclass(frozen=True, slots=True)
class Author:
    """Who makes a change, and when."""

    actor: str
    at_us: int


def event_of(
    kind: str,
    ref: ActionRef,
    by: Author,
    state: State | None,
    payload: Mapping[str, object],
    *,
    session_id: str | None = None,
    attempt: int | None = None,
) -> Event:
    """What the trail says of a transition: the action's state is `state` after it; None: it stays as it is."""
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
