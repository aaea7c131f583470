"""Usage reports: who used how much in the last hour, day, week or month, and whether the limits fit it."""

from dataclasses import dataclass

from governance.core.ledger import Unit
from governance.core.trends import LAYOUTS, Span
from governance.core.usage import By, Judged, Used, Window, judge
from governance.operations.context import CONTROL_STREAM, Governance
from governance.store import usage


@dataclass(frozen=True, slots=True)
class UsageReport:
    """What was posted in [since, until), by whom, the most expensive first."""

    by: By
    window: Span
    since_us: int
    until_us: int
    lines: tuple[Used, ...]


@dataclass(frozen=True, slots=True)
class LimitsReport:
    """Limits against the use of their windows in [since, until)."""

    window: Span
    since_us: int
    until_us: int
    limits: tuple[Judged, ...]


def used(gov: Governance, by: By, window: Span) -> UsageReport:
    """What was really posted, until now. By model an attempt is one of each that it called."""
    until_us = gov.clock.now_us()
    since_us = until_us - LAYOUTS[window].window_us
    found = usage.posted(gov.store, by, since_us, until_us + 1)
    lines = tuple(Used(row[0], int(row[1]), int(row[2]), int(row[3])) for row in found)
    return UsageReport(by, window, since_us, until_us, lines)


def fits(gov: Governance, window: Span) -> LimitsReport:
    """Which limits are too tight or too loose for what their windows used; of every scope that has accounts."""
    until_us = gov.clock.now_us()
    since_us = until_us - LAYOUTS[window].window_us
    return LimitsReport(window, since_us, until_us, limits_between(gov, since_us, until_us + 1))


def limits_between(gov: Governance, since_us: int, until_us: int) -> tuple[Judged, ...]:
    """Each limit whose windows touch [since, until), against what they used."""
    windows = [
        Window(id_, scope, Unit(unit), int(start_us), int(limit), int(posted), int(held), over=int(end_us) <= until_us)
        for id_, scope, unit, start_us, limit, posted, held, end_us in usage.limited(gov.store, since_us, until_us)
    ]
    # What happens to the fleet itself is charged to nobody.
    return tuple(judge([one for one in windows if one.budget != f"session:{CONTROL_STREAM}"]))
