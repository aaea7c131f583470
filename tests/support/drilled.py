"""The trails of drills that went well, event by event, for tests that spoil something."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from governance.core.actions import State
from governance.core.approvals import Chain, Level
from governance.core.digest import canonical_json
from governance.core.drill_verdicts import judge_kill
from governance.core.drills import Findings, KillPlan, Placed, Trail
from governance.core.events import StoredEvent

MS_US = 1000
ENGAGED_US = 10_000_000
CHAIN = Chain((Level(("first",), 2_000_000), Level(("second",), 2_000_000)))


@dataclass
class Book:
    """A drill session's trail, written event by event; ids are shared, as in one database."""

    session_id: str
    ids: Iterator[int]
    events: list[StoredEvent] = field(default_factory=list)

    def write(self, kind: str, at_us: int, action: str | None = None, state: State | None = None, **more: Any) -> None:
        payload = canonical_json(more.pop("payload", {}))
        actor, attempt = more.pop("actor", "test"), more.pop("attempt", 1)
        seq = len(self.events) + 1
        self.events.append(
            StoredEvent(
                next(self.ids), self.session_id, kind, actor, at_us, action, attempt, state, payload, seq, "hash"
            )
        )

    def trail(self, **changes: Any) -> Trail:
        made = Trail(self.session_id, tuple(self.events), (), holds_taken=3, held=0, ms_us=MS_US)
        return replace(made, **changes)


@dataclass
class Kill:
    """A kill drill that went well on two workers; each test spoils something."""

    plan: KillPlan
    canaries: Book
    bystanders: Book
    changes: dict[str, Any] = field(default_factory=dict)

    def judged(self, threshold_ms: int = 2000) -> Findings:
        return judge_kill(
            self.plan, self.canaries.trail(**self.changes), self.bystanders.trail(), threshold_ms=threshold_ms
        )

    def without(self, kind: str, action: str) -> None:
        for book in (self.canaries, self.bystanders):
            book.events = [e for e in book.events if (e.kind, e.action_id) != (kind, action)]


def kill() -> Kill:
    ids = count(1)
    canaries, bystanders = Book("canaries", ids), Book("bystanders", ids)
    for action, worker in (("c1", "w1"), ("c2", "w2")):
        canaries.write("action.submitted", 1, action, State.QUEUED)
        canaries.write("action.admitted", 2, action, State.RUNNING, actor=f"worker:{worker}")
        bystanders.write("action.submitted", 3, f"b{action}", State.QUEUED)
        bystanders.write("action.admitted", 4, f"b{action}", State.RUNNING, actor=f"worker:{worker}")
    canaries.write("switch.engaged", ENGAGED_US)
    canaries.write("action.cancelled", ENGAGED_US + 20 * MS_US, "c1", State.CANCELLED)
    canaries.write("action.cancelled", ENGAGED_US + 40 * MS_US, "c2", State.CANCELLED)
    canaries.write("action.submitted", ENGAGED_US + 50 * MS_US, "late", State.QUEUED)
    canaries.write("action.cancelled", ENGAGED_US + 60 * MS_US, "late", State.CANCELLED)
    for action in ("bc1", "bc2"):
        bystanders.write("action.succeeded", ENGAGED_US + 2000 * MS_US, action, State.SUCCEEDED)
    plan = KillPlan(
        workers=("w1", "w2"),
        problems={},
        canaries=(Placed("c1", "w1"), Placed("c2", "w2")),
        bystanders=(Placed("bc1", "w1"), Placed("bc2", "w2")),
        latecomers=("late",),
        acknowledged=2,
        cancelled_elsewhere=0,
    )
    return Kill(plan, canaries, bystanders)
