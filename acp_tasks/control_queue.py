"""The control queue: beat's jobs wait in a queue of their own, so that busy agents cannot keep them waiting.

A worker that is not told by `-Q` which queues to consume takes from this one as well, so that a fleet without a control
worker does the jobs, too. On several machines a worker of their own consumes it, and the agents' workers do not.
"""

from collections.abc import Iterable
from typing import Any, Final

from celery import Celery

from governance.operations.processes import WorkerLine

CONTROL: Final = "acp-control"


def add_control_queue(app: Celery) -> None:
    """Makes it one of the app's queues, as if it stood in `task_queues` beside those that do or the default one."""
    amqp: Any = app.amqp
    made = amqp.queues_cls

    def queues(*args: Any, **options: Any) -> Any:
        found = made(*args, **options)
        _add(found)
        return found

    # Celery reads its settings into queues when they are first needed, and apps may configure themselves until then.
    amqp.queues_cls = queues
    if "queues" in vars(amqp):
        _add(amqp.queues)


def works_for_agents(worker: WorkerLine) -> bool:
    """Whether a worker takes agents' actions; one that consumes nothing but the control queue does not."""
    return worker.queues is None or any(queue != CONTROL for queue in worker.queues)


def works_for_beat(workers: Iterable[WorkerLine]) -> list[WorkerLine]:
    """Those that take beat's jobs."""
    return [worker for worker in workers if CONTROL in (worker.queues or ())]


def _add(queues: Any) -> None:
    if CONTROL not in queues:
        queues.select_add(queues.new_missing(CONTROL))
