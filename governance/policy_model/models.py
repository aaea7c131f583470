"""Models: their tiers, who may use which, exceptions and prices."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from governance.core.models import OverrideEffect, Tier
from governance.core.policy import Risk
from governance.policy_model.values import Instant, Model, Name, Pattern, Patterns, Text, Usd, some


class WhomModel(Model):
    user: Patterns = None
    team: Patterns = None
    org: Patterns = None
    agent: Patterns = None
    risk: Annotated[tuple[Risk, ...] | None, BeforeValidator(some)] = None


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
    """USD per million tokens; cached or written input without a price of its own costs what other input does."""

    input: Usd
    cached: Usd | None = None
    written: Usd | None = None
    output: Usd


class ModelsModel(Model):
    tiers: TiersModel = TiersModel()
    access: tuple[AccessModel, ...] = ()
    overrides: tuple[OverrideModel, ...] = ()
    unknown: Literal["refuse", Tier.STANDARD, Tier.PREMIUM, Tier.RESTRICTED] = "refuse"
    prices: dict[Pattern, PricesModel] = Field(default_factory=dict)
