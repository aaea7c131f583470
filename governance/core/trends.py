"""Trends: a window of roll-ups as lines for people, each with its bars and its change against the window before."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Final

from governance.core.rollups import HOUR_US, Figure, Tally, cost_of_success, count, labels, latency_ms


class Span(StrEnum):
    """How much a trend covers; it ends with the last hour that is rolled up."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class Layout:
    """The window in hours, and its bars: how many hours each, and how many of them. An hour shows the day it ends."""

    hours: int
    bar_hours: int
    bars: int

    @property
    def window_us(self) -> int:
        return self.hours * HOUR_US

    @property
    def bar_us(self) -> int:
        return self.bar_hours * HOUR_US


LAYOUTS: Final[Mapping[Span, Layout]] = {
    Span.HOUR: Layout(1, 1, 24),
    Span.DAY: Layout(24, 1, 24),
    Span.WEEK: Layout(7 * 24, 6, 28),
    Span.MONTH: Layout(30 * 24, 24, 30),
}


# Users are many; a line for each of them would be no scorecard.
_LABELS_MAX: Final = 30


class Unit(StrEnum):
    COUNT = "count"
    MICROS = "micros"
    MS = "ms"


class Overall(StrEnum):
    """What a line says of its whole window."""

    TOTAL = "total"
    AVERAGE = "average"


@dataclass(frozen=True, slots=True)
class Line:
    """One figure. None where there is nothing to say: no success to divide by, no answer to time."""

    name: str
    unit: Unit
    overall: Overall
    latest: int | None
    value: int | None  # of the window: its sum, or the same figure over all of it
    before: int | None  # of the window before
    points: tuple[int | None, ...]  # the oldest first

    @property
    def change_percent(self) -> float | None:
        """Against the window before; None when there is nothing to compare with."""
        if self.value is None or not self.before:
            return None
        return round((self.value - self.before) * 100 / self.before, 1)


@dataclass(frozen=True, slots=True)
class _Measure:
    name: str
    unit: Unit
    overall: Overall
    of: Callable[[Tally], int | None]


def lines(bars: Sequence[Tally], window: Tally, before: Tally) -> list[Line]:
    """Every figure: those of the fixed list always, rules, units, ends and drills where there are some."""
    return [
        Line(
            name=measure.name,
            unit=measure.unit,
            overall=measure.overall,
            latest=measure.of(bars[-1]),
            value=measure.of(window),
            before=measure.of(before),
            points=tuple(measure.of(bar) for bar in bars),
        )
        for measure in _measures([window, before])
    ]


def merged(tallies: Sequence[Tally]) -> Tally:
    together: dict[tuple[str, str], int] = {}
    for tally in tallies:
        for key, value in tally.items():
            together[key] = together.get(key, 0) + value
    return together


def _measures(seen: Sequence[Tally]) -> list[_Measure]:
    return [
        *(
            _counted(f"actions {state}", Figure.ENDED, state)
            for state in ("succeeded", "failed", "denied", "cancelled")
        ),
        *_each(seen, Figure.DENIED, "denied by "),
        *_each(seen, Figure.EXHAUSTED, "exhausted "),
        *_each(seen, Figure.OVERDRAWN, "budget exhausted "),
        *_each(seen, Figure.MODEL_DENIED, "model denied "),
        *_each(seen, Figure.THRESHOLD, "budget threshold "),
        *(
            _counted(f"approvals {step}", Figure.APPROVALS, step)
            for step in ("requested", "approved", "denied", "expired", "cancelled")
        ),
        _Measure("approval latency p50", Unit.MS, Overall.AVERAGE, partial(latency_ms, percent=50)),
        _Measure("approval latency p95", Unit.MS, Overall.AVERAGE, partial(latency_ms, percent=95)),
        *(_counted(f"recovered to {state}", Figure.RECLAIMED, state) for state in ("queued", "in_doubt", "failed")),
        _Measure("cost", Unit.MICROS, Overall.TOTAL, lambda tally: count(tally, Figure.COST)),
        *_each(seen, Figure.MODEL_COST, "cost of ", Unit.MICROS),
        _Measure("cost per success", Unit.MICROS, Overall.AVERAGE, _rounded_cost),
        *_each(seen, Figure.DRILLS, "drill "),
    ]


def _counted(name: str, figure: Figure, *wanted: str, unit: Unit = Unit.COUNT) -> _Measure:
    return _Measure(name, unit, Overall.TOTAL, lambda tally: count(tally, figure, *wanted))


def _each(seen: Sequence[Tally], figure: Figure, prefix: str, unit: Unit = Unit.COUNT) -> list[_Measure]:
    """One line for each label that was seen, the largest first; of very many the largest."""
    found = dict(labels(merged(seen), figure))
    largest = sorted(found, key=lambda label: (-found[label], label))[:_LABELS_MAX]
    return [_counted(f"{prefix}{label}", figure, label, unit=unit) for label in largest]


def _rounded_cost(tally: Tally) -> int | None:
    """Exact until here: rounded to a micro-USD, half to even."""
    exact = cost_of_success(tally)
    return None if exact is None else round(exact)
