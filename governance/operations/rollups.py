"""Hourly roll-ups: what came of each hour of the fleet's clock, written once it is over and its events are sealed.

Not to be confused with `governance.operations.scorecard`, which is what one run of a fleet came to.

Rows depend on the hour's events only, so that a late, doubled or missing tick changes nothing: the next one catches
up, hour by hour. An event may be committed after its hour was rolled up: a little, or by as long as a machine kept an
end on its disk. So with every new hour the events of the day before are counted again, and an hour that has more of
them than its roll-up was made from is rolled up anew. An hour that has fewer has been pruned, and keeps its figures.
"""

from dataclasses import dataclass
from typing import Final

from governance.core.rollups import HOUR_US, hour_of
from governance.core.trends import LAYOUTS, Line, Span, lines
from governance.operations.context import Governance
from governance.store import rollups

#: Real seconds after the end of an hour: what is stamped in it is committed by then, save what was kept on a disk.
MARGIN_S: Final = 5.0
#: How far back late events are looked for, in hours of the fleet's clock.
LATE_HOURS: Final = 24
# Of one run: a fleet that was away for longer catches up over several.
_HOURS_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class RolledUp:
    """The starts of the hours that a run rolled up, and of those that it rolled up again."""

    hours: tuple[int, ...]
    again: tuple[int, ...]


def roll_up(gov: Governance) -> RolledUp:
    """Rolls up what is over, sealed and not rolled up yet, at most 200 hours of it. Raises StoreUnavailable."""
    over_us = _over_us(gov)
    last_us = rollups.last_hour(gov.store)
    hour_us: int | None = last_us + HOUR_US if last_us is not None else _first_hour(gov, over_us)
    hours: list[int] = []
    while hour_us is not None and hour_us < over_us and len(hours) < _HOURS_MAX:
        next_us = rollups.first_event_us(gov.store, hour_us, over_us)
        # Where nothing happened until now there is nothing to keep but that it was looked at.
        hour_us = over_us - HOUR_US if next_us is None else hour_of(next_us)
        _roll(gov, hour_us)
        hours.append(hour_us)
        hour_us += HOUR_US
    return RolledUp(tuple(hours), _again(gov, hours[0]) if hours else ())


def _over_us(gov: Governance) -> int:
    """The end of the last hour that is over and sealed."""
    until_us = gov.clock.now_us() - gov.clock.span_us(MARGIN_S)
    unsealed_us = rollups.unsealed_since_us(gov.store)
    return hour_of(until_us if unsealed_us is None else min(until_us, unsealed_us))


def _first_hour(gov: Governance, over_us: int) -> int | None:
    first_us = rollups.first_event_us(gov.store, 0, over_us)
    return None if first_us is None else hour_of(first_us)


def _again(gov: Governance, before_us: int) -> tuple[int, ...]:
    """Rolls up the hours before that one once more in which events were committed since."""
    from_us = before_us - LATE_HOURS * HOUR_US
    kept = rollups.events_kept(gov.store, from_us, before_us)
    now = rollups.events_by_hour(gov.store, from_us, before_us)
    # An hour between two kept ones had no event; one before the first has not been looked at.
    first_us = min(kept, default=before_us)
    late = sorted(hour for hour, events in now.items() if hour >= first_us and events > kept.get(hour, 0))
    return tuple(hour for hour in late if _roll(gov, hour))


def _roll(gov: Governance, hour_us: int) -> bool:
    events, figures = rollups.read_hour(gov.store, hour_us)
    return rollups.keep(gov.store, hour_us, events, figures, gov.clock.now_us())


@dataclass(frozen=True, slots=True)
class Trend:
    """The last hours that are rolled up, `until_us` exclusive. `behind_hours`: over, and not rolled up yet."""

    window: Span
    stream: str | None
    since_us: int
    until_us: int
    bar_hours: int
    behind_hours: int
    lines: tuple[Line, ...]


def trend(gov: Governance, span: Span, stream: str | None) -> Trend | None:
    """A window's figures with the window before; of one stream, or of all. None while nothing is rolled up.

    What belongs to no stream, such as drills, is in the figures of all.
    """
    with gov.store.snapshot() as reader:
        last_us = rollups.last_hour(reader)
        if last_us is None:
            return None
        layout = LAYOUTS[span]
        until_us = last_us + HOUR_US
        since_us = until_us - layout.window_us
        first_us = until_us - layout.bars * layout.bar_us
        bars = rollups.sums(reader, first_us, until_us, bar_us=layout.bar_us, stream=stream)
        spans = rollups.sums(reader, since_us - layout.window_us, until_us, bar_us=layout.window_us, stream=stream)
    return Trend(
        window=span,
        stream=stream,
        since_us=since_us,
        until_us=until_us,
        bar_hours=layout.bar_hours,
        behind_hours=max(0, (hour_of(gov.clock.now_us()) - until_us) // HOUR_US),
        lines=tuple(lines([bars.get(number, {}) for number in range(layout.bars)], spans.get(1, {}), spans.get(0, {}))),
    )
