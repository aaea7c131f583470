"""Telling Celery what became of a message: a value, the right exception, or Ignore when this message is done."""

import random
from typing import TYPE_CHECKING, Any, assert_never

import structlog
from celery import Task
from celery.exceptions import Ignore, Reject

from acp_tasks.message import result_of
from acp_tasks.publish import BROKER_ERRORS, HELD_BY_CELERY_S_MAX, REDELIVERED, options_of, publish, redelivered
from acp_tasks.results import mark_recorded
from acp_tasks.waking import wake, wake_if_due
from governance.core.actions import State
from governance.core.instants import iso
from governance.errors import ActionCancelled, ActionDenied, ActionFailed, StoreUnavailable
from governance.faults import point
from governance.middleware.call import (
    Call,
    Failed,
    Fenced,
    Outcome,
    Retrying,
    Returned,
    StoppedShort,
    StoreAway,
    Suspending,
)
from governance.operations.admit import ended
from governance.operations.answers import Cancelled, Deferred, Denied, Dropped, Ended, NotSubmitted, Parked
from governance.operations.finish import AskedToRetry
from governance.operations.relay import Outgoing, keep_echo, message_of, not_published, tell_again, told_echo

if TYPE_CHECKING:
    from acp_tasks.governed import GovernedTask

log = structlog.get_logger(__name__)

_STORE_AWAY_DELAY_S = 5.0


def conclude(task: "GovernedTask", call: Call, outcome: Outcome) -> Any:
    """Returns or raises what Celery understands."""
    session = {} if call.admission is None else {"session": call.admission.ref.session_id}
    with structlog.contextvars.bound_contextvars(**session):
        return _told(task, call, outcome)


def _told(task: "GovernedTask", call: Call, outcome: Outcome) -> Any:
    match outcome:
        case Returned(value, recorded=recorded):
            if recorded:
                mark_recorded(task.request, call.arrival.action_id)
            return value
        case Failed(error):
            raise error
        case Retrying(error, ending):
            point("after_retry_before_publish")
            _publish_retry(task, call, ending)
            raise error
        case Denied() | Cancelled() | Ended():
            return told_again(outcome)
        case StoppedShort(ending):
            if not ending.in_doubt:
                raise ActionCancelled(call.arrival.action_id, ending.rule, ending.reason, None, [])
            # Its caller is told once a person has said what became of it.
        case Suspending(awaited, ending):
            _announce(task, call, "deferred", ending.reason)
            point("after_agent_wait_before_look")
            wake_if_due(task.app, call.gov, call.arrival.action_id, awaited)
        case Parked(_, rule, reason):
            _announce(task, call, "awaiting_approval", f"{rule}: {reason}")
        case Deferred(_, until_us, reason, paused):
            _announce(task, call, "deferred", reason if paused else f"until {iso(until_us)}: {reason}")
            if redelivered(task.request):
                # Its worker died before it could look whether what it waits for has ended.
                wake(task.app, call.gov, call.arrival.action_id)
        case StoreAway(problem):
            _send_back(task, _STORE_AWAY_DELAY_S, problem)
        case Dropped(_, why):
            log.info("message dropped", why=why)
        case Fenced() | NotSubmitted():
            pass
        case _:
            assert_never(outcome)
    raise Ignore


def echo(task: "GovernedTask", call: Call, message: Outgoing, first_id: str) -> Any:
    """A message whose command_id made another action ends as that one does; the relay sends it when that one has."""
    first = ended(call.gov, first_id)
    if first is None:
        # Shown before it can be told: the other order could overwrite the outcome.
        _announce(task, call, "deferred", f"its command_id belongs to action {first_id}, which has not ended")
        keep_echo(call.gov, message, first_id, published=False)
        raise Ignore
    # A worker that dies before it tells gives the message back, and whoever gets it comes here again.
    told_echo(call.gov, message.action_id)
    return told_again(first)


def told_again(outcome: Ended | Denied | Cancelled) -> Any:
    """The recorded outcome of an action, as its body would have told it."""
    if isinstance(outcome, Denied):
        raise ActionDenied(outcome.action_id, outcome.rule, outcome.reason, outcome.guidance, list(outcome.suggest))
    if isinstance(outcome, Cancelled):
        raise ActionCancelled(outcome.action_id, outcome.rule, outcome.reason, None, [])
    action = outcome.action
    if action.ref.state is State.SUCCEEDED:
        return result_of(action.result)
    raise ActionFailed(action.ref.id, action.error_type, action.error)


def _publish_retry(task: "GovernedTask", call: Call, ending: AskedToRetry) -> None:
    action_id = call.arrival.action_id
    text = ending.message or call.running().action.message
    try:
        message = Outgoing(action_id, text) if text else message_of(call.gov, action_id)
    except StoreUnavailable as problem:
        log.warning("retry not published: the relay does it", problem=str(problem))
        return
    assert message is not None, "actions are never deleted while they count"
    wait_s = call.gov.clock.real_s(max(ending.not_before_us - call.gov.clock.now_us(), 0))
    if wait_s <= HELD_BY_CELERY_S_MAX:
        publish(task.app, call.gov, message, wait_s)
    else:
        not_published(call.gov, action_id)


def _send_back(task: "GovernedTask", delay_s: float, why: str) -> None:
    """Publishes this very message again, later, past submission."""
    request = task.request
    log.warning("message sent back", delay_s=delay_s, why=why)
    options = options_of(request)
    options |= {"countdown": delay_s * random.uniform(0.8, 1.2), "expires": None}
    if redelivered(request):
        options["headers"] = {**(options.get("headers") or {}), REDELIVERED: True}
    try:
        Task.apply_async(task, tuple(request.args or ()), dict(request.kwargs or {}), **options)
    except BROKER_ERRORS as problem:
        raise Reject(str(problem), requeue=True) from problem


def _announce(task: "GovernedTask", call: Call, state: str, why: str) -> None:
    """Shows a waiting action in Celery's results and in Flower, which knows states only from events."""
    try:
        task.update_state(state=state.upper(), meta={"reason": why})
        task.send_event(f"task-{state}", result=why)
        # A decision may have been faster than these lines, and its outcome now stands overwritten.
        tell_again(call.gov, call.arrival.action_id)
    except Exception as problem:
        # Telemetry may be lost; the row says that it waits.
        log.warning("not announced", state=state, problem=repr(problem))
