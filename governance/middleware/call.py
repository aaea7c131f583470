"""One delivery of a message: what the middleware works on, and the closed set of what can become of it."""

from dataclasses import dataclass, field
from typing import TypeAlias

from governance.core.actions import Lease
from governance.core.ledger import Unit, Usage
from governance.middleware.spool import Spool
from governance.operations.admit import Arrival
from governance.operations.answers import Admitted, Cancelled, Deferred, Denied, Dropped, Ended, NotSubmitted, Parked
from governance.operations.context import Governance
from governance.operations.finish import AskedToRetry, Raised, Stopped, Succeeded, Suspended


@dataclass(slots=True)
class Reported:
    """What the body said it used; None until it says something. `unknown`: units of which it cannot say all."""

    cost_micros: int | None = None
    tokens: int | None = None
    unknown: set[Unit] = field(default_factory=set)

    def usage(self) -> Usage:
        return Usage(self.cost_micros, self.tokens, tuple(sorted(self.unknown)))

    def of(self, unit: Unit) -> int:
        """What it said of `unit` so far."""
        return {Unit.COST: self.cost_micros, Unit.TOKENS: self.tokens}.get(unit) or 0


@dataclass(slots=True)
class Call:
    """A message in a worker. `admission` is set once the action may run."""

    gov: Governance
    spool: Spool
    arrival: Arrival
    lease: Lease
    # What may be raised anywhere while this thread runs: the time limit's exception.
    interrupts: tuple[type[Exception], ...] = ()
    reported: Reported = field(default_factory=Reported)
    admission: Admitted | None = None
    # Set before the attempt asks for more than it was admitted with.
    topped_up: bool = False
    # What calls of models that are not over may use at most, in micro-USD and tokens.
    aside: dict[Unit, int] = field(default_factory=lambda: {Unit.COST: 0, Unit.TOKENS: 0})
    # Set once its usage was added up: nothing is set aside any more.
    added_up: bool = False

    def running(self) -> Admitted:
        assert self.admission is not None, "only an admitted call runs"
        return self.admission

    def add_up(self) -> Usage:
        """What the attempt used, as it ends: what was reported, and all that is still set aside.

        Other threads may be at it, so each side writes first what the other reads last: then nothing is missed.
        """
        self.added_up = True
        aside = dict(self.aside)
        used = self.reported.usage()
        if not any(aside.values()):
            return used
        cost_micros, tokens = (used.cost_micros or 0) + aside[Unit.COST], (used.tokens or 0) + aside[Unit.TOKENS]
        return Usage(cost_micros, tokens, (Unit.COST, Unit.TOKENS))


@dataclass(frozen=True, slots=True)
class Returned:
    """The body returned: `value` for the caller, `ending` for the record, which has it unless the store is away."""

    value: object
    ending: Succeeded
    recorded: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """The body raised `error`, which Celery is to see as it is; Ignore and Reject do not end as a failure."""

    error: BaseException
    ending: Raised | Succeeded | AskedToRetry


@dataclass(frozen=True, slots=True)
class Retrying:
    """The body asked for another attempt; `publish` is done once the record says so."""

    error: BaseException
    ending: AskedToRetry


@dataclass(frozen=True, slots=True)
class StoppedShort:
    """A kill switch stopped the body: it was asked and ended, or it was cut."""

    ending: Stopped


@dataclass(frozen=True, slots=True)
class Suspending:
    """The body waits for the end of the actions `awaited`, without a process."""

    awaited: tuple[str, ...]
    ending: Suspended


@dataclass(frozen=True, slots=True)
class Fenced:
    """The attempt lost its action while it ran: nothing it did counts any more, and Celery is told nothing."""


@dataclass(frozen=True, slots=True)
class StoreAway:
    """The store did not answer before the run: nothing ran, the message goes back with a delay."""

    problem: str


Ran: TypeAlias = Returned | Failed | Retrying | StoppedShort | Suspending
Outcome: TypeAlias = Ran | Fenced | StoreAway | Parked | Deferred | Denied | Cancelled | Ended | Dropped | NotSubmitted
