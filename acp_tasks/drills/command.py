"""Asking a worker to conduct a drill: in a thread of its main process, which takes no slot of its pool.

A job of beat's cannot do it by itself: it runs in a slot, and of a pool with one slot nothing would be left to drill.
"""

import threading
from typing import Any, Final

import structlog
from celery import Celery
from celery.worker.control import control_command

from acp_tasks import bootstrap
from acp_tasks.drills.conduct import conduct
from acp_tasks.publish import BROKER_ERRORS
from governance.core.drills import Kind
from governance.errors import GovernanceError

log = structlog.get_logger(__name__)

COMMAND: Final = "acp_drill"
#: Who starts the drills that nobody asked for.
SCHEDULE: Final = "schedule"
_REPLY_S: Final = 2.0

_conducting = threading.Lock()


def ask(app: Celery, node: str, kind: Kind) -> bool:
    """True when the worker took it on. Its report is in the database when it has ended."""
    try:
        answers: list[dict[str, Any]] = (
            app.control.broadcast(
                COMMAND,
                arguments={"kind": str(kind)},
                destination=[node],
                reply=True,
                limit=1,
                timeout=_REPLY_S,
            )
            or []
        )
    except BROKER_ERRORS as problem:
        log.warning("no worker was asked for a drill", kind=str(kind), problem=str(problem))
        return False
    return any("ok" in answer for one in answers for answer in one.values())


@control_command(name=COMMAND, args=[("kind", str)], signature="<kind>")
def acp_drill(state: Any, kind: str) -> dict[str, Any]:
    """Conduct a drill: kill, approval-backlog or recovery."""
    if bootstrap.worker_id() is None:
        return {"error": "this worker has no governed tasks"}
    if kind not in set(Kind):
        return {"error": f"there is no drill {kind!r}"}
    if not _conducting.acquire(blocking=False):
        return {"error": "this worker conducts a drill already"}
    threading.Thread(target=_conduct, args=(state.app, Kind(kind)), name="acp-drill", daemon=True).start()
    return {"ok": bootstrap.worker_id()}


def _conduct(app: Celery, kind: Kind) -> None:
    try:
        report = conduct(app, bootstrap.governance(), kind, started_by=SCHEDULE)
        log.info("drill ended", drill=report.drill_id, kind=str(kind), passed=report.passed, why=report.failures)
    except GovernanceError as problem:
        log.warning("no drill", kind=str(kind), problem=str(problem))
    except Exception as problem:
        log.error("drill without a report", kind=str(kind), problem=repr(problem))
    finally:
        _conducting.release()
