"""Waking an action that waits for others: each of those says so when it ends, and a relay tick does it at the latest.

The word goes as an ordinary callback in the message of the action that is waited for, so it is there whoever ends that
action: a worker, a person's decision, a timeout, a kill switch. Should the broker lose the word itself, the waiting
action is released at the instant that it named when it began to wait.
"""

from typing import Any, Final

import structlog
from celery import Celery

from acp_tasks import bootstrap
from acp_tasks.control_queue import CONTROL
from acp_tasks.publish import deliver
from governance.operations.context import Governance
from governance.operations.running import names_of
from governance.operations.suspensions import any_ended, go_on

log = structlog.get_logger(__name__)

NAME: Final = "acp.wake"


def register_wake(app: Celery) -> None:
    """Makes waking a task of `app`, outside governance: it only lets an admitted action be admitted again."""

    def woken(action_id: str) -> None:
        wake(app, bootstrap.governance(), action_id)

    app.task(name=NAME, governed=False, ignore_result=True, shared=False)(woken)


def wakes(app: Celery, action_id: str) -> dict[str, Any]:
    """Options for `apply_async` of an action that the action `action_id` is going to wait for."""
    signature = app.signature(NAME, args=(action_id,), immutable=True, options={"queue": CONTROL})
    return {"link": signature, "link_error": signature}


def wake_if_due(app: Celery, gov: Governance, action_id: str, awaited: tuple[str, ...]) -> None:
    """Right after an action began to wait: what it waits for may have ended before, and then nobody wakes it."""
    if any_ended(gov, awaited):
        wake(app, gov, action_id)


def wake(app: Celery, gov: Governance, action_id: str) -> None:
    """Has an action that waits for others look how far they are; nothing happens to one that does not wait."""
    if go_on(gov, action_id, "wake"):
        log.info("woken", **names_of(gov, action_id))
        deliver(app, gov, action_id)
