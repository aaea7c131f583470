"""What governance brings into a Celery app that uses GovernedTask: its worker step, its signals, and beat's jobs."""

import socket
from typing import Any
from weakref import WeakSet

import structlog
from celery import Celery
from celery.signals import beat_init, setup_logging, worker_init, worker_process_init, worker_shutdown

from acp_tasks import bootstrap, interrupt, logs, offspring
from acp_tasks.batched_events import BatchedEvents
from acp_tasks.control import register_jobs
from acp_tasks.drills.canary import register_drills
from acp_tasks.halting import start_halting, stop_halting
from acp_tasks.heart import start_heart, stop_heart
from acp_tasks.pulse import start_pulse
from acp_tasks.readiness import look_before_traffic
from acp_tasks.request import children_at_work
from acp_tasks.results import register_results
from acp_tasks.waking import register_wake
from governance.errors import GovernanceError, SchemaMismatch, StoreUnavailable
from governance.operations import database
from governance.operations.heartbeat import Post

log = structlog.get_logger(__name__)

_installed: WeakSet[Celery] = WeakSet()


def install(app: Celery) -> None:
    """Once for each app, however many of its tasks are bound."""
    if app in _installed:
        return
    _installed.add(app)
    app.steps["consumer"].add(BatchedEvents)
    register_results(app)
    register_jobs(app)
    register_drills(app)
    register_wake(app)


def _require_governed(app: Celery) -> None:
    """Refuses to start a worker that could run something ungoverned, or that governance cannot work in."""
    loose = ungoverned(app)
    if loose:
        raise SystemExit(
            f"this worker would run tasks that are not governed: {', '.join(loose)}. Give them a GovernedTask base "
            '(Celery(..., task_cls="acp_tasks:GovernedTask")) or say governed=False on the task'
        )
    try:
        database.check(bootstrap.governance())
    except SchemaMismatch as problem:
        raise SystemExit(str(problem)) from problem
    except StoreUnavailable as problem:
        # It may come back: the worker waits for it before it takes traffic.
        log.warning("the worker starts without its database", problem=str(problem))
    except GovernanceError as problem:
        raise SystemExit(str(problem)) from problem


def ungoverned(app: Celery) -> list[str]:
    """Names of the tasks that neither are governed nor say that they are not."""
    # Imported here: GovernedTask itself installs what is in this file.
    from acp_tasks.governed import GovernedTask

    return sorted(
        name
        for name, task in app.tasks.items()
        if not _builtin(task) and not isinstance(task, GovernedTask) and getattr(task, "governed", None) is not False
    )


def opted_out(app: Celery) -> list[str]:
    """Names of the tasks that say governed=False, Celery's own aside."""
    return sorted(
        name for name, task in app.tasks.items() if not _builtin(task) and getattr(task, "governed", None) is False
    )


def _builtin(task: Any) -> bool:
    return type(task).__module__ == "celery.app.builtins"


@worker_init.connect(weak=False, dispatch_uid="acp-heart-start")
def _on_worker_init(sender: Any = None, **_: Any) -> None:
    if sender is not None and sender.app in _installed:
        # Before it is a worker to anybody, or has sent anything.
        _require_governed(sender.app)
        worker_id = bootstrap.name_worker(sender.hostname)
        queues = tuple(sender.app.amqp.queues.consume_from)
        heart = start_heart(worker_id, children_at_work, lambda: Post(socket.gethostname(), queues, _slots(sender)))
        start_halting(worker_id)
        look_before_traffic(sender.app, heart)


def _slots(worker: Any) -> int | None:
    """How many actions it runs at a time: an autoscaled pool changes, `--concurrency auto` is not known at first."""
    try:
        return int(worker.pool.num_processes)
    except AttributeError:
        return worker.concurrency if isinstance(worker.concurrency, int) else None


@beat_init.connect(weak=False, dispatch_uid="acp-beat-start")
def _on_beat_init(sender: Any = None, **_: Any) -> None:
    if sender is not None and sender.app in _installed:
        start_pulse()


@worker_process_init.connect(weak=False, dispatch_uid="acp-child-start")
def _on_child_start(**_: Any) -> None:
    if bootstrap.worker_id() is None:
        return
    if bootstrap.is_pool_child():
        offspring.lead_group()
    interrupt.listen()


@worker_shutdown.connect(weak=False, dispatch_uid="acp-heart-stop")
def _on_worker_shutdown(sender: Any = None, **_: Any) -> None:
    stop_halting()
    stop_heart()


@setup_logging.connect(weak=False, dispatch_uid="acp-logs")
def _on_setup_logging(loglevel: Any = None, logfile: Any = None, **_: Any) -> None:
    logs.configure(loglevel, logfile)
