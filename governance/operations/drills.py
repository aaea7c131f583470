"""Drills: opened in a session of their own, closed with a report whose evidence is that session's sealed trail.

A drill session is pinned to the packaged drill policy, which knows drill actions only, whatever the fleet's own policy
says: nothing else can get into it, and a switch on it reaches nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Final

from sqlalchemy import RowMapping

from governance.core.actions import State
from governance.core.approvals import Chain
from governance.core.audit import chain_problems, history_problems
from governance.core.drills import (
    THRESHOLD_MS,
    THRESHOLD_MS_MAX,
    DrillReport,
    EventRange,
    Findings,
    Kind,
    Trail,
    parse_report,
)
from governance.core.events import Event, StoredEvent
from governance.core.policy import ActionFacts, Park, Policy, Risk, decide
from governance.core.principals import OPERATOR, Principal
from governance.core.sessions import Session, accounts, opening, session_id
from governance.core.switches import Scope
from governance.core.windows import Window
from governance.errors import InvalidOption, NotFound, StateConflict
from governance.operations import notify
from governance.operations.context import Governance
from governance.policy_file import canonical, parse_policy
from governance.store import drills, events
from governance.store import sessions as store_sessions

CANARY: Final = "acp.drill.canary"
BYSTANDER: Final = "acp.drill.bystander"
ASK: Final = "acp.drill.ask"
FALL: Final = "acp.drill.fall"
FALL_ONCE: Final = "acp.drill.fall_once"
#: In whose name a drill engages and releases its switch; whoever started it is in its row and its first event.
DRILL: Final = Principal("drill", frozenset({OPERATOR}))
#: A drill that has not finished by then never will: its process is gone.
GIVEN_UP_S: Final = 600.0

_WINDOW_S: Final = 3600.0
_LISTED_MAX: Final = 100
_SEAL_BATCH: Final = 1000
_PAGE: Final = 2000


@dataclass(frozen=True, slots=True)
class Drill:
    """A drill that runs."""

    id: str
    kind: Kind
    session: Session
    started_us: int
    started_by: str
    threshold_ms: int


@dataclass(frozen=True, slots=True)
class DrillLine:
    """A drill in a list; `passed` is None while it runs."""

    id: str
    kind: Kind
    session_id: str
    started_us: int
    started_by: str
    finished_us: int | None
    passed: bool | None
    failures: tuple[str, ...]


@lru_cache(maxsize=1)
def drill_policy() -> tuple[Policy, str]:
    """The packaged policy of drill sessions, and its canonical text."""
    text = resources.files("governance").joinpath("drill_policy.yaml").read_text(encoding="utf-8")
    return parse_policy(text, "the packaged drill policy"), canonical(text)


def ask_chain() -> Chain:
    """The escalation chain of `acp.drill.ask`."""
    facts = ActionFacts(ASK, Risk.LOW, None, "drill", None, None, None, None, 0, 0, {})
    verdict = decide(drill_policy()[0], facts)
    assert isinstance(verdict, Park), "the packaged drill policy parks it"
    return verdict.chain


def start(gov: Governance, kind: Kind, *, started_by: str, threshold_ms: int | None = None) -> Drill:
    """Opens a drill in a session of its own. Raises StateConflict while another one of its kind runs, InvalidOption."""
    threshold_ms = THRESHOLD_MS[kind] if threshold_ms is None else threshold_ms
    if not 1 <= threshold_ms <= THRESHOLD_MS_MAX:
        raise InvalidOption("threshold-ms", threshold_ms, f"1 to {THRESHOLD_MS_MAX} milliseconds")
    drill_id = gov.new_id()
    now_us = gov.clock.now_us()
    session = _session(gov, kind, drill_id, now_us)
    event = Event(
        session.id,
        "drill.started",
        started_by,
        now_us,
        payload={"drill": drill_id, "kind": str(kind), "started_by": started_by, "threshold_ms": threshold_ms},
    )
    running = drills.start(
        gov.store,
        drill_id=drill_id,
        kind=str(kind),
        session_id=session.id,
        by=started_by,
        event=event,
        alive_since_us=now_us - gov.clock.span_us(GIVEN_UP_S),
    )
    if running is not None:
        raise StateConflict(
            "drill", running, "running", "started a second time", f"wait for it: acp drill list ({kind})"
        )
    # After the row, so that a drill that may not run leaves no session behind.
    _open(gov, session, now_us)
    return Drill(drill_id, kind, session, now_us, started_by, threshold_ms)


def open_beside(gov: Governance, drill: Drill, name: str) -> Session:
    """Another session of the drill, which a switch on its own session does not reach."""
    now_us = gov.clock.now_us()
    session = _session(gov, drill.kind, f"{drill.id}-{name}", now_us)
    _open(gov, session, now_us)
    return session


def trail(gov: Governance, session_id: str) -> Trail:
    """Seals a drill session and reads it back, audited."""
    while events.seal(gov.store, session_id, _SEAL_BATCH):
        pass
    sealed: list[StoredEvent] = []
    while page := events.replay(gov.store, session_id, sealed[-1].seq or 0 if sealed else 0, _PAGE):
        sealed += page
    ids = sorted({event.action_id for event in sealed if event.action_id is not None})
    states = drills.states(gov.store, ids)
    problems = list(chain_problems(session_id, sealed))
    for action_id in ids:
        history = (event for event in sealed if event.action_id == action_id)
        problems += history_problems(action_id, history, states.get(action_id))
    taken, held = drills.holds(gov.store, session_id, ids)
    return Trail(session_id, tuple(sealed), tuple(problems), taken, held, max(1, gov.clock.span_us(0.001)))


def ended_elsewhere(gov: Governance, stopped: Trail) -> int:
    """How many actions outside `stopped` the switch on that session has ended; right is 0."""
    engaged = stopped.first("switch.engaged")
    if engaged is None:
        return 0
    rule = f"switch:{Scope.SESSION}:{stopped.session_id}"
    return len(drills.ended_by(gov.store, rule, after_id=engaged.id, except_session=stopped.session_id))


def states(gov: Governance, action_ids: Sequence[str]) -> Mapping[str, State]:
    return drills.states(gov.store, action_ids)


def tell_nobody(gov: Governance, action_ids: Sequence[str]) -> None:
    """The ends of these actions need not reach Celery any more."""
    drills.tell_nobody(gov.store, action_ids, gov.clock.now_us())


def finish(gov: Governance, drill: Drill, findings: Findings, evidence: Sequence[EventRange]) -> DrillReport:
    """Closes the drill with its verdict; one that failed raises an alert. What was closed before keeps its report."""
    now_us = gov.clock.now_us()
    report = DrillReport(
        drill_id=drill.id,
        kind=drill.kind,
        session_id=drill.session.id,
        started_us=drill.started_us,
        started_by=drill.started_by,
        finished_us=now_us,
        threshold_ms=drill.threshold_ms,
        passed=findings.passed,
        steps=findings.steps,
        figures=findings.figures,
        evidence=tuple(evidence),
    )
    event = Event(
        report.session_id,
        "drill.finished",
        DRILL.actor,
        report.finished_us,
        payload={
            "drill": report.drill_id,
            "kind": str(report.kind),
            "passed": report.passed,
            "failures": list(report.failures),
            "evidence": [[part.session_id, part.first_seq, part.last_seq] for part in report.evidence],
        },
    )
    written = drills.finish(
        gov.store,
        report.drill_id,
        at_us=report.finished_us,
        passed=report.passed,
        report=report.text,
        event=event,
    )
    if not written:
        return find_report(gov, drill.id)
    if not report.passed:
        raise_failed(gov, report)
    return report


def unfinished(gov: Governance, *, for_s: float) -> list[Drill]:
    """The drills that were started at least `for_s` real seconds ago and have no verdict."""
    since_us = gov.clock.now_us() - gov.clock.span_us(for_s)
    running = drills.listing(gov.store, kind=None, finished=False, limit=_LISTED_MAX)
    return [_drill(gov, row) for row in running if row["started_us"] <= since_us]


def list_drills(gov: Governance, *, limit: int) -> list[DrillLine]:
    """The latest first."""
    return [_line(row) for row in drills.listing(gov.store, kind=None, finished=None, limit=limit)]


def find_report(gov: Governance, drill_id: str) -> DrillReport:
    """The report of a drill. Raises NotFound, StateConflict while it runs."""
    row = drills.find(gov.store, drill_id)
    if row is None:
        raise NotFound("drill", drill_id, "acp drill list shows what there is")
    if row["report"] is None:
        raise StateConflict("drill", drill_id, "running", "reported", "it writes its report when it ends")
    return parse_report(row["report"])


def raise_failed(gov: Governance, report: DrillReport) -> None:
    """The alert of a drill that failed; a repeat changes nothing."""
    notify.alert(
        gov,
        f"drill-failed:{report.drill_id}",
        "drill.failed",
        {
            "drill": report.drill_id,
            "kind": str(report.kind),
            "session": report.session_id,
            "failures": list(report.failures),
        },
    )


def _drill(gov: Governance, row: RowMapping) -> Drill:
    kind = Kind(row["kind"])
    session = _session(gov, kind, row["id"], row["started_us"])
    return Drill(row["id"], kind, session, row["started_us"], row["started_by"], THRESHOLD_MS[kind])


def _session(gov: Governance, kind: Kind, name: str, now_us: int) -> Session:
    stream = f"drill-{kind}-{name}"
    window = Window(now_us, now_us + gov.clock.span_us(_WINDOW_S))
    return Session(session_id(stream, window), stream, window, drill_policy()[0].hash)


def _open(gov: Governance, session: Session, now_us: int) -> None:
    policy, source = drill_policy()
    limits = policy.plan_for(session.stream).limits
    store_sessions.keep_policy(gov.store, policy, source, now_us)
    event = opening(session, limits, actor=DRILL.actor, at_us=now_us)
    store_sessions.open_once(gov.store, session, accounts(session, limits), event)


def _line(row: RowMapping) -> DrillLine:
    return DrillLine(
        id=row["id"],
        kind=Kind(row["kind"]),
        session_id=row["session_id"],
        started_us=row["started_us"],
        started_by=row["started_by"],
        finished_us=row["finished_us"],
        passed=row["passed"],
        failures=parse_report(row["report"]).failures if row["report"] is not None else (),
    )
