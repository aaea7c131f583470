"""The approval-backlog drill: requests that nobody answers, whether they go up their chain and are denied, in time."""

import time
from typing import Any, Final

from celery import Celery

from acp_tasks.drills.clearing import clear
from acp_tasks.drills.kill import Said
from governance.core.actions import TERMINAL
from governance.core.drill_verdicts import judge_backlog
from governance.core.drills import BacklogPlan, EventRange, Findings
from governance.errors import InvalidOption
from governance.operations.context import Governance
from governance.operations.drills import ASK, Drill, ask_chain, states, trail

TICKETS: Final = 20
TICKETS_MAX: Final = 1000
_POLL_S: Final = 0.1
# Beyond the promise, so that what comes late is measured and not only missed.
_PATIENCE_S: Final = 1.0


def drill_backlog(
    app: Celery, gov: Governance, drill: Drill, *, said: Said, tickets: int = TICKETS
) -> tuple[Findings, list[EventRange]]:
    """Runs the exercise and judges it by its trail. Raises InvalidOption, StoreUnavailable."""
    if not 1 <= tickets <= TICKETS_MAX:
        raise InvalidOption("tickets", tickets, f"1 to {TICKETS_MAX}")
    chain = ask_chain()
    task: Any = app.tasks[ASK]
    asked: list[str] = []
    try:
        for number in range(tickets):
            sent = task.apply_async(kwargs={"number": number}, stream=drill.session.stream)
            asked.append(str(sent.id))
        promised_s = gov.clock.real_s(chain.timeout_us) + drill.threshold_ms / 1000
        said(f"{len(asked)} requests wait, unanswered: every one has to be denied within {promised_s:g} s")
        deadline_s = time.monotonic() + promised_s + _PATIENCE_S
        while time.monotonic() < deadline_s and any(s not in TERMINAL for s in states(gov, asked).values()):
            time.sleep(_POLL_S)
    finally:
        clear(app, gov, drill.session.id, asked)
    seen = trail(gov, drill.session.id)
    evidence = [seen.evidence] if seen.evidence is not None else []
    return judge_backlog(BacklogPlan(tickets, tuple(asked), chain), seen, drill.threshold_ms), evidence
