"""Governance options: what a task declares about itself, and what a call asks for. Ordinary Celery options, checked.

On the task: `risk`, `cost_usd`, `tokens`, `idempotent`, `resource`, `stream`, `model`, `governed`. On a call:
`command_id`, `stream`, `agent_id`, `identity`, `cost_usd`, `tokens`, `model`. What a call leaves out it inherits from
the action it is made in.
"""

import string
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from governance.core.digest import storable
from governance.core.money import cost_micros, token_count
from governance.core.policy import Risk
from governance.errors import InvalidOption, ResourceTemplateInvalid

CALL_OPTIONS: Final = ("command_id", "stream", "agent_id", "identity", "cost_usd", "tokens", "model")
_IDENTITY = ("user", "team", "org")
_NAME_LENGTH_MAX = 200
_RESOURCE_LENGTH_MAX = 500


@dataclass(frozen=True, slots=True)
class Terms:
    """What a task declares. A task that does not say its risk is taken for a high one."""

    risk: Risk
    cost_micros: int
    tokens: int
    idempotent: bool
    resource: str | None
    stream: str
    model: str | None


@dataclass(frozen=True, slots=True)
class Asked:
    """What a call asks for, as it travels in the message header `acp`."""

    command_id: str | None = None
    stream: str | None = None
    agent_id: str | None = None
    user: str | None = None
    team: str | None = None
    org: str | None = None
    cost_micros: int | None = None
    tokens: int | None = None
    model: str | None = None
    correlation_id: str | None = None

    def header(self) -> dict[str, object]:
        known = {
            "command_id": self.command_id,
            "stream": self.stream,
            "agent_id": self.agent_id,
            "user": self.user,
            "team": self.team,
            "org": self.org,
            "correlation_id": self.correlation_id,
            "tokens": self.tokens,
            "model": self.model,
            "cost_usd": _usd(self.cost_micros),
        }
        return {key: value for key, value in known.items() if value is not None}

    def inheriting(self, header: Mapping[str, Any] | None) -> "Asked":
        """Filled up from the action this call is made in. A call that names an identity of its own inherits none."""
        if not header:
            return self
        missing = [name for name in ("stream", "agent_id", "correlation_id") if getattr(self, name) is None]
        if self.user is None and self.team is None and self.org is None:
            missing += _IDENTITY
        return replace(self, **{name: header.get(name) for name in missing})


def read_terms(task: str, options: Mapping[str, Any]) -> Terms:
    """Checks a task's own options. Raises InvalidOption, InvalidAmount, ResourceTemplateInvalid."""
    risk = options["risk"]
    if risk is not None and risk not in set(Risk):
        raise InvalidOption(f"risk of task {task}", risk, "low, medium, high or critical")
    idempotent = options["idempotent"]
    if not isinstance(idempotent, bool):
        raise InvalidOption(f"idempotent of task {task}", idempotent, "True or False")
    resource = options["resource"]
    if resource is not None:
        _fields(task, resource)
    return Terms(
        risk=Risk(risk) if risk is not None else Risk.HIGH,
        cost_micros=cost_micros(options["cost_usd"], "cost_usd") if options["cost_usd"] is not None else 0,
        tokens=token_count(options["tokens"], "tokens") if options["tokens"] is not None else 0,
        idempotent=idempotent,
        resource=resource,
        stream=_name("stream", options["stream"]),
        model=_name("model", options["model"]) if options["model"] is not None else None,
    )


def take_asked(options: dict[str, Any]) -> Asked:
    """Removes the governance options from a call's Celery options and checks them."""
    taken = {name: options.pop(name) for name in CALL_OPTIONS if name in options}
    taken = {name: value for name, value in taken.items() if value is not None}
    identity = taken.pop("identity", {})
    if not isinstance(identity, Mapping) or set(identity) - set(_IDENTITY):
        raise InvalidOption("identity", identity, 'a dict with "user", "team" and "org", any of them')
    asked: dict[str, Any] = {
        name: _name(name, value)
        for name, value in {**taken, **identity}.items()
        if name not in ("cost_usd", "tokens") and value is not None
    }
    if "cost_usd" in taken:
        asked["cost_micros"] = cost_micros(taken["cost_usd"], "cost_usd")
    if "tokens" in taken:
        asked["tokens"] = token_count(taken["tokens"], "tokens")
    return Asked(**asked)


def resource_of(task: str, template: str | None, arguments: Mapping[str, object]) -> str | None:
    """The template filled from the call's arguments. Raises ResourceTemplateInvalid for one that is not there."""
    if template is None:
        return None
    for name in _fields(task, template):
        if name not in arguments:
            raise ResourceTemplateInvalid(task, template, name, ", ".join(sorted(arguments)) or "none")
    return storable(template.format_map(arguments))[:_RESOURCE_LENGTH_MAX]


def _fields(task: str, template: object) -> list[str]:
    if not isinstance(template, str):
        raise InvalidOption(f"resource of task {task}", template, 'a template such as "customer_case:{case_id}"')
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as problem:
        raise InvalidOption(f"resource of task {task}", template, f"a template ({problem})") from None
    for name in names:
        if not name.isidentifier():
            raise InvalidOption(f"resource of task {task}", template, f"plain argument names, not {{{name}}}")
    return names


def _name(option: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > _NAME_LENGTH_MAX or not value.isprintable():
        raise InvalidOption(option, value, f"a printable string of 1 to {_NAME_LENGTH_MAX} characters")
    return value


def _usd(micros: int | None) -> str | None:
    """Exactly, as `cost_usd` takes it."""
    return None if micros is None else f"{micros // 10**6}.{micros % 10**6:06}"
