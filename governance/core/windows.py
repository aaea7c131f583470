"""Windows: the spans in which limits count, aligned to local midnight in the plan's time zone. A session's divide a
day; a budget's are a period: a local day, a week from Monday, a month, or all of time.

Times are integers, UTC microseconds since the epoch. A window starts whenever the local clock shows a multiple of the
window's length since midnight, so hourly windows start at local full hours, also where the offset is a half hour.
Consecutive windows touch: every instant is in exactly one.

What daylight saving does to them:

- A whole-day window runs from the first instant of its local date to the first instant of the next: 23, 24 or 25 h.
- Where clocks go forward, a start that the clock skips happens at the jump; starts that fall together are one. Hourly
  windows keep their hour (in Lord Howe, which jumps by 30 minutes, one has half an hour).
- Where clocks go back, a start that the clock shows twice happens twice: an hourly budget is an hour's, it is not
  stretched over both. A longer window that contains the repeated time is longer by it (4 h become 5 h).
"""

from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Final, assert_never
from zoneinfo import ZoneInfo

from governance.core.instants import SECOND_US
from governance.errors import InvalidOption

DAY_US: Final = 24 * 3600 * SECOND_US
#: The end of the window that never ends: the last second of the year 9998.
NEVER_US: Final = 253_370_764_799 * SECOND_US

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
# A fleet asks for a few zones and recent days; an audit walks further back.
_DAYS_KEPT: Final = 1024


class Period(StrEnum):
    """How long a budget's windows are: real local days, weeks and months, 23 hours or 31 days as they come."""

    DAILY = "daily"
    WEEKLY = "weekly"  # from Monday
    MONTHLY = "monthly"
    UNLIMITED = "unlimited"  # one window, which never ends


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """How long a stream's windows are, and whose midnight they are aligned to.

    `length_us` is whole seconds that divide 24 hours, at most a day; `timezone` is an IANA name. Raises InvalidOption.
    """

    length_us: int
    timezone: str

    def __post_init__(self) -> None:
        if self.length_us < SECOND_US or self.length_us % SECOND_US or DAY_US % self.length_us:
            raise InvalidOption(
                "window", f"{self.length_us / SECOND_US:g}s", "a length that divides a day, such as 15m, 1h, 4h or 1d"
            )
        zone(self.timezone)


@dataclass(frozen=True, slots=True)
class Window:
    """`start_us` is in the window, `end_us` is the start of the next."""

    start_us: int
    end_us: int


@dataclass(frozen=True, slots=True)
class _Day:
    """A local date; `steady` when no clock changes in it."""

    start_us: int
    end_us: int
    steady: bool


def window_at(plan: WindowPlan, now_us: int) -> Window:
    """The window of `plan` that contains `now_us` (years 2 to 9998)."""
    ordinal, day = _day_at(plan.timezone, now_us)
    if plan.length_us == DAY_US:
        return Window(day.start_us, day.end_us)
    if day.steady:
        start_us = now_us - (now_us - day.start_us) % plan.length_us
        return Window(start_us, start_us + plan.length_us)
    starts = _starts(plan, ordinal)
    following = bisect_right(starts, now_us)
    return Window(starts[following - 1], starts[following] if following < len(starts) else day.end_us)


def period_at(period: Period, timezone: str, now_us: int) -> Window:
    """The window of `period` that contains `now_us` (years 2 to 9998), by the local calendar of `timezone`."""
    if period is Period.UNLIMITED:
        return Window(0, NEVER_US)
    ordinal, day = _day_at(timezone, now_us)
    match period:
        case Period.DAILY:
            return Window(day.start_us, day.end_us)
        case Period.WEEKLY:
            first = ordinal - datetime.fromordinal(ordinal).weekday()
            following = first + 7
        case Period.MONTHLY:
            date = datetime.fromordinal(ordinal)
            first = ordinal - date.day + 1
            # Four days after the 28th it is the next month, in every month.
            following = (date.replace(day=28) + timedelta(days=4)).replace(day=1).toordinal()
        case _:
            assert_never(period)
    return Window(_day(timezone, first).start_us, _day(timezone, following).start_us)


@lru_cache(maxsize=256)
def zone(name: str) -> ZoneInfo:
    """The time zone of that IANA name. Raises InvalidOption for a name the tz database does not have."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, not a zone's name, or a folder of zones such as "America"
        raise InvalidOption("timezone", name, 'an IANA time zone such as "UTC" or "Europe/Berlin"') from None


def _day_at(timezone: str, now_us: int) -> tuple[int, _Day]:
    """The local date that contains `now_us`, as (ordinal, day).

    Usually the one the local clock shows; not where clocks went back across midnight and a date is shown again after
    the next has begun.
    """
    ordinal = (_EPOCH + timedelta(microseconds=now_us)).astimezone(zone(timezone)).toordinal()
    day = _day(timezone, ordinal)
    while now_us < day.start_us:
        ordinal -= 1
        day = _day(timezone, ordinal)
    while now_us >= day.end_us:
        ordinal += 1
        day = _day(timezone, ordinal)
    return ordinal, day


@lru_cache(maxsize=_DAYS_KEPT)
def _day(timezone: str, ordinal: int) -> _Day:
    tz = zone(timezone)
    start_us = _instants(tz, datetime.fromordinal(ordinal))[0]
    end_us = _instants(tz, datetime.fromordinal(ordinal + 1))[0]
    same_offset = _offset(tz, start_us) == _offset(tz, end_us - 1)
    return _Day(start_us, end_us, steady=same_offset and end_us - start_us == DAY_US)


@lru_cache(maxsize=_DAYS_KEPT)
def _starts(plan: WindowPlan, ordinal: int) -> tuple[int, ...]:
    """Every window start of a day on which clocks change."""
    day = _day(plan.timezone, ordinal)
    midnight = datetime.fromordinal(ordinal)
    shown = (midnight + timedelta(microseconds=at) for at in range(0, DAY_US, plan.length_us))
    starts = {at for wall in shown for at in _instants(zone(plan.timezone), wall) if day.start_us <= at < day.end_us}
    return tuple(sorted(starts | {day.start_us}))


def _instants(tz: ZoneInfo, wall: datetime) -> tuple[int, ...]:
    """When the clock shows `wall`: once, twice in order, or at the jump that skips it."""
    earlier_rule = (wall.replace(tzinfo=tz, fold=0) - _EPOCH) // _MICROSECOND
    later_rule = (wall.replace(tzinfo=tz, fold=1) - _EPOCH) // _MICROSECOND
    if earlier_rule == later_rule:
        return (earlier_rule,)
    if earlier_rule < later_rule:
        return (earlier_rule, later_rule)
    return (_jump(tz, later_rule, earlier_rule),)


def _jump(tz: ZoneInfo, before_us: int, after_us: int) -> int:
    """The first instant of the offset in force at `after_us`, which was not yet in force at `before_us`."""
    offset = _offset(tz, after_us)
    while after_us - before_us > 1:
        middle_us = (before_us + after_us) // 2
        if _offset(tz, middle_us) == offset:
            after_us = middle_us
        else:
            before_us = middle_us
    return after_us


def _offset(tz: ZoneInfo, at_us: int) -> timedelta | None:
    return (_EPOCH + timedelta(microseconds=at_us)).astimezone(tz).utcoffset()
