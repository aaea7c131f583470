"""Top up: a running attempt holds more before it spends it, on all accounts that it is charged to now or on none.

What was held at admission was an estimate. An attempt that finds out while it runs that it needs more, for its next
model call, asks for it first; the closing entry of the attempt closes the hold with all of its top-ups.

It is charged to its session, and to the budgets of this moment: a window that has begun since, or a budget that was
set, is asked like any other, and one that is over is not asked any more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias
from zlib import crc32

from governance.core.actions import State
from governance.core.budgets import Charge, Charges
from governance.core.changes import ActionRef, Author
from governance.core.ledger import Account, Hold, Unit, exhausted, held_in_all
from governance.core.sessions import account_ids
from governance.core.transitions import topped_up
from governance.operations.answers import Admitted
from governance.operations.charges import charges_now, end_raises, open_missing
from governance.operations.context import Governance
from governance.operations.sessions import in_force
from governance.operations.switches import board_now, payer_of
from governance.store import actions
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
    """Nothing was held: `account`, as it was found, has no room for `wanted` more; a budget's by this `charge`."""

    account: Account
    wanted: int
    charge: Charge | None


@dataclass(frozen=True, slots=True)
class Gone:
    """The attempt does not run any more; nothing was held."""


MoreHeld: TypeAlias = ToppedUp | NoRoom | Gone


def top_up(gov: Governance, running: Admitted, holds: tuple[Hold, ...], cost_micros: int, tokens: int) -> MoreHeld:
    """Holds so much more for the attempt `running`, which holds `holds` so far.

    Micro-USD and tokens, 0 or more. What is held by the end is in the store: whoever has called this, and also one who
    got no answer, ends the attempt with `Finish.topped_up`. Raises StoreUnavailable.
    """
    assert cost_micros >= 0, "a top-up adds"
    assert tokens >= 0, "a top-up adds"
    more = {Unit.COST: cost_micros, Unit.ACTIONS: 0, Unit.TOKENS: tokens}
    if not any(more.values()):
        return ToppedUp(holds)
    ref, payer = running.ref, payer_of(running.action)
    known: dict[str, Account] = {}
    for _ in range(_ROUNDS_MAX):
        board, now_us = board_now(gov), gov.clock.now_us()
        if board.book.raises_until_us <= now_us:
            end_raises(gov, "governance")
            continue
        # By the policy that an action of this moment would be admitted by: it opens the accounts of a new window.
        policy = in_force(gov, running.action.stream, now_us).policy
        charges = charges_now(gov, policy, payer, now_us, board)
        wanted = _wanted(ref, holds, charges, more, known)
        by = Author(f"attempt:{ref.id}:{ref.attempt}", now_us)
        if wanted is not None and apply(gov.store, topped_up(ref, by, wanted, epoch=board.epoch)):
            return ToppedUp(_with(holds, wanted))
        found = actions.gather(gov.store, ref.id, [*account_ids(ref.session_id), *charges.accounts])
        if found is None or (found.action.ref.state, found.action.ref.attempt) != (State.RUNNING, ref.attempt):
            return Gone()
        known = {account.id: account for account in found.accounts}
        if open_missing(gov, charges, found.accounts, board) or wanted is None:
            continue
        short = exhausted((known[hold.account_id] for hold in wanted), more)
        if short is not None:
            charge, _ = charges.accounts.get(short.id, (None, None))
            return NoRoom(short, more[short.unit], charge)
        for hold in wanted:
            if hold.stripes > 1:
                make_room(gov.store, hold.account_id, hold.amount, hold.stripe)
    raise AssertionError(f"attempt {ref.attempt} of {ref.id} kept moving for {_ROUNDS_MAX} rounds")


def _wanted(
    ref: ActionRef, holds: Sequence[Hold], charges: Charges, more: Mapping[Unit, int], known: Mapping[str, Account]
) -> tuple[Hold, ...] | None:
    """What has to be held more; None while nobody has looked at an account that holds nothing of the attempt yet."""
    held = {hold.account_id: hold for hold in holds}
    in_session = [hold for account_id in account_ids(ref.session_id) if (hold := held.get(account_id)) is not None]
    units = {hold.account_id: hold.unit for hold in in_session}
    units |= {account_id: unit for account_id, (_, unit) in charges.accounts.items()}
    wanted = []
    for account_id, unit in units.items():
        if not more[unit]:
            continue
        hold = held.get(account_id)
        if hold is None:
            account = known.get(account_id)
            if account is None:
                return None
            # One that it names: what is waited for is locked in one order, and this is not the only account.
            hold = Hold(account_id, unit, 0, account.stripes, crc32(ref.id.encode()) % account.stripes)
        wanted.append(replace(hold, amount=more[unit]))
    return tuple(wanted)


def _with(holds: Sequence[Hold], wanted: Sequence[Hold]) -> tuple[Hold, ...]:
    added = {hold.account_id: hold for hold in holds}
    for hold in wanted:
        known = added.get(hold.account_id) or replace(hold, amount=0)
        added[hold.account_id] = known.more(hold.amount, held_in_all(holds, hold.unit))
    return tuple(added.values())
