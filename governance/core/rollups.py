"""Roll-ups: what came of one hour, as sums, so that hours and streams add up to any window.

A tally maps (figure, label) to a count or to micro-USD. A latency is kept as the number of decisions for each bound in
milliseconds that they did not exceed: bounds have six significant bits, so that a percentile over any number of hours
is at most 3.2 % above the exact one, and exact below 64 ms.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Final, TypeAlias

from governance.core.instants import SECOND_US

HOUR_US: Final = 3600 * SECOND_US
#: The stream of what happens to the fleet itself.
FLEET: Final = "*"
_MS_US: Final = 1000
_BITS: Final = 6


class Figure(StrEnum):
    """What is counted; its label says of what."""

    ENDED = "ended"  # actions, by the state they ended in
    APPROVALS = "approvals"  # requests: requested, approved, denied, expired, cancelled
    LATENCY = "latency"  # answers by a person, by the bound in milliseconds they did not exceed
    DENIED = "denied"  # actions, by rule
    EXHAUSTED = "exhausted"  # refusals for want of a budget, by its unit
    OVERDRAWN = "overdrawn"  # `budget.exhausted` events: all, by each part of the identity, by budget and model
    MODEL_DENIED = "model_denied"  # `model.denied` events, likewise
    THRESHOLD = "threshold"  # `budget.threshold` events, likewise: of a budget's identity there is what it names
    RECLAIMED = "reclaimed"  # attempts that vanished, by the state their actions went to
    COST = "cost"  # posted, in micros
    MODEL_COST = "model_cost"  # posted, in micros, by the model that was called, or else declared
    DRILLS = "drills"  # by "<kind> passed" and "<kind> failed"


#: The label of all events of a figure that is counted by several parts of them.
ALL: Final = "all"
Tally: TypeAlias = Mapping[tuple[str, str], int]


@dataclass(frozen=True, slots=True)
class Row:
    """One sum of one hour."""

    stream: str
    figure: Figure
    label: str
    value: int


def hour_of(at_us: int) -> int:
    """The start of the hour that contains the instant."""
    return at_us - at_us % HOUR_US


def latency_bound_ms(span_us: int) -> int:
    """The bound that an answer after `span_us` counts for."""
    ms = -(-max(0, span_us) // _MS_US)
    shift = max(0, ms.bit_length() - _BITS)
    return -(-ms // (1 << shift)) << shift


def labels(tally: Tally, figure: Figure) -> Iterator[tuple[str, int]]:
    """(label, sum) of one figure."""
    return ((label, value) for (of, label), value in tally.items() if of == figure)


def count(tally: Tally, figure: Figure, *wanted: str) -> int:
    """The sum over these labels, over all of them when none is named."""
    return sum(value for label, value in labels(tally, figure) if not wanted or label in wanted)


def latency_ms(tally: Tally, percent: int) -> int | None:
    """Nearest-rank percentile of the answers' latency; None without any."""
    bounds = sorted((int(label), value) for label, value in labels(tally, Figure.LATENCY))
    rank = -(-sum(value for _, value in bounds) * percent // 100)
    for bound, value in bounds:
        rank -= value
        if rank <= 0:
            return bound
    return None


def cost_of_success(tally: Tally) -> Fraction | None:
    """Micro-USD for each action that succeeded, exactly, whatever failed on the way included; None without any."""
    succeeded = count(tally, Figure.ENDED, "succeeded")
    return Fraction(count(tally, Figure.COST), succeeded) if succeeded else None
