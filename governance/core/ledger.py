"""Two-phase accounting in integers: hold before the run, one closing entry after it.

An account is a budget in one window: `limit`, `posted`, `held`. Entries are append-only and each moves an account by
(`held_delta`, `posted_delta`); the account's columns are the sums of its entries, and an audit proves it:

    hold     +amount, 0        taken in the admitting transaction, on all matching accounts or on none
    top_up   +amount, 0        more of it while the attempt runs; any number, on all of its accounts or on none
    post     -amount, +used    the run ended: what was really used is posted, the rest is released with it
    void     -amount, 0        the attempt is known not to have started its body
    expire   -amount, +amount  the attempt vanished: nobody can say what it used, so all of it counts

A closing entry closes the hold with its top-ups. Usage beyond it is posted in full and flagged; no usage reported
posts all that was held and flags it. Never 0.

A hot account may be kept in several rows, its stripes, so that its writers do not queue for one. Each has a share of
the limit, and its own posted and held; the shares sum to the limit and the account is the sum of its rows. A hold is on
one stripe, whole, and closes on that.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Final

STRIPES_MAX: Final = 64


class Unit(StrEnum):
    COST = "cost_micros"
    ACTIONS = "actions"
    TOKENS = "tokens"


class EntryKind(StrEnum):
    HOLD = "hold"
    TOP_UP = "top_up"
    POST = "post"
    VOID = "void"
    EXPIRE = "expire"


class Flag(StrEnum):
    UNREPORTED = "unreported"
    OVER_HOLD = "over_hold"


@dataclass(frozen=True, slots=True)
class Account:
    """A budget in one window as read from the store, the sum of its `stripes` rows; `limit` None is unlimited."""

    id: str
    unit: Unit
    limit: int | None
    posted: int
    held: int
    resets_us: int
    stripes: int = 1

    def has_room(self, amount: int) -> bool:
        return self.limit is None or self.posted + self.held + amount <= self.limit

    @property
    def left(self) -> int:
        """What there is still room for, where there is a limit."""
        return max((self.limit or 0) - self.posted - self.held, 0)

    @property
    def share_left(self) -> Fraction:
        return Fraction(self.left, self.limit) if self.limit else Fraction(0)


@dataclass(frozen=True, slots=True)
class Hold:
    """What one attempt may spend on one account of `stripes` rows; `stripe` is the one that was taken, once it was."""

    account_id: str
    unit: Unit
    amount: int
    stripes: int = 1
    stripe: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What a run says it used; None is "not reported", which is not 0.

    `unknown`: units of which it used more than it can say; they are posted as reported, at least the whole hold.
    """

    cost_micros: int | None = None
    tokens: int | None = None
    unknown: tuple[Unit, ...] = ()


@dataclass(frozen=True, slots=True)
class Closing:
    """The one entry that ends a hold, on the stripe that held it."""

    account_id: str
    kind: EntryKind
    held_delta: int
    posted_delta: int
    flag: Flag | None = None
    stripes: int = 1
    stripe: int = 0

    @property
    def exceeds(self) -> bool:
        """Whether more is posted than was held."""
        return self.posted_delta + self.held_delta > 0


def row_id(account_id: str, stripe: int) -> str:
    """The row that a stripe is kept in: stripe 0 in the account's own."""
    return f"{account_id}#{stripe:02}" if stripe else account_id


def shares(limit: int | None, used: Sequence[int], amount: int = 0, first: int = 0) -> list[int | None]:
    """Shares of `limit` for stripes of which so much is used, as even in room as portions of `amount` allow.

    If the account has room for `amount`, stripe `first` has it then; if it is used beyond its limit, no stripe has any.
    No share is below 0.
    """
    if limit is None:
        return [None] * len(used)
    room = limit - sum(used)
    if room < 0:
        return _cut(used, -room)
    portion = max(amount, 1)
    each, odd = divmod(room // portion, len(used))
    given = [used[stripe] + portion * (each + ((stripe - first) % len(used) < odd)) for stripe in range(len(used))]
    given[first] += room % portion
    return list(given)


def _cut(used: Sequence[int], excess: int) -> list[int | None]:
    """What is used, less an excess that is spread as evenly as it can be without a share below 0."""
    left: list[int | None] = [None] * len(used)
    order = sorted(range(len(used)), key=lambda stripe: used[stripe])
    for place, stripe in enumerate(order):
        taken = min(used[stripe], -(-excess // (len(order) - place)))
        left[stripe] = used[stripe] - taken
        excess -= taken
    return left


def estimate(cost_micros: int, tokens: int) -> dict[Unit, int]:
    """What an attempt holds, by unit: itself once, and what its submission declared."""
    return {Unit.COST: cost_micros, Unit.ACTIONS: 1, Unit.TOKENS: tokens}


def holds_for(accounts: Iterable[Account], amounts: dict[Unit, int]) -> tuple[Hold, ...]:
    """One hold on every account, in the one order in which accounts are locked: by id."""
    ordered = sorted(accounts, key=lambda account: account.id)
    return tuple(Hold(a.id, a.unit, amounts[a.unit], a.stripes) for a in ordered)


def exhausted(accounts: Iterable[Account], amounts: dict[Unit, int]) -> Account | None:
    """The tightest account without room for its amount: the one of which the smallest share is left, of equals the one
    that resets last.
    """
    short = (a for a in accounts if not a.has_room(amounts[a.unit]))
    return min(short, key=lambda account: (account.share_left, -account.resets_us, account.id), default=None)


def settle(holds: Sequence[Hold], usage: Usage) -> tuple[Closing, ...]:
    """The closing entries of a run that ended and reported `usage`."""
    used = {Unit.COST: usage.cost_micros, Unit.ACTIONS: 1, Unit.TOKENS: usage.tokens}
    return tuple(_post(hold, used[hold.unit], known=hold.unit not in usage.unknown) for hold in holds)


def _post(hold: Hold, used: int | None, *, known: bool) -> Closing:
    flag = None
    if used is None or (not known and used <= hold.amount):
        used = hold.amount
        flag = Flag.UNREPORTED if hold.amount else None
    elif used > hold.amount:
        flag = Flag.OVER_HOLD
    return _closing(hold, EntryKind.POST, used, flag)


def void(holds: Sequence[Hold]) -> tuple[Closing, ...]:
    """The closing entries of an attempt whose body never started."""
    return tuple(_closing(hold, EntryKind.VOID, 0, None) for hold in holds)


def expire(holds: Sequence[Hold]) -> tuple[Closing, ...]:
    """The closing entries of an attempt that vanished."""
    return tuple(_closing(h, EntryKind.EXPIRE, h.amount, Flag.UNREPORTED if h.amount else None) for h in holds)


def _closing(hold: Hold, kind: EntryKind, posted: int, flag: Flag | None) -> Closing:
    return Closing(hold.account_id, kind, -hold.amount, posted, flag, hold.stripes, hold.stripe)
