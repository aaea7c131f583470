"""Escalation: a request that nobody answered in time goes up its chain and is denied at its end; its caller is told.
What waited for a raise of a budget goes on when the budget resets.
"""

from celery import Celery

from acp_tasks.publish import deliver
from governance.operations.context import Governance
from governance.operations.escalate import escalate_overdue


def escalate(app: Celery, gov: Governance) -> dict[str, int]:
    """Moves every overdue ticket on; returns how many went up a level, were denied, and go on without an answer."""
    swept = escalate_overdue(gov, "escalation")
    for action_id in (*swept.released, *swept.denied):
        if not deliver(app, gov, action_id):
            # The broker is away: the relay delivers the rest.
            break
    return {"moved_up": swept.moved_up, "denied": len(swept.denied), "released": len(swept.released)}
