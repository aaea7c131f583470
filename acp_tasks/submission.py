"""From a Celery call to a submission: everything the record needs, checked before anything is written."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.utils.time import maybe_iso8601

from acp_tasks.bootstrap import Parts
from acp_tasks.header import asked_of
from acp_tasks.message import arguments_json, digest, pack
from acp_tasks.signature import signed
from acp_tasks.terms import Asked, resource_of, take_asked
from governance.core.actions import Submission
from governance.core.digest import storable
from governance.core.instants import SECOND_US
from governance.errors import GovernanceError, InvalidOption
from governance.operations.admit import Arrival
from governance.operations.context import Governance
from governance.tracing import traceparent

if TYPE_CHECKING:
    from acp_tasks.governed import GovernedTask


def make_submission(
    task: "GovernedTask",
    parts: Parts,
    action_id: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    asked: Asked,
    options: dict[str, Any],
    *,
    can_wait: bool = True,
) -> Submission:
    """The call as governance records it; puts the `acp` header into `options`.

    Raises ArgumentsNotJson, ArgumentsTooLarge, ResourceTemplateInvalid, InvalidOption.
    """
    terms = task.terms
    now_us = parts.gov.clock.now_us()
    text = arguments_json(task.name, args, kwargs, parts.settings.arguments_bytes_max)
    arguments = task.named(args, kwargs)
    command_id = asked.command_id or action_id
    stream = asked.stream or terms.stream
    correlation_id = asked.correlation_id or options.get("root_id") or action_id
    header = replace(asked, command_id=command_id, stream=stream, correlation_id=correlation_id).header()
    trace = traceparent()
    if trace is not None:
        header["trace"] = trace
    arguments_digest = digest(task.name, text)
    if parts.gov.signing is not None:
        header = signed(parts.gov.signing, task.name, arguments_digest, header, options)
    options["headers"] = {**(options.get("headers") or {}), "acp": header}
    return _submission(
        task,
        asked,
        action_id=action_id,
        command_id=command_id,
        digest=arguments_digest,
        message=pack(task.name, text, options),
        stream=stream,
        correlation_id=correlation_id,
        resource=resource_of(task.name, terms.resource, arguments),
        arguments=arguments,
        not_before_us=instant(task.app, options.get("eta") or options.get("countdown"), now_us),
        expires_us=instant(task.app, options.get("expires") or task.expires, now_us),
        can_wait=can_wait,
    )


def said_by(task: "GovernedTask", header: Mapping[str, Any], arrival: Arrival) -> Submission | None:
    """What was submitted, if its message carries all of it; without the message itself. None: it makes no sense."""
    command_id, correlation_id = header.get("command_id"), header.get("correlation_id")
    try:
        asked = take_asked(asked_of(header))
    except GovernanceError:
        return None
    if not isinstance(command_id, str) or not isinstance(correlation_id, str):
        return None
    if storable(correlation_id) != correlation_id:
        return None
    return _submission(
        task,
        asked,
        action_id=arrival.action_id,
        command_id=command_id,
        digest=arrival.digest,
        message="",
        stream=arrival.stream,
        correlation_id=correlation_id,
        resource=arrival.resource,
        arguments=arrival.arguments,
    )


def _submission(task: "GovernedTask", asked: Asked, **said: Any) -> Submission:
    """What the call asks for, and what the task declares where it does not."""
    terms = task.terms
    return Submission(
        name=task.name,
        risk=terms.risk,
        idempotent=terms.idempotent,
        agent_id=asked.agent_id,
        user=asked.user,
        team=asked.team,
        org=asked.org,
        model=asked.model or terms.model,
        cost_micros=terms.cost_micros if asked.cost_micros is None else asked.cost_micros,
        tokens=terms.tokens if asked.tokens is None else asked.tokens,
        **said,
    )


def instant(app: Celery, when: object, now_us: int) -> int | None:
    """A countdown in seconds, or a datetime, as an instant of the fleet's clock. Raises InvalidOption."""
    if when is None:
        return None
    if isinstance(when, str):
        # As another publisher's message carries it.
        try:
            when = maybe_iso8601(when)
        except ValueError:
            raise InvalidOption("countdown, eta or expires", when, "seconds, or a datetime") from None
    if isinstance(when, datetime):
        now = app.now()
        when = (when - (now if when.tzinfo else now.replace(tzinfo=None))).total_seconds()
    if isinstance(when, bool) or not isinstance(when, int | float):
        raise InvalidOption("countdown, eta or expires", when, "seconds, or a datetime")
    return now_us + int(when * SECOND_US)


def wait_s(gov: Governance, submission: Submission) -> float:
    """Real seconds until the action is due."""
    if submission.not_before_us is None:
        return 0.0
    return gov.clock.real_s(max(submission.not_before_us - gov.clock.now_us(), 0))
