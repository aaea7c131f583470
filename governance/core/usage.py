"""Usage: who used how much of what, and whether the limits fit it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from governance.core.instants import iso
from governance.core.ledger import Unit


class By(StrEnum):
    """What usage is added up by."""

    USER = "user"
    TEAM = "team"
    ORG = "org"
    MODEL = "model"
    AGENT = "agent"
    STREAM = "stream"


@dataclass(frozen=True, slots=True)
class Used:
    """What was posted for one of them; None: of those that do not say. `actions` counts attempts that ran:
    usage outside of actions is none.

    By model, an attempt that called several counts for each; its tokens and cost are each model's own.
    """

    name: str | None
    actions: int
    tokens: int
    cost_micros: int


class Fit(StrEnum):
    """How a limit stands to what was used of it."""

    TIGHT = "too tight"
    FITS = "fits"
    LOOSE = "too loose"
    UNUSED = "unused"


@dataclass(frozen=True, slots=True)
class Window:
    """One account: a budget in one window."""

    account_id: str
    scope: str
    unit: Unit
    window_start_us: int
    limit: int
    posted: int
    held: int
    #: Whether its time is over: what is little now may still become much in one that is not.
    over: bool = True

    @property
    def budget(self) -> str:
        """The account without its window and unit: what is the same from window to window."""
        name = self.account_id.removesuffix(f":{self.unit}")
        return name.removesuffix(iso(self.window_start_us)).rstrip("@:")


@dataclass(frozen=True, slots=True)
class Judged:
    """A limit against its windows: `peak` and `mean` of what they used, `full` of them had no room left to speak of."""

    budget: str
    unit: Unit
    windows: int
    limit: int
    peak: int
    mean: int
    full: int
    fit: Fit
    advice: str

    @property
    def peak_percent(self) -> int:
        return 100 if not self.limit else min(self.peak * 100 // self.limit, 999)


# From this part of a limit on, the next action of the usual size is refused.
_FULL_PERCENT: Final = 95
_LOOSE_PERCENT: Final = 25
# Above the highest use there was, with room for a busier week.
_ROOM: Final = (5, 4)


def judge(windows: Sequence[Window]) -> list[Judged]:
    """Each limit against the windows of it: those that are too tight first, then by how full they were."""
    grouped: dict[tuple[str, Unit], list[Window]] = {}
    for window in windows:
        grouped.setdefault((window.budget, window.unit), []).append(window)
    judged = [_judged(budget, unit, group) for (budget, unit), group in grouped.items()]
    order = list(Fit)
    return sorted(judged, key=lambda one: (order.index(one.fit), -one.peak_percent, one.budget, one.unit))


def _judged(budget: str, unit: Unit, windows: Sequence[Window]) -> Judged:
    limit = max(windows, key=lambda window: window.window_start_us).limit
    used = [window.posted + window.held for window in windows]
    full = sum(amount * 100 >= window.limit * _FULL_PERCENT for amount, window in zip(used, windows, strict=True))
    peak = max(used)
    fitting = -(-peak * _ROOM[0] // _ROOM[1])
    if full:
        fit, advice = Fit.TIGHT, f"{full} of {len(windows)} windows were used up: raise it, or have fewer ask for it"
    elif not any(window.over for window in windows):
        fit, advice = Fit.FITS, "its window is not over yet"
    elif not peak:
        fit, advice = Fit.UNUSED, "nothing was charged to it: is it meant for somebody?"
    elif peak * 100 < limit * _LOOSE_PERCENT:
        fit, advice = Fit.LOOSE, f"{fitting} would have been enough: it stops a runaway late"
    else:
        fit, advice = Fit.FITS, ""
    return Judged(budget, unit, len(windows), limit, peak, sum(used) // len(used), full, fit, advice)
