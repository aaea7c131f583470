"""Loops: an agent whose chain of cycles broke goes on from its last checkpoint."""

from celery import Celery

from acp_tasks.agents.loop import loops_of
from governance.operations.context import Governance


def resume(app: Celery, gov: Governance) -> list[str]:
    """Returns the actions of the cycles that were asked for."""
    return [action_id for loop in loops_of(app).values() if (action_id := loop.resume()) is not None]
