"""Two-phase accounting in integers: hold before the run, one closing entry after it.

An account is a budget in one window: `limit`, `posted`, `held`. Entries are append-only and each moves an account by
(`held_delta`, `posted_delta`); the account's columns are the sums of its entries, and an audit proves it:

    hold     +amount, 0        taken in the admitting transaction, on all matching accounts or on none
    post     -amount, +used    the run ended: what was really used is posted, the rest is released with it
    void     -amount, 0        the attempt is known not to have started its body
    expire   -amount, +amount  the attempt vanished: nobody can say what it used, so all of it counts

Usage beyond the hold is posted in full and flagged; no usage reported posts the whole hold and flags it. Never 0.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Unit(StrEnum):
    COST = "cost_micros"
    ACTIONS = "actions"
    TOKENS = "tokens"


class EntryKind(StrEnum):
    HOLD = "hold"
    POST = "post"
    VOID = "void"
    EXPIRE = "expire"


class Flag(StrEnum):
    UNREPORTED = "unreported"
    OVER_HOLD = "over_hold"


@dataclass(frozen=True, slots=True)
class Account:
    """A budget in one window as read from the store; `limit` None is unlimited."""

    id: str
    unit: Unit
    limit: int | None
    posted: int
    held: int
    resets_us: int

    def has_room(self, amount: int) -> bool:
        return self.limit is None or self.posted + self.held + amount <= self.limit


@dataclass(frozen=True, slots=True)
class Hold:
    """What one attempt may spend on one account."""

    account_id: str
    unit: Unit
    amount: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What a run says it used; None is "not reported", which is not 0."""

    cost_micros: int | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Closing:
    """The one entry that ends a hold."""

    account_id: str
    kind: EntryKind
    held_delta: int
    posted_delta: int
    flag: Flag | None = None


def estimate(cost_micros: int, tokens: int) -> dict[Unit, int]:
    """What an attempt holds, by unit: itself once, and what its submission declared."""
    return {Unit.COST: cost_micros, Unit.ACTIONS: 1, Unit.TOKENS: tokens}


def holds_for(accounts: Iterable[Account], amounts: dict[Unit, int]) -> tuple[Hold, ...]:
    """One hold on every account, in the one order in which accounts are locked: by id."""
    return tuple(Hold(a.id, a.unit, amounts[a.unit]) for a in sorted(accounts, key=lambda account: account.id))


def exhausted(accounts: Iterable[Account], amounts: dict[Unit, int]) -> Account | None:
    """The first account, by id, without room for its amount."""
    short = (a for a in accounts if not a.has_room(amounts[a.unit]))
    return min(short, key=lambda account: account.id, default=None)


def settle(holds: Sequence[Hold], usage: Usage) -> tuple[Closing, ...]:
    """The closing entries of a run that ended and reported `usage`."""
    used = {Unit.COST: usage.cost_micros, Unit.ACTIONS: 1, Unit.TOKENS: usage.tokens}
    return tuple(_post(hold, used[hold.unit]) for hold in holds)


def _post(hold: Hold, used: int | None) -> Closing:
    flag = None
    if used is None:
        used = hold.amount
        flag = Flag.UNREPORTED if hold.amount else None
    elif used > hold.amount:
        flag = Flag.OVER_HOLD
    return Closing(hold.account_id, EntryKind.POST, -hold.amount, used, flag)


def void(holds: Sequence[Hold]) -> tuple[Closing, ...]:
    """The closing entries of an attempt whose body never started."""
    return tuple(Closing(h.account_id, EntryKind.VOID, -h.amount, 0) for h in holds)


def expire(holds: Sequence[Hold]) -> tuple[Closing, ...]:
    """The closing entries of an attempt that vanished."""
    return tuple(
        Closing(h.account_id, EntryKind.EXPIRE, -h.amount, h.amount, Flag.UNREPORTED if h.amount else None)
        for h in holds
    )
