"""Publishing recorded messages. Whoever records, releases or reclaims an action publishes afterwards; the relay does it
again when nobody could.
"""

from typing import Any, Final

import structlog
from celery import Celery, Task
from kombu.exceptions import OperationalError

from acp_tasks.header import names_in
from acp_tasks.message import unpack
from governance.faults import point
from governance.operations.context import Governance
from governance.operations.relay import Outgoing, message_of, not_published

log = structlog.get_logger(__name__)

# What a broker that is away raises, through kombu or through the result backend's subscription.
BROKER_ERRORS: Final = (OperationalError, ConnectionError, TimeoutError, RuntimeError)
# A message waits in a worker's memory for this long at most; longer waits are a column and the relay.
HELD_BY_CELERY_S_MAX: Final = 60.0
# A header: the message that was sent back as this one had been redelivered.
REDELIVERED: Final = "acp_redelivered"


def publish(app: Celery, gov: Governance, outgoing: Outgoing, countdown_s: float | None = None) -> bool:
    """Publishes a recorded message as it is, past submission; False when the broker is away, and then the relay will.

    A message that Celery refuses for another reason is logged and tried again as rarely as one that had no effect.
    """
    name, args, kwargs, options = unpack(outgoing.message)
    # The expiry is the action's: one of the task's class would make Celery drop the message and tell nobody.
    options |= {"task_id": outgoing.action_id, "expires": None}
    names = names_in(outgoing.action_id, (options.get("headers") or {}).get("acp") or {})
    if countdown_s:
        options["countdown"] = countdown_s
    try:
        task = app.tasks.get(name)
        if task is not None:
            # The class's own apply_async would submit; the message was submitted when it was recorded.
            Task.apply_async(task, tuple(args), kwargs, **options)
        else:
            app.send_task(name, args, kwargs, **options)
    except BROKER_ERRORS as problem:
        log.warning("not published", problem=str(problem), **names)
        not_published(gov, outgoing.action_id)
        return False
    except Exception as problem:
        log.error("not publishable", problem=repr(problem), **names)
    return True


def deliver(app: Celery, gov: Governance, action_id: str) -> bool:
    """Publishes the message of an action that a decision released or ended."""
    point("after_decision_before_publish")
    outgoing = message_of(gov, action_id)
    return outgoing is not None and publish(app, gov, outgoing)


def redelivered(request: Any) -> bool:
    """Whether the broker gave this message out before, also when it has been sent back since."""
    return bool((request.delivery_info or {}).get("redelivered") or request.get(REDELIVERED))


def options_of(request: Any) -> dict[str, Any]:
    """The publishing options that a message in a worker came with, to send it on as it is."""
    options: dict[str, Any] = request.as_execution_options()
    delivery = request.delivery_info or {}
    if delivery.get("priority") is not None:
        options["priority"] = delivery["priority"]
    if delivery.get("exchange") == "" and delivery.get("routing_key"):
        options["queue"] = delivery["routing_key"]
    options["ignore_result"] = bool(request.ignore_result)
    return {name: value for name, value in options.items() if value is not None}
