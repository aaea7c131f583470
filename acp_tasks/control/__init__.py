"""Beat's jobs, one file each, in a queue of their own. Each claims its tick, so that two beats, or a late one, do a
tick's work once.
"""

from collections.abc import Callable
from typing import Any

from celery import Celery

from acp_tasks import bootstrap
from acp_tasks.control.drills import drill
from acp_tasks.control.escalation import escalate
from acp_tasks.control.notices import tell
from acp_tasks.control.recovery import recover
from acp_tasks.control.relay import relay
from acp_tasks.control.sealing import seal
from acp_tasks.control.switches import clear_up
from acp_tasks.control_queue import add_control_queue
from governance.operations.context import Governance
from governance.operations.ticks import claim

Job = Callable[[Celery, Governance], object]

JOBS: dict[str, Job] = {
    "acp.relay": relay,
    "acp.recovery": recover,
    "acp.escalation": escalate,
    "acp.switches": clear_up,
    "acp.notices": tell,
    "acp.sealing": seal,
    "acp.drills": drill,
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
        if not claim(gov, name, every_s):
            return None
        return job(app, gov)

    tick.__name__ = name.replace(".", "_")
    tick.__doc__ = job.__doc__
    return tick
