"""The shape of a policy file: one model per thing, every key known, every value strict.

Values are what the core wants (microseconds, micro-USD, compiled conditions) and are written back as the one canonical
way to say them.
"""

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    PlainSerializer,
    StrictBool,
    StringConstraints,
    model_validator,
)

from governance.cel import CelCondition, compile_condition
from governance.core import identity
from governance.core.approvals import Chain, Level
from governance.core.budgets import Part, TokenBudgetConfig
from governance.core.instants import SECOND_US, iso
from governance.core.ledger import STRIPES_MAX, Unit
from governance.core.models import OverrideEffect, Tier
from governance.core.money import MICROS_PER_USD, cost_micros, token_count
from governance.core.plans import OnExhausted
from governance.core.policy import ConditionError, Risk
from governance.core.windows import DAY_US, Period, WindowPlan, zone
from governance.errors import InvalidAmount, InvalidOption

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
_ROLE: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,49}")
_TIMEOUT_MAX_US: Final = 366 * DAY_US
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _version(value: object) -> object:
    if type(value) is not int or value != 1:
        raise ValueError("expected 1, the version of the format that this release reads")
    return value


def _duration(value: object) -> int:
    """`90s`, `15m`, `1h` or `1d` in microseconds."""
    if isinstance(value, str) and value[:-1].isascii() and value[:-1].isdigit() and len(value) <= 12:
        seconds = _SECONDS.get(value[-1])
        if seconds and int(value[:-1]):
            return int(value[:-1]) * seconds * SECOND_US
    raise ValueError("expected a duration such as 90s, 15m, 1h or 1d")


def _window(length_us: int) -> int:
    try:
        return WindowPlan(length_us, "UTC").length_us
    except InvalidOption as invalid:
        raise ValueError(f"expected {invalid.args[2]}") from None


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
    return Level(tuple(roles.split("|")), _duration(time.strip()))


def _written(levels: tuple[Level, ...] | None) -> list[dict[str, str]] | None:
    if levels is None:
        return None
    return [
        {"then" if number else "first": f"{'|'.join(level.roles)} {level.within_us // SECOND_US}s"}
        for number, level in enumerate(levels)
    ]


def _timezone(name: str) -> str:
    try:
        return zone(name).key
    except InvalidOption as invalid:
        raise ValueError(f"expected {invalid.args[2]}") from None


def _of_a_stream(value: object) -> object:
    if value not in ("deny", "defer", "stop"):
        raise ValueError("expected one of 'deny', 'defer' or 'stop'")
    return value


def _budget_id(name: str) -> str:
    if ":" in name or "/" in name:
        raise ValueError("expected an id without : and /, it is part of the names of accounts")
    if name in set(Unit):
        raise ValueError(f"the id {name!r} means a session's own budget, choose another")
    return name


def _soft(percents: tuple[int, ...]) -> tuple[int, ...]:
    if any(later <= earlier for earlier, later in pairwise(percents)):
        raise ValueError("expected percents that rise, such as [50, 80]")
    return percents


def _micros(value: object) -> int:
    try:
        return cost_micros(value, "cost_usd")
    except InvalidAmount as invalid:
        raise ValueError(f"expected {invalid.args[2]}") from None


def _tokens(value: object) -> int:
    try:
        return token_count(value, "tokens")
    except InvalidAmount as invalid:
        raise ValueError(f"expected {invalid.args[2]}") from None


def _condition(value: object) -> CelCondition:
    if not isinstance(value, str):
        raise ValueError("expected a CEL expression as text")
    try:
        return compile_condition(value.strip())
    except ConditionError as error:
        raise ValueError(error.problem) from None


def _instant(value: object) -> int:
    """An ISO 8601 instant with its zone, in microseconds."""
    try:
        instant = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise ValueError("expected an instant with its zone such as 2030-01-31T18:00:00Z")
    return (instant - _EPOCH) // timedelta(microseconds=1)


def _some(value: object) -> object:
    """One or a list. An empty list would match nothing, which nobody means."""
    if value == []:
        raise ValueError("expected at least one")
    return value if isinstance(value, list) else [value]


Text: TypeAlias = Annotated[str, StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=1000)]
Name: TypeAlias = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}$")]
Pattern: TypeAlias = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=200)]
Patterns: TypeAlias = Annotated[tuple[Pattern, ...] | None, BeforeValidator(_some)]
Whose: TypeAlias = Annotated[str, StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=200)]
Tokens: TypeAlias = Annotated[int, BeforeValidator(_tokens)]
Count: TypeAlias = Annotated[int, Field(strict=True, ge=0, le=10**12)]
Duration: TypeAlias = Annotated[
    int, BeforeValidator(_duration), PlainSerializer(lambda length_us: f"{length_us // SECOND_US}s")
]
Usd: TypeAlias = Annotated[
    int,
    BeforeValidator(_micros),
    PlainSerializer(lambda micros: f"{micros // MICROS_PER_USD}.{micros % MICROS_PER_USD:06d}"),
]
Instant: TypeAlias = Annotated[int, BeforeValidator(_instant), PlainSerializer(iso)]
When: TypeAlias = Annotated[
    InstanceOf[CelCondition], BeforeValidator(_condition), PlainSerializer(lambda condition: condition.source)
]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LimitsModel(Model):
    """Limits of one window; a unit that is left out is unlimited."""

    cost_usd: Usd | None = None
    actions: Count | None = None
    tokens: Tokens | None = None


