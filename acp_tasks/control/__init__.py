"""Beat's jobs, one file each, in a queue of their own. Each claims its tick, so that two beats, or a late one, do a
tick's work once.
"""

from collections.abc import Callable, Mapping
from typing import Any

from celery import Celery

from acp_tasks import bootstrap
from acp_tasks.control.alerts import warn
from acp_tasks.control.checkpoints import checkpoint
from acp_tasks.control.drills import drill
from acp_tasks.control.escalation import escalate
from acp_tasks.control.loops import resume
from acp_tasks.control.notices import tell
from acp_tasks.control.recovery import recover
from acp_tasks.control.relay import relay
from acp_tasks.control.retention import prune
from acp_tasks.control.rotation import turn_sessions
from acp_tasks.control.scorecards import keep_score
from acp_tasks.control.sealing import seal
from acp_tasks.control.switches import clear_up
from acp_tasks.control.usage import sum_up
from acp_tasks.control_queue import add_control_queue
from governance.operations.context import Governance
from governance.operations.ticks import claim, finish

Job = Callable[[Celery, Governance], object]

JOBS: dict[str, Job] = {
    "acp.relay": relay,
    "acp.recovery": recover,
    "acp.rotation": turn_sessions,
    "acp.checkpoints": checkpoint,
    "acp.loops": resume,
    "acp.escalation": escalate,
    "acp.switches": clear_up,
    "acp.notices": tell,
    "acp.sealing": seal,
    "acp.drills": drill,
    "acp.scorecards": keep_score,
    "acp.alerts": warn,
    "acp.usage": sum_up,
    "acp.retention": prune,
}


def register_jobs(app: Celery) -> None:
    """Makes beat's jobs tasks of `app`, outside governance: they are what governance itself needs done."""
    add_control_queue(app)
    for name, job in JOBS.items():
        app.task(name=name, governed=False, ignore_result=True, acks_late=False, shared=False)(
            _claiming(app, name, job)
        )


def _claiming(app: Celery, name: str, job: Job) -> Callable[[float], Any]:
    def tick(every_s: float) -> Any:
        gov = bootstrap.governance()
        claimed = claim(gov, name, every_s)
        if claimed is None:
            return None
        came_to = job(app, gov)
        looked = came_to.get("looked") if isinstance(came_to, Mapping) else None
        finish(gov, name, claimed, looked=looked)
        return came_to

    tick.__name__ = name.replace(".", "_")
    tick.__doc__ = job.__doc__
    return tick
