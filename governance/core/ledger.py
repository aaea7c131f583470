"""Two-phase accounting in integers: hold before the run, one closing entry after it.

An account is a budget in one window: `limit`, `posted`, `held`. Entries are append-only and each moves an account by
(`held_delta`, `posted_delta`); the account's columns are the sums of its entries, and an audit proves it:

    hold     +amount, 0        taken in the admitting transaction, on all matching accounts or on none
    top_up   +amount, 0        more of it while the attempt runs; any number, each on all accounts of then or on none
    post     -amount, +used    the run ended: what was really used is posted, the rest is released with it
    void     -amount, 0        the attempt is known not to have started its body
    expire   -amount, +amount  the attempt vanished: nobody can say what it used, so all of it counts

A closing entry closes the hold with its top-ups. The accounts of a top-up are those of its own moment: an attempt that
goes on after midnight holds more in the new day's account, and no more in the old one's. Its use is charged in the
order in which it was held: to the old account up to what is held there, to the new one what is beyond.

Usage beyond everything that is held is posted in full and flagged; no usage reported posts all that was held and flags
it. Never 0.

A hot account may be kept in several rows, its stripes, so that its writers do not queue for one. Each has a share of
the limit, and its own posted and held; the shares sum to the limit and the account is the sum of its rows. A hold is on
one stripe, whole, and closes on that.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
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
    """What one attempt may spend on one account of `stripes` rows; `stripe` is the one that was taken, once it was.

    `parts` of what the attempt uses are charged here, each (from, until), where it is not just the first of it.
    """

    account_id: str
    unit: Unit
    amount: int
    stripes: int = 1
    stripe: int = 0
    parts: tuple[tuple[int, int], ...] = ()

    @property
    def covers(self) -> tuple[tuple[int, int], ...]:
        return self.parts or ((0, self.amount),)

    @property
    def until(self) -> int:
        """Up to where the attempt may use while what comes last is charged here."""
        return self.covers[-1][1]

    def more(self, amount: int, since: int) -> "Hold":
        """With so much more, of an attempt that holds `since` of the unit in all."""
        *parts, last = self.covers if self.amount or not since else ((since, since),)
        parts += [(last[0], since + amount)] if last[1] == since else [last, (since, since + amount)]
        total = self.amount + amount
        return replace(self, amount=total, parts=() if parts == [(0, total)] else tuple(parts))


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


def held_in_all(holds: Iterable[Hold], unit: Unit) -> int:
    """How much an attempt with these holds may use of a unit."""
    return max((hold.until for hold in holds if hold.unit is unit), default=0)


def summed_up(taken: Iterable[tuple[int, Hold]]) -> tuple[Hold, ...]:
    """The holds of one attempt by account, from its entries in their order: (instant, what one account held more).

    What several accounts held more at one instant is one amount, held once.
    """
    holds: dict[str, Hold] = {}
    totals: Counter[Unit] = Counter()
    steps: dict[Unit, tuple[int, int, set[str]]] = {}
    for at_us, entry in taken:
        step = steps.get(entry.unit)
        if step is None or step[0] != at_us or entry.account_id in step[2]:
            step = steps[entry.unit] = (at_us, totals[entry.unit], set())
        _, since, told = step
        told.add(entry.account_id)
        known = holds.get(entry.account_id) or replace(entry, amount=0)
        holds[entry.account_id] = known.more(entry.amount, since)
        totals[entry.unit] = max(totals[entry.unit], since + entry.amount)
    return tuple(sorted(holds.values(), key=lambda hold: hold.account_id))


def exhausted(accounts: Iterable[Account], amounts: dict[Unit, int]) -> Account | None:
    """The tightest account without room for its amount: the one of which the smallest share is left, of equals the one
    that resets last.
    """
    short = (a for a in accounts if not a.has_room(amounts[a.unit]))
    return min(short, key=lambda account: (account.share_left, -account.resets_us, account.id), default=None)


def settle(holds: Sequence[Hold], usage: Usage) -> tuple[Closing, ...]:
    """The closing entries of a run that ended and reported `usage`."""
    used = {Unit.COST: usage.cost_micros, Unit.ACTIONS: 1, Unit.TOKENS: usage.tokens}
    held = {unit: held_in_all(holds, unit) for unit in Unit}
    return tuple(_post(hold, used[hold.unit], held[hold.unit], known=hold.unit not in usage.unknown) for hold in holds)


def _post(hold: Hold, used: int | None, held: int, *, known: bool) -> Closing:
    if used is None or (not known and used <= held):
        return _closing(hold, EntryKind.POST, hold.amount, Flag.UNREPORTED if hold.amount else None)
    posted = sum(min(max(used - begin, 0), end - begin) for begin, end in hold.covers)
    if hold.until == held:
        # Whoever holds the last of it is charged what is beyond.
        posted += max(used - held, 0)
    return _closing(hold, EntryKind.POST, posted, Flag.OVER_HOLD if posted > hold.amount else None)


def void(holds: Sequence[Hold]) -> tuple[Closing, ...]:
    """The closing entries of an attempt whose body never started."""
    return tuple(_closing(hold, EntryKind.VOID, 0, None) for hold in holds)


def expire(holds: Sequence[Hold]) -> tuple[Closing, ...]:
    """The closing entries of an attempt that vanished."""
    return tuple(_closing(h, EntryKind.EXPIRE, h.amount, Flag.UNREPORTED if h.amount else None) for h in holds)


def _closing(hold: Hold, kind: EntryKind, posted: int, flag: Flag | None) -> Closing:
    return Closing(hold.account_id, kind, -hold.amount, posted, flag, hold.stripes, hold.stripe)