class StreamModel(Model):
    window: Annotated[Duration, AfterValidator(_window)]
    timezone: Annotated[Text, AfterValidator(_timezone)] = "UTC"
    limits: LimitsModel
    on_exhausted: Annotated[OnExhausted, BeforeValidator(_of_a_stream)] = OnExhausted.DENY
    grace: Duration | None = None
    stripes: Annotated[int, Field(strict=True, ge=1, le=STRIPES_MAX)] = 1


class MatchModel(Model):
    action: Patterns = None
    risk: Annotated[tuple[Risk, ...] | None, BeforeValidator(_some)] = None
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
    suggest: Annotated[tuple[Pattern, ...], BeforeValidator(_some)] = ()


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


class IdentityModel(Model):
    """Whose a budget is: `*` is each value there is."""

    user: Whose | None = None
    team: Whose | None = None
    org: Whose | None = None
    agent: Whose | None = None
    stream: Whose | None = None

    @model_validator(mode="after")
    def _somebody(self) -> "IdentityModel":
        if not self.parts:
            raise ValueError("expected at least one of user, team, org, agent and stream")
        return self

    @property
    def parts(self) -> dict[Part, str]:
        given = {part: getattr(self, part) for part in Part}
        return {part: value for part, value in given.items() if value is not None}


class BudgetModel(Model):
    """A unit that is left out is unlimited."""

    id: Annotated[Name, AfterValidator(_budget_id)]
    identity: IdentityModel
    period: Period
    timezone: Annotated[Text, AfterValidator(_timezone)] = "UTC"
    max_tokens: Tokens | None = None
    max_cost_usd: Usd | None = None
    allowed_models: Patterns = None
    soft: Annotated[tuple[Annotated[int, Field(strict=True, ge=1, le=100)], ...], AfterValidator(_soft)] = (50, 80)
    on_exhausted: OnExhausted = OnExhausted.DENY
    stripes: Annotated[int, Field(strict=True, ge=1, le=STRIPES_MAX)] = 1

    @model_validator(mode="after")
    def _makes_sense(self) -> "BudgetModel":
        if self.max_tokens is None and self.max_cost_usd is None and self.allowed_models is None:
            raise ValueError("expected at least one of max_tokens, max_cost_usd and allowed_models")
        if self.on_exhausted is OnExhausted.DEFER and self.period is Period.UNLIMITED:
            raise ValueError("on_exhausted: defer waits for the next window, and an unlimited period has none")
        if self.on_exhausted is OnExhausted.STOP and len(self.identity.parts) != 1:
            raise ValueError("on_exhausted: stop stops whom the budget is about: expected an identity of one key")
        return self

    def as_budget(self) -> TokenBudgetConfig:
        return TokenBudgetConfig(
            id=self.id,
            identity=self.identity.parts,
            period=self.period,
            max_tokens=self.max_tokens,
            max_cost_micros=self.max_cost_usd,
            allowed_models=self.allowed_models,
            timezone=self.timezone,
            soft=self.soft,
            on_exhausted=self.on_exhausted,
            stripes=self.stripes,
        )


RuleModel: TypeAlias = AllowModel | SteerModel | ApprovalModel | DenyModel


class WhomModel(Model):
    user: Patterns = None
    team: Patterns = None
    org: Patterns = None
    agent: Patterns = None
    risk: Annotated[tuple[Risk, ...] | None, BeforeValidator(_some)] = None


class TiersModel(Model):
    standard: Patterns = None
    premium: Patterns = None
    restricted: Patterns = None


class AccessModel(Model):
    """`match` is required: a tier that is open to everybody says so with `match: {}`."""

    tier: Tier
    match: WhomModel


class OverrideModel(Model):
    """An exception says why, and until when."""

    id: Name
    match: WhomModel
    model: Pattern
    effect: OverrideEffect
    reason: Text
    until: Instant


class PricesModel(Model):
    """USD per million tokens; cached input that has no price of its own costs what other input does."""

    input: Usd
    cached: Usd | None = None
    output: Usd


class ModelsModel(Model):
    tiers: TiersModel = TiersModel()
    access: tuple[AccessModel, ...] = ()
    overrides: tuple[OverrideModel, ...] = ()
    unknown: Literal["refuse", Tier.STANDARD, Tier.PREMIUM, Tier.RESTRICTED] = "refuse"
    prices: dict[Pattern, PricesModel] = Field(default_factory=dict)


class PolicyModel(Model):
    version: Annotated[int, BeforeValidator(_version)]
    streams: dict[Name, StreamModel]
    rules: tuple[Annotated[RuleModel, Field(discriminator="effect")], ...]
    budgets: tuple[BudgetModel, ...] = ()
    models: ModelsModel | None = None
    require_identity: Annotated[tuple[identity.Part, ...], BeforeValidator(_some)] = ()


class AnyRule(BaseRule):
    """A rule whose effect is not known, so that its other problems can be told all the same."""

    model_config = ConfigDict(extra="ignore")
