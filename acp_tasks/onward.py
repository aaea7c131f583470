"""A chain or chord that goes on in a worker while the store is away.

Celery publishes the next task after the body of the one before has ended, and cannot do it again: an error raised here
would lose the rest of the canvas, and tell the caller that a task failed which did not. So the message goes out before
it is submitted; the worker that gets it submits it first, like any message that nobody submitted.
"""

import time
from collections.abc import Callable
from typing import Any, Final

import structlog
from celery import current_task

from acp_tasks.header import names_in
from acp_tasks.publish import BROKER_ERRORS
from acp_tasks.run import find_run
from governance.core.actions import Submission
from governance.errors import StoreUnavailable
from governance.operations.context import Governance
from governance.operations.relay import not_published
from governance.operations.submit import submit

log = structlog.get_logger(__name__)

_PAUSE_S: Final = 1.0


def goes_on() -> bool:
    """Whether Celery makes this call, in a worker and after a body has ended; no body makes it."""
    return find_run() is None and bool(current_task) and not current_task.request.called_directly


def published_or_submitted(gov: Governance, submission: Submission, publish: Callable[[], Any]) -> None:
    """One of the two, whichever comes back first: until then, the message of the task before is not acknowledged."""
    said = {name: getattr(submission, name) for name in ("command_id", "correlation_id", "stream")}
    names = names_in(submission.action_id, said)
    log.warning("published before it is submitted: the store is away", **names)
    while True:
        try:
            publish()
        except BROKER_ERRORS as problem:
            log.error(
                "neither the store nor the broker takes the next task: waiting for one", problem=str(problem), **names
            )
        else:
            return
        time.sleep(_PAUSE_S)
        try:
            submit(gov, submission)
        except StoreUnavailable:
            continue
        not_published(gov, submission.action_id)
        return
