"""The header `acp` of a message: what it asks for, and whose it is inside another action."""

from collections.abc import Mapping
from typing import Any

from celery import current_task

from acp_tasks.run import Run
from acp_tasks.terms import CALL_OPTIONS
from governance.errors import InvalidOption


def surrounding_header(run: Run | None) -> Mapping[str, Any] | None:
    """The header of the action this call is made in: of its body, or of the task whose chain or chord goes on."""
    if run is not None:
        return run.header
    task = current_task
    return header_of(task.request) if task and not task.request.called_directly else None


def header_of(request: Any) -> Mapping[str, Any]:
    """The header `acp` of a message. Raises InvalidOption when somebody put something else there."""
    header = request.get("acp") or (request.headers or {}).get("acp") or {}
    if not isinstance(header, Mapping):
        raise InvalidOption("header acp", header, "a dict of governance options")
    return header


def asked_of(header: Mapping[str, Any]) -> dict[str, Any]:
    """The governance options that a message brings in its header `acp`."""
    identity = {name: header[name] for name in ("user", "team", "org") if header.get(name)}
    return {**{name: header.get(name) for name in CALL_OPTIONS}, "identity": header.get("identity") or identity}


def names_in(action_id: str, header: Mapping[str, Any]) -> dict[str, str]:
    """What log lines name an action by, as its message has it; the session is known once it is admitted."""
    said = {name: header.get(name) for name in ("command_id", "correlation_id", "stream")}
    return {"action": action_id, **{name: value for name, value in said.items() if isinstance(value, str)}}
