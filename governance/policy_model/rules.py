"""Rules: what each is about, its condition, its effect, and whom it asks."""

import re
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    InstanceOf,
    PlainSerializer,
    StrictBool,
    model_validator,
)

from governance.cel import CelCondition, compile_condition
from governance.core.approvals import Chain, Level
from governance.core.instants import SECOND_US
from governance.core.policy import ConditionError, Risk
from governance.core.windows import DAY_US
from governance.policy_model.values import Duration, Model, Name, Pattern, Patterns, Text, duration, some

_ROLE: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,49}")
_TIMEOUT_MAX_US: Final = 366 * DAY_US


def _timeout(length_us: int) -> int:
    if length_us > _TIMEOUT_MAX_US:
        raise ValueError("expected at most 366d")
    return length_us


def _levels(value: object) -> tuple[Level, ...]:
    """`[{first: team-lead 15m}, {then: on-call|security 30m}, {then: deny}]`; the last may be left out."""
    if not isinstance(value, list):
        raise ValueError("expected a list such as [{first: team-lead 15m}, {then: on-call 30m}, {then: deny}]")
    levels = []
    for number, item in enumerate(value):
        key = "then" if number else "first"
        if not isinstance(item, dict) or list(item) != [key] or not isinstance(item[key], str):
            raise ValueError(f"expected level {number + 1} as {{{key}: ROLE TIME}}, such as {{{key}: team-lead 15m}}")
        if number and item[key] == "deny":
            if number + 1 < len(value):
                raise ValueError("nothing can follow {then: deny}: it ends the chain")
            break
        levels.append(_level(item[key]))
    if not levels:
        raise ValueError("expected at least one level, such as {first: team-lead 15m}")
    if sum(level.within_us for level in levels) > _TIMEOUT_MAX_US:
        raise ValueError("expected at most 366d for all levels together")
    return tuple(levels)


def _level(text: str) -> Level:
    roles, _, time = text.partition(" ")
    if not all(_ROLE.fullmatch(role) for role in roles.split("|")):
        raise ValueError(f"expected ROLE TIME, such as team-lead 15m or on-call|security 30m, not {text!r}")
    return Level(tuple(roles.split("|")), duration(time.strip()))


def _written(levels: tuple[Level, ...] | None) -> list[dict[str, str]] | None:
    if levels is None:
        return None
    return [
        {"then" if number else "first": f"{'|'.join(level.roles)} {level.within_us // SECOND_US}s"}
        for number, level in enumerate(levels)
    ]


def _condition(value: object) -> CelCondition:
    if not isinstance(value, str):
        raise ValueError("expected a CEL expression as text")
    try:
        return compile_condition(value.strip())
    except ConditionError as error:
        raise ValueError(error.problem) from None


When: TypeAlias = Annotated[
    InstanceOf[CelCondition], BeforeValidator(_condition), PlainSerializer(lambda condition: condition.source)
]


class MatchModel(Model):
    action: Patterns = None
    risk: Annotated[tuple[Risk, ...] | None, BeforeValidator(some)] = None
    stream: Patterns = None
    agent: Patterns = None
    resource: Patterns = None
    user: Patterns = None
    team: Patterns = None
    org: Patterns = None
    model: Patterns = None


class BaseRule(Model):
    """What every rule has. `match` is required: a rule about everything says so with `match: {}`."""

    id: Name
    match: MatchModel
    when: When | None = None
    reason: Text | None = None


class AllowModel(BaseRule):
    effect: Literal["allow"]


class SteerModel(BaseRule):
    effect: Literal["steer"]
    guidance: Text
    suggest: Annotated[tuple[Pattern, ...], BeforeValidator(some)] = ()


class ApprovalTermsModel(Model):
    """`timeout` asks any approver; `chain` asks level after level: `first: team-lead 15m`, `then: on-call 30m`."""

    timeout: Annotated[Duration, AfterValidator(_timeout)] | None = None
    chain: Annotated[tuple[InstanceOf[Level], ...], BeforeValidator(_levels), PlainSerializer(_written)] | None = None
    approvals: Annotated[int, Field(strict=True, ge=1, le=10)] = 1
    requester_may_approve: StrictBool = False

    @model_validator(mode="after")
    def _one_of_both(self) -> "ApprovalTermsModel":
        if (self.timeout is None) == (self.chain is None):
            raise ValueError("expected either timeout or chain")
        return self

    def as_chain(self) -> Chain:
        levels = self.chain or (Level((), self.timeout or 0),)
        return Chain(levels, self.approvals, self.requester_may_approve)


class ApprovalModel(BaseRule):
    effect: Literal["approval"]
    approval: ApprovalTermsModel


class DenyModel(BaseRule):
    """A refusal says why."""

    effect: Literal["deny"]
    reason: Text


RuleModel: TypeAlias = AllowModel | SteerModel | ApprovalModel | DenyModel


class AnyRule(BaseRule):
    """A rule whose effect is not known, so that its other problems can be told all the same.

    Keys that no rule has are among them; the values of those that only some effects have are not looked at.
    """

    effect: Any = None
    guidance: Any = None
    suggest: Any = None
    approval: Any = None
