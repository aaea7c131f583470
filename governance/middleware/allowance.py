"""What a running attempt may still use: what it holds, less what it has reported and what its calls have set aside.

A call of a model sets aside what it may use at most before it is made; where the hold is too small, more is held. The
body may make calls from several threads. What is still set aside when the attempt ends counts as used: of a call that
nobody saw to its end, a stream that was dropped or another thread's, nobody knows what it used.
"""

import threading
from typing import TypeAlias

from governance.core.ledger import Unit, held_in_all
from governance.middleware.call import Call
from governance.operations.top_up import Gone, NoRoom, ToppedUp, top_up


class SetAside:
    """It is there, and nobody else's."""


Allowed: TypeAlias = SetAside | NoRoom | Gone


class Allowance:
    """Of one attempt. Amounts are micro-USD and tokens."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._holds = call.running().holds
        self._aside = call.aside
        self._lock = threading.Lock()

    def left(self, unit: Unit) -> int:
        """What is held and not used yet."""
        return max(held_in_all(self._holds, unit) - self._call.reported.of(unit) - self._aside[unit], 0)

    def set_aside(self, cost_micros: int, tokens: int) -> Allowed:
        """Keeps so much for one call, holding more where it has to. Raises StoreUnavailable."""
        wanted = {Unit.COST: cost_micros, Unit.TOKENS: tokens}
        with self._lock:
            more = {unit: max(amount - self.left(unit), 0) for unit, amount in wanted.items()}
            if any(more.values()):
                # Said first: also a top-up whose answer is lost is closed with the hold.
                self._call.topped_up = True
                if self._call.added_up:
                    return Gone()
                held = top_up(self._call.gov, self._call.running(), self._holds, more[Unit.COST], more[Unit.TOKENS])
                if not isinstance(held, ToppedUp):
                    return held
                self._holds = held.holds
            for unit, amount in wanted.items():
                self._aside[unit] += amount
            if self._call.added_up:
                # Too late to be counted.
                return Gone()
        return SetAside()

    def give_back(self, cost_micros: int, tokens: int) -> None:
        """Nothing of what was set aside was used."""
        reported = self._call.reported
        with self._lock:
            self._aside[Unit.COST] -= cost_micros
            self._aside[Unit.TOKENS] -= tokens
            # Of what was held for calls alone, that is a report. What the action declared, its body may have used.
            if not self._declared(Unit.COST):
                reported.cost_micros = reported.cost_micros or 0
            if not self._declared(Unit.TOKENS):
                reported.tokens = reported.tokens or 0

    def _declared(self, unit: Unit) -> int:
        """What the attempt was admitted with."""
        return max((hold.amount for hold in self._call.running().holds if hold.unit is unit), default=0)

    def use(self, aside: tuple[int, int], used: tuple[int, int], unknown: frozenset[Unit] = frozenset()) -> None:
        """Reports what was used of `aside`, both micro-USD and tokens; of `unknown` units it may be more."""
        reported = self._call.reported
        with self._lock:
            reported.unknown |= unknown
            reported.cost_micros = (reported.cost_micros or 0) + used[0]
            reported.tokens = (reported.tokens or 0) + used[1]
            self._aside[Unit.COST] -= aside[0]
            self._aside[Unit.TOKENS] -= aside[1]
