"""Drills: has a worker conduct the one that is due, and tells of those that failed or did not take place."""

from typing import Final

from celery import Celery

from acp_tasks import bootstrap
from acp_tasks.drills.command import ask
from acp_tasks.publish import deliver
from acp_tasks.stop import node_of, pool_workers
from governance.operations.context import Governance
from governance.operations.drill_schedule import due, watch

# The liveliest; a worker that does not answer keeps this job's slot for two seconds.
_ASKED_MAX: Final = 5


def drill(app: Celery, gov: Governance) -> dict[str, object]:
    """Returns which kinds are overdue, and the kind that was asked for and of whom."""
    every_s = bootstrap.parts().settings.drill_every_s
    seen = watch(gov, every_s)
    for action_id in seen.resumed:
        deliver(app, gov, action_id)
    kind = due(gov, every_s)
    if kind is None:
        return {"overdue": list(seen.overdue), "due": None}
    asked = next((worker for worker in pool_workers(gov)[:_ASKED_MAX] if ask(app, node_of(worker), kind)), None)
    return {"overdue": list(seen.overdue), "due": str(kind), "asked": asked}
