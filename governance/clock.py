"""The one source of time. Every process of a fleet shares scale and origin, so a month can be rehearsed in minutes.

Times are integers: UTC microseconds since the epoch (`*_us`). Spans that belong to the machine rather than to the
rehearsal (a heartbeat, a lease, a pause before a retry) are given in real seconds and converted here.
"""

import time
from dataclasses import dataclass
from typing import Protocol

from governance.core.instants import SECOND_US


class Clock(Protocol):
    """What operations ask for the time."""

    def now_us(self) -> int: ...

    def span_us(self, real_s: float) -> int:
        """Clock microseconds that pass during `real_s` real seconds."""
        ...

    def real_s(self, span_us: int) -> float:
        """Real seconds that `span_us` clock microseconds take."""
        ...


@dataclass(frozen=True, slots=True)
class SystemClock:
    """The machine's clock, run `scale` times faster from `origin_us` on."""

    scale: float = 1.0
    origin_us: int = 0

    def now_us(self) -> int:
        real_us = time.time_ns() // 1000
        if self.scale == 1.0:
            return real_us
        return self.origin_us + int((real_us - self.origin_us) * self.scale)

    def span_us(self, real_s: float) -> int:
        return int(real_s * SECOND_US * self.scale)

    def real_s(self, span_us: int) -> float:
        return span_us / SECOND_US / self.scale
