"""A message, or a direct call, as governance sees it arrive."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from celery.exceptions import SoftTimeLimitExceeded

from acp_tasks import bootstrap
from acp_tasks.message import arguments_json, digest
from acp_tasks.submission import said_by
from governance.core.budgets import Payer
from governance.middleware.call import Call
from governance.operations.admit import Arrival

if TYPE_CHECKING:
    from acp_tasks.governed import GovernedTask


def call_of(
    task: "GovernedTask",
    action_id: str,
    header: Mapping[str, Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    redelivered: bool,
    can_wait: bool = True,
) -> Call:
    """What runs through the middleware. Raises ArgumentsNotJson, ArgumentsTooLarge, StoreUnavailable."""
    parts = bootstrap.parts()
    text = arguments_json(task.name, args, kwargs, parts.settings.arguments_bytes_max)
    named = task.named(args, kwargs)
    stream = header.get("stream") or task.terms.stream
    arrival = Arrival(
        action_id=action_id,
        stream=stream,
        digest=digest(task.name, text),
        arguments=named,
        redelivered=redelivered,
        can_wait=can_wait,
        # Of what arrived: a retry or an approver may have put other arguments in place of the recorded ones.
        resource=task.resource_of(named),
        payer=_payer(header, stream),
    )
    if can_wait and not redelivered and not task.request.retries:
        arrival = replace(arrival, said=said_by(task, header, arrival))
    return Call(parts.gov, parts.spool, arrival, bootstrap.lease(), interrupts=(SoftTimeLimitExceeded,))


def _payer(header: Mapping[str, Any], stream: str) -> Payer:
    """Whom the action is probably charged to, by what its message says."""
    said = {name: value for name, value in header.items() if isinstance(value, str)}
    return Payer(said.get("user"), said.get("team"), said.get("org"), said.get("agent_id"), stream)
