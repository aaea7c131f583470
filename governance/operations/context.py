"""What every operation works with, put together once per process by the composition root."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from governance.clock import Clock
from governance.core.board import Board
from governance.core.budgets import Charges, Payer
from governance.core.identity import Membership
from governance.core.ledger import Account
from governance.core.policy import Policy
from governance.core.sessions import Session
from governance.core.signing import Keyring
from governance.store.engine import Store

# The stream whose sessions keep what happens to the fleet itself: switches, tokens, drills.
CONTROL_STREAM: Final = "control"


@dataclass(frozen=True, slots=True)
class Limits:
    """The fleet's own limits, from Settings. Seconds are real seconds."""

    attempts_max: int = 5
    heartbeat_s: float = 3.0
    lease_s: float = 12.0
    relay_s: float = 30.0
    time_limit_s: float = 3600.0


@dataclass(slots=True)
class KnownDirectory:
    """What this process remembers of the directory, for submissions; an admission reads the directory itself."""

    #: Of the load it remembers; None: it remembers nothing, 0: that nothing was ever loaded.
    epoch: int | None = None
    #: Of a user and a claimed team, with the epoch that it is of.
    memberships: dict[tuple[str | None, str | None], tuple[int, Membership]] = field(default_factory=dict)

    @property
    def remembers(self) -> bool:
        return self.epoch is not None

    def seen(self, epoch: int) -> None:
        """The epoch of the directory in force, as somebody has just read it: another one's members are forgotten."""
        if self.epoch != epoch:
            self.epoch = epoch
            self.memberships.clear()


@dataclass(frozen=True, slots=True)
class KeptSession:
    """A session in force, as it was read when the board of `epoch` was the latest that this process had seen."""

    session: Session
    epoch: int | None


@dataclass(frozen=True, slots=True)
class Governance:
    """The store, the time, the policy of this process, and what it may keep in memory because it never changes.

    What counts for one epoch says which: a thread may still keep something of an epoch that another has left.
    """

    store: Store
    clock: Clock
    policy: Policy
    policy_source: str
    new_id: Callable[[], str]
    limits: Limits = field(default_factory=Limits)
    policies: dict[str, Policy] = field(default_factory=dict)
    sessions: dict[str, KeptSession] = field(default_factory=dict)
    # The board of the latest epoch that was seen, alone in it.
    boards: list[Board] = field(default_factory=list)
    # What an identity is charged to at an epoch and under a policy, until its first window ends; and the identity that
    # a message, by what its header says, turned out to have.
    charges: dict[tuple[int, str, Payer], Charges] = field(default_factory=dict)
    payers: dict[Payer, Payer] = field(default_factory=dict)
    # How accounts stood when an admission last read them, at whatever epoch: a write asks them again.
    accounts: dict[str, Account] = field(default_factory=dict)
    #: With it, nothing runs that was not signed by one of its keys.
    signing: Keyring | None = None
    directory: KnownDirectory = field(default_factory=KnownDirectory)
