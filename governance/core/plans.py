"""Plans: how a stream's work is limited, window by window."""

from dataclasses import dataclass
from enum import StrEnum

from governance.core.windows import WindowPlan


class OnExhausted(StrEnum):
    """What becomes of an action that the window's budget has no room for."""

    DENY = "deny"
    DEFER = "defer"  # it waits for the next window
    PARK = "park"  # it waits for a person, who may raise it; a budget by identity only
    STOP = "stop"  # the budget engages a kill switch for its own scope


@dataclass(frozen=True, slots=True)
class Limits:
    """What one window may use, per unit; None is unlimited, 0 is nothing. Money is micro-USD."""

    cost_micros: int | None = None
    actions: int | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """The windows of a stream and what each of them may use."""

    window: WindowPlan
    limits: Limits
    on_exhausted: OnExhausted = OnExhausted.DENY
    #: What still runs at the end of a window may go on for so long; None is as long as an attempt may run.
    grace_us: int | None = None
    #: In how many rows each account of a session is kept.
    stripes: int = 1
