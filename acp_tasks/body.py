"""Running the body of an admitted attempt, and reading from what it did how the attempt ends."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog
from celery.exceptions import Ignore, Reject, Retry

from acp_tasks import bootstrap, offspring
from acp_tasks.header import header_of
from acp_tasks.message import arguments_json, digest, pack, result_json
from acp_tasks.run import Run, Waiting, find_run, running
from acp_tasks.signature import signed
from acp_tasks.starts import starts
from acp_tasks.submission import instant
from governance.core.digest import storable
from governance.core.instants import SECOND_US
from governance.core.signing import sign
from governance.middleware.call import Call, Failed, Ran, Retrying, Returned, StoppedShort, Suspending
from governance.operations.finish import AskedToRetry, Raised, Stopped, Succeeded, Suspended

if TYPE_CHECKING:
    from acp_tasks.governed import GovernedTask

log = structlog.get_logger(__name__)

_ERROR_LENGTH_MAX = 4000


def run_body(task: "GovernedTask", call: Call, header: Mapping[str, Any], body: Callable[[], Any]) -> Ran:
    """Every way a body can end, as a value. What is no `Exception` (the process is going down) is not an end."""
    run = Run(call, header, find_run())
    try:
        with running(run):
            _announce_start(task, call)
            run.begun = True
            if run.is_halted():
                # It was stopped on the way here: nothing has begun that could be in doubt.
                return _stopped(run, None, in_doubt=False)
            value = body()
        if run.told and run.is_halted():
            return _stopped(run, None, in_doubt=False)
        if run.retry is not None:
            # `retry(throw=False)` and then a return: the next attempt was asked for, so this one is no success.
            raise Retry("asked for while the body went on")
        return Returned(value, Succeeded(result_json(task.name, value)))
    except Exception as error:
        if run.is_halted() and (run.cut or run.told):
            return _stopped(run, error, in_doubt=run.cut and not call.running().action.idempotent)
        return _failed(task, call, run, error)


def _stopped(run: Run, error: Exception | None, *, in_doubt: bool) -> StoppedShort:
    """A kill switch ended it. Cut where its effect may have begun, an action that must not run twice is in doubt."""
    if run.outer is None:
        # What an action inside another one has started cannot be told from what the other one has.
        offspring.kill_offspring()
    assert run.halt is not None
    log.warning("stopped", rule=run.halt.rule, error=repr(error), in_doubt=in_doubt)
    return StoppedShort(Stopped(run.halt.rule, run.halt.reason, in_doubt))


def _failed(task: "GovernedTask", call: Call, run: Run, error: Exception) -> Ran:
    match error:
        case Retry() if not call.arrival.can_wait and not task.request.is_eager:
            # Nobody publishes a direct call again: its caller has the exception.
            return Failed(error, Raised("Retry", _text(error)))
        case Retry():
            return Retrying(error, _asked_to_retry(task, call, run, error))
        case Waiting() if call.arrival.can_wait:
            until_us = call.gov.clock.now_us() + int(error.look_again_s * SECOND_US)
            return Suspending(error.action_ids, Suspended(_text(error), until_us))
        case Ignore():
            return Failed(error, Succeeded("null"))
        case Reject() if getattr(error, "requeue", False):
            return Failed(error, AskedToRetry(_text(error), call.gov.clock.now_us()))
        case _:
            return Failed(error, Raised(type(error).__qualname__, _text(error)))


def _announce_start(task: "GovernedTask", call: Call) -> None:
    request = task.request
    if request.called_directly or request.is_eager or request.id != call.arrival.action_id:
        return
    if task.app.conf.task_track_started and not request.ignore_result and not task.ignore_result:
        starts.begin(task, request)
    if call.running().action.published_us == call.running().action.created_us:
        return
    try:
        # Published again since: it may have been parked or deferred, and for Flower that outranks STARTED until a retry
        # is seen.
        task.send_event("task-retried")
        task.send_event("task-started")
    except call.interrupts:
        raise
    except Exception as problem:
        # Telemetry may be lost; the attempt is admitted.
        log.warning("start not announced", problem=repr(problem))


def _asked_to_retry(task: "GovernedTask", call: Call, run: Run, error: Retry) -> AskedToRetry:
    now_us = call.gov.clock.now_us()
    if run.retry is None:
        return AskedToRetry(_text(error), now_us)
    args, kwargs, options = run.retry
    text = arguments_json(task.name, args, kwargs, bootstrap.parts().settings.arguments_bytes_max)
    changed = digest(task.name, text)
    resource = task.resource_of(task.named(args, kwargs))
    keyring = call.gov.signing
    if keyring is not None:
        # Whoever ran it vouches for its next attempt.
        headers = options.get("headers") or {}
        header = signed(keyring, task.name, changed, headers.get("acp") or header_of(task.request), options)
        options = {**options, "headers": {**headers, "acp": header}}
    message = pack(task.name, text, options)
    return AskedToRetry(
        error=_text(error),
        not_before_us=instant(task.app, options.get("eta") or options.get("countdown"), now_us) or now_us,
        message=message,
        digest=changed if changed != call.arrival.digest else None,
        resource=resource,
        signature=_signature_of_retry(call, message, changed, resource),
    )


def _signature_of_retry(call: Call, message: str, changed: str, resource: str | None) -> str | None:
    """Of the row as it will be: the digest and the resource change with the arguments only."""
    if call.gov.signing is None:
        return None
    before = call.running().action.signable
    after = replace(before, message=message)
    if changed != call.arrival.digest:
        after = replace(after, digest=changed, resource=resource)
    return sign(call.gov.signing, after)


def _text(error: BaseException) -> str:
    return storable(str(error))[:_ERROR_LENGTH_MAX]
