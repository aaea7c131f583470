"""Top up: a running attempt holds more, on all of its accounts or on none, before it spends it.

What was held at admission was an estimate. An attempt that finds out while it runs that it needs more, for its next
model call, asks for it first; the closing entry of the attempt closes the hold with all of its top-ups.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from governance.core.actions import State
from governance.core.changes import ActionRef, Author
from governance.core.ledger import Account, Hold, Unit, exhausted
from governance.core.transitions import topped_up
from governance.operations.context import Governance
from governance.store import actions, switches
from governance.store.accounts import make_room
from governance.store.changes import apply

# Every round is caused by another writer's success.
_ROUNDS_MAX = 1000


@dataclass(frozen=True, slots=True)
class ToppedUp:
    """The attempt holds these now, in all: give them to the next top-up."""

    holds: tuple[Hold, ...]


@dataclass(frozen=True, slots=True)
class NoRoom:
    """Nothing was held: `account`, as it was found, has no room for `wanted` more."""

    account: Account
    wanted: int


@dataclass(frozen=True, slots=True)
class Gone:
    """The attempt does not run any more; nothing was held."""


MoreHeld: TypeAlias = ToppedUp | NoRoom | Gone


def top_up(gov: Governance, ref: ActionRef, holds: tuple[Hold, ...], cost_micros: int, tokens: int) -> MoreHeld:
    """Holds so much more for the attempt `ref` on the accounts of `holds`, which are what it holds so far.

    Micro-USD and tokens, 0 or more. What is held by the end is in the store: whoever has called this, and also one who
    got no answer, ends the attempt with `Finish.topped_up`. Raises StoreUnavailable.
    """
    assert cost_micros >= 0, "a top-up adds"
    assert tokens >= 0, "a top-up adds"
    more = {Unit.COST: cost_micros, Unit.ACTIONS: 0, Unit.TOKENS: tokens}
    wanted = tuple(replace(hold, amount=more[hold.unit]) for hold in holds if more[hold.unit])
    if not wanted:
        return ToppedUp(holds)
    for _ in range(_ROUNDS_MAX):
        by = Author(f"attempt:{ref.id}:{ref.attempt}", gov.clock.now_us())
        if apply(gov.store, topped_up(ref, by, wanted, epoch=switches.epoch(gov.store))):
            return ToppedUp(_sum(holds, more))
        found = actions.gather(gov.store, ref.id, [hold.account_id for hold in wanted])
        if found is None or (found.action.ref.state, found.action.ref.attempt) != (State.RUNNING, ref.attempt):
            return Gone()
        short = exhausted(found.accounts, more)
        if short is not None:
            return NoRoom(short, more[short.unit])
        for hold in wanted:
            if hold.stripes > 1:
                make_room(gov.store, hold.account_id, hold.amount, hold.stripe)
    raise AssertionError(f"attempt {ref.attempt} of {ref.id} kept moving for {_ROUNDS_MAX} rounds")


def _sum(holds: Sequence[Hold], more: dict[Unit, int]) -> tuple[Hold, ...]:
    return tuple(replace(hold, amount=hold.amount + more[hold.unit]) for hold in holds)
