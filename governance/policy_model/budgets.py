"""Budgets: whose they are, their period and their limits."""

from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from governance.core.budgets import Part, TokenBudgetConfig
from governance.core.ledger import STRIPES_MAX, Unit
from governance.core.plans import OnExhausted
from governance.core.windows import Period
from governance.policy_model.values import Model, Name, Patterns, Timezone, Tokens, Usd, Whose


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
    timezone: Timezone = "UTC"
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
