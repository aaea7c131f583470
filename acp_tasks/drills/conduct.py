"""Conducting a drill from its start to its report, whoever asked for it and whatever happens in between."""

from typing import assert_never

import structlog
from celery import Celery

from acp_tasks.drills.backlog import TICKETS, drill_backlog
from acp_tasks.drills.kill import START_S, Said, drill_kill
from acp_tasks.drills.recovery import drill_recovery
from governance.core.drills import DrillReport, EventRange, Findings, Kind, Step
from governance.operations.context import Governance
from governance.operations.drills import Drill, finish, start, trail

log = structlog.get_logger(__name__)


def conduct(
    app: Celery,
    gov: Governance,
    kind: Kind,
    *,
    started_by: str,
    threshold_ms: int | None = None,
    tickets: int = TICKETS,
    start_s: float = START_S,
    said: Said = lambda _: None,
) -> DrillReport:
    """Runs a drill to its report; one that breaks off is reported as failed, with what it got to.

    Raises StateConflict while another drill of the kind runs, InvalidOption, StoreUnavailable.
    """
    drill = start(gov, kind, started_by=started_by, threshold_ms=threshold_ms)
    said(f"drill {drill.id} in session {drill.session.id}")
    try:
        findings, evidence = _exercise(app, gov, drill, tickets, start_s, said)
    except Exception as problem:
        log.error("drill broke off", drill=drill.id, problem=repr(problem))
        findings, evidence = _broken_off(gov, drill, problem)
    except BaseException as problem:
        finish(gov, drill, *_broken_off(gov, drill, problem))
        raise
    return finish(gov, drill, findings, evidence)


def _exercise(
    app: Celery, gov: Governance, drill: Drill, tickets: int, start_s: float, said: Said
) -> tuple[Findings, list[EventRange]]:
    match drill.kind:
        case Kind.KILL:
            return drill_kill(app, gov, drill, said=said, start_s=start_s)
        case Kind.APPROVAL_BACKLOG:
            return drill_backlog(app, gov, drill, said=said, tickets=tickets)
        case Kind.RECOVERY:
            return drill_recovery(app, gov, drill, said=said)
        case _:
            assert_never(drill.kind)


def _broken_off(gov: Governance, drill: Drill, problem: BaseException) -> tuple[Findings, list[EventRange]]:
    step = Step("it ran to its end", False, f"{type(problem).__name__}: {problem}")
    evidence = trail(gov, drill.session.id).evidence
    return Findings((step,)), [evidence] if evidence is not None else []
