"""Switches: finishes what an engagement or a release left to do, and cancels what came into scope since."""

from celery import Celery

from acp_tasks.publish import deliver
from governance.operations import clearing
from governance.operations.context import Governance


def clear_up(app: Celery, gov: Governance) -> dict[str, int]:
    """Returns how many actions were cancelled and how many go on after a pause."""
    cancelled, resumed = clearing.sweep(gov, "switches")
    for action_id in resumed:
        if not deliver(app, gov, action_id):
            # The broker is away: the relay publishes the rest.
            break
    return {"cancelled": cancelled, "resumed": len(resumed)}
