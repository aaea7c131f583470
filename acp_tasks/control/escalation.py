"""Escalation: a request that nobody answered in time is denied, and its caller is told."""

from celery import Celery

from acp_tasks.publish import deliver
from governance.operations.context import Governance
from governance.operations.decide import expire_overdue


def escalate(app: Celery, gov: Governance) -> int:
    """Denies every overdue ticket's action; returns how many."""
    expired = expire_overdue(gov, "escalation")
    for action_id in expired:
        deliver(app, gov, action_id)
    return len(expired)
