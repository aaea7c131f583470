"""Drills: what an exercise of an emergency procedure has to prove, read from its own sealed trail.

A drill passes when every step does. Nothing passes empty: a drill that could exercise nothing has failed. What was
planned comes from whoever ran the drill; what happened is read from the events, which an auditor can read again.
`governance.core.drill_verdicts` judges.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Final

from governance.core.approvals import Chain
from governance.core.digest import canonical_json
from governance.core.events import StoredEvent


class Kind(StrEnum):
    KILL = "kill"
    APPROVAL_BACKLOG = "approval-backlog"
    RECOVERY = "recovery"


#: What a figure is measured against, in real milliseconds: from the engagement to the end of the slowest canary but
#: one in a hundred; from the moment a step of a request is due to the step (the escalation sweep's 5 s and as much);
#: from the start of an attempt whose child is killed at once to the next attempt.
THRESHOLD_MS: Final[Mapping[Kind, int]] = {Kind.KILL: 2000, Kind.APPROVAL_BACKLOG: 10_000, Kind.RECOVERY: 30_000}
#: What waits longer is given up before it is judged.
THRESHOLD_MS_MAX: Final = 300_000


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that a drill had to prove, and what was seen."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value; None when nothing was there to measure."""

    name: str
    value: float | None
    unit: str


@dataclass(frozen=True, slots=True)
class EventRange:
    """Sealed events of a session, both ends included: `acp events replay` shows them."""

    session_id: str
    first_seq: int
    last_seq: int


@dataclass(frozen=True, slots=True)
class Findings:
    """What a drill proved or failed to prove."""

    steps: tuple[Step, ...]
    figures: tuple[Figure, ...] = ()

    @property
    def passed(self) -> bool:
        return bool(self.steps) and all(step.passed for step in self.steps)


@dataclass(frozen=True)
class DrillReport:
    """What is kept of a drill. Times are clock microseconds, the threshold is real milliseconds."""

    drill_id: str
    kind: Kind
    session_id: str
    started_us: int
    started_by: str
    finished_us: int
    threshold_ms: int
    passed: bool
    steps: tuple[Step, ...]
    figures: tuple[Figure, ...]
    evidence: tuple[EventRange, ...]

    @property
    def failures(self) -> tuple[str, ...]:
        return tuple(f"{step.name}: {step.detail}" for step in self.steps if not step.passed)

    @cached_property
    def text(self) -> str:
        return canonical_json(asdict(self))


def parse_report(text: str) -> DrillReport:
    """The report that `DrillReport.text` wrote."""
    found: dict[str, Any] = json.loads(text)
    found["kind"] = Kind(found["kind"])
    found["steps"] = tuple(Step(**step) for step in found["steps"])
    found["figures"] = tuple(Figure(**figure) for figure in found["figures"])
    found["evidence"] = tuple(EventRange(**part) for part in found["evidence"])
    return DrillReport(**found)


@dataclass(frozen=True, slots=True)
class Trail:
    """A drill session after its end: all its events, sealed, in order; its holds; what the audit finds wrong.

    `ms_us` is how many clock microseconds a real millisecond takes.
    """

    session_id: str
    events: tuple[StoredEvent, ...]
    problems: tuple[str, ...]
    holds_taken: int
    held: int
    ms_us: int

    @property
    def evidence(self) -> EventRange | None:
        if not self.events:
            return None
        return EventRange(self.session_id, self.events[0].seq or 0, self.events[-1].seq or 0)

    def of(self, action_id: str) -> Iterator[StoredEvent]:
        return (event for event in self.events if event.action_id == action_id)

    def first(self, kind: str, action_id: str | None = None) -> StoredEvent | None:
        return next((e for e in self.events if e.kind == kind and e.action_id == action_id), None)

    def end(self, action_id: str) -> StoredEvent | None:
        """What left the action in the state that it is in now."""
        return next((event for event in reversed(tuple(self.of(action_id))) if event.state is not None), None)

    def ms(self, from_us: int, to_us: int) -> float:
        return round((to_us - from_us) / self.ms_us, 1)


@dataclass(frozen=True, slots=True)
class Placed:
    """A drill action that was sent to one worker."""

    action_id: str
    worker_id: str


@dataclass(frozen=True, slots=True)
class KillPlan:
    """What the kill drill tried: on which live workers, with which actions, under which switch.

    `problems` says of a worker why no canary could run on it. `latecomers` were sent after the engagement.
    `cancelled_elsewhere` counts what the drill's switch ended outside the drill.
    """

    workers: tuple[str, ...]
    problems: Mapping[str, str]
    canaries: tuple[Placed, ...]
    bystanders: tuple[Placed, ...]
    latecomers: tuple[str, ...]
    acknowledged: int
    cancelled_elsewhere: int


@dataclass(frozen=True, slots=True)
class BacklogPlan:
    """What the backlog drill asked for: how many requests, which of them were opened, and their chain."""

    wanted: int
    tickets: tuple[str, ...]
    chain: Chain


@dataclass(frozen=True, slots=True)
class RecoveryPlan:
    """What the recovery drill sent, each to lose the child that runs it: one that runs again, one that must not.

    `worker_id` is where; None with a `problem` when no child could be killed.
    """

    worker_id: str | None
    problem: str
    repeatable: str | None
    unrepeatable: str | None
