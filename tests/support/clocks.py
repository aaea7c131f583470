"""Clocks that move because they are looked at: a test has an instant arrive, or something happen, at any look."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.support.governed import ManualClock


@dataclass
class TickingClock(ManualClock):
    """Every look at it takes a while, so that midnight comes in the middle of whatever is done."""

    step_us: int = 1000

    def now_us(self) -> int:
        self.at_us += self.step_us
        return self.at_us


@dataclass
class InterruptingClock(ManualClock):
    """At its look number `at_look` something else happens first, once."""

    at_look: int = 0
    happens: Callable[[], object] = lambda: None
    looks: int = 0

    def now_us(self) -> int:
        self.looks += 1
        if self.looks == self.at_look:
            self.happens()
        return self.at_us

    @property
    def interrupted(self) -> bool:
        return 0 < self.at_look <= self.looks
