"""Budgets by identity and period: whose they are, which of them an action is charged to, and the accounts of a window.

A budget is about part of an identity: any of user, team, org, agent and stream. It covers every action whose identity
has that part, whatever else it has, so an org's budget covers its users. `*` stands for each value there is: everybody
has an account of their own.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from governance.core.digest import canonical_json
from governance.core.identity import Identity
from governance.core.instants import iso
from governance.core.ledger import Account, Unit
from governance.core.plans import OnExhausted
from governance.core.switches import Scope
from governance.core.windows import NEVER_US, Period, Window, period_at

#: The `scope` of a budget's accounts.
SCOPE: Final = "budget"
#: Each value there is, in a budget's identity.
EACH: Final = "*"
#: What a budget can have a limit of.
UNITS: Final = (Unit.COST, Unit.TOKENS)


class Part(StrEnum):
    """The parts of an identity that a budget can be about, in the order in which they name an account."""

    USER = "user"
    TEAM = "team"
    ORG = "org"
    AGENT = "agent"
    STREAM = "stream"


@dataclass(frozen=True, slots=True)
class Payer:
    """The identity that an action is charged to, as it is recorded: what budgets look at."""

    user: str | None
    team: str | None
    org: str | None
    agent: str | None
    stream: str

    @classmethod
    def of(cls, identity: Identity, agent: str | None, stream: str) -> "Payer":
        """Whom the directory says, with who acts and where."""
        return cls(identity.user, identity.team, identity.org, agent, stream)


@dataclass(frozen=True, slots=True)
class TokenBudgetConfig:
    """A budget. `identity` says whose; None is no limit of that unit, 0 is nothing; `soft` are percents that alert.

    `allowed_models` are patterns, None allows any model. Where `on_exhausted` is stop, `identity` has one part.
    """

    id: str
    identity: Mapping[Part, str]
    period: Period
    max_tokens: int | None = None
    max_cost_micros: int | None = None
    allowed_models: tuple[str, ...] | None = None
    timezone: str = "UTC"
    soft: tuple[int, ...] = (50, 80)
    on_exhausted: OnExhausted = OnExhausted.DENY
    stripes: int = 1

    @property
    def limits(self) -> Mapping[Unit, int]:
        """The limits that there are, by unit."""
        limits = {Unit.COST: self.max_cost_micros, Unit.TOKENS: self.max_tokens}
        return {unit: limit for unit, limit in limits.items() if limit is not None}

    def who(self, payer: Payer) -> str | None:
        """Whose account of this budget `payer` is charged to, such as `org=acme`; None when it is not about them."""
        named = []
        for part in Part:
            wanted = self.identity.get(part)
            if wanted is None:
                continue
            value = getattr(payer, part)
            if value is None or wanted not in (EACH, value):
                return None
            named.append(f"{part}={value.replace('%', '%25').replace(',', '%2C')}")
        return ",".join(named)

    @property
    def rule(self) -> str:
        """How a refusal names it."""
        return f"budget:{self.id}"

    @property
    def text(self) -> str:
        """For keeping; `parse_budget` reads it."""
        return canonical_json(
            {
                "id": self.id,
                "identity": {str(part): value for part, value in self.identity.items()},
                "period": self.period,
                "max_tokens": self.max_tokens,
                "max_cost_micros": self.max_cost_micros,
                "allowed_models": None if self.allowed_models is None else list(self.allowed_models),
                "timezone": self.timezone,
                "soft": list(self.soft),
                "on_exhausted": self.on_exhausted,
                "stripes": self.stripes,
            }
        )


def parse_budget(text: str) -> TokenBudgetConfig:
    """The budget that `TokenBudgetConfig.text` wrote."""
    found = json.loads(text)
    models = found["allowed_models"]
    return TokenBudgetConfig(
        id=found["id"],
        identity={Part(part): value for part, value in found["identity"].items()},
        period=Period(found["period"]),
        max_tokens=found["max_tokens"],
        max_cost_micros=found["max_cost_micros"],
        allowed_models=None if models is None else tuple(models),
        timezone=found["timezone"],
        soft=tuple(found["soft"]),
        on_exhausted=OnExhausted(found["on_exhausted"]),
        stripes=found["stripes"],
    )


@dataclass(frozen=True, slots=True)
class Raise:
    """More than the limit, until `until_us`: for everybody's accounts of a budget (`who` None), or for one of them."""

    id: str
    budget_id: str
    who: str | None
    cost_micros: int
    tokens: int
    until_us: int

    def amount(self, unit: Unit) -> int:
        return {Unit.COST: self.cost_micros, Unit.TOKENS: self.tokens}.get(unit, 0)


@dataclass(frozen=True, slots=True)
class Book:
    """What was set and raised by people, of one epoch: `budgets` count before the policy's of the same id."""

    budgets: Mapping[str, TokenBudgetConfig] = field(default_factory=dict)
    raises: tuple[Raise, ...] = ()

    @property
    def raises_until_us(self) -> int:
        """When the first raise ends."""
        return min((one.until_us for one in self.raises), default=NEVER_US)

    def in_force(self, policy: Iterable[TokenBudgetConfig]) -> tuple[TokenBudgetConfig, ...]:
        """Every budget that counts beside a policy's, by id."""
        known = {budget.id: budget for budget in policy} | dict(self.budgets)
        return tuple(budget for _, budget in sorted(known.items()))

    def raised(self, charge: "Charge", unit: Unit) -> int:
        """What the raises that last add to the limit of an account."""
        return sum(
            one.amount(unit)
            for one in self.raises
            if one.budget_id == charge.budget.id and one.who in (None, charge.who)
        )


@dataclass(frozen=True, slots=True)
class Charge:
    """A budget that an action is charged to: whose account, in which window."""

    budget: TokenBudgetConfig
    who: str
    window: Window

    @property
    def scope_id(self) -> str:
        """What its accounts have in common over all windows; a budget's period is part of what they are."""
        return f"{self.budget.id}:{self.budget.period}:{self.who}"

    @property
    def name(self) -> str:
        """As people read it."""
        return f"budget {self.budget.id} ({self.who})"

    def account_id(self, unit: Unit) -> str:
        return f"{SCOPE}:{self.scope_id}:{iso(self.window.start_us)}:{unit}"

    def account(self, unit: Unit, raised: int) -> Account:
        """The empty account that is opened with a window."""
        limit = self.budget.limits[unit] + raised
        return Account(self.account_id(unit), unit, limit, 0, 0, self.window.end_us, self.budget.stripes)

    def scope(self, payer: Payer) -> tuple[Scope, str]:
        """The scope of a kill switch that stops exactly whom this budget is about."""
        (part,) = self.budget.identity
        value = getattr(payer, part)
        assert value is not None, "it matched"
        return Scope(part), value


@dataclass(frozen=True, slots=True)
class Charges:
    """Everything that one identity is charged to from `since_us`, when the last of its windows began, until `until_us`,
    when the first of them ends.
    """

    charges: tuple[Charge, ...] = ()
    since_us: int = 0
    until_us: int = NEVER_US
    #: By account.
    accounts: Mapping[str, tuple[Charge, Unit]] = field(default_factory=dict)


def charges_of(budgets: Iterable[TokenBudgetConfig], payer: Payer, now_us: int) -> Charges:
    """What `payer` is charged to at `now_us`."""
    found = []
    for budget in budgets:
        who = budget.who(payer)
        if who is not None:
            found.append(Charge(budget, who, period_at(budget.period, budget.timezone, now_us)))
    return Charges(
        charges=tuple(found),
        since_us=max((charge.window.start_us for charge in found), default=0),
        until_us=min((charge.window.end_us for charge in found), default=NEVER_US),
        accounts={charge.account_id(unit): (charge, unit) for charge in found for unit in charge.budget.limits},
    )


def model_patterns(charges: Iterable[Charge]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The budgets that allow some models only, each with its patterns: a model has to match one of each."""
    return tuple(
        (charge.budget.id, charge.budget.allowed_models)
        for charge in charges
        if charge.budget.allowed_models is not None
    )


def budget_of(scope_id: str) -> tuple[str, str]:
    """The budget's id and whose account it is, of a `Charge.scope_id`."""
    id_, _, rest = scope_id.partition(":")
    return id_, rest.partition(":")[2]


def parts_of(who: str) -> dict[str, str]:
    """The parts of an identity whose account it is: what `TokenBudgetConfig.who` has put together."""
    pairs = (pair.partition("=") for pair in who.split(","))
    return {part: value.replace("%2C", ",").replace("%25", "%") for part, _, value in pairs}


def resets(at_us: int) -> str:
    """When a window ends, as a refusal says it."""
    return "never resets" if at_us >= NEVER_US else f"resets {iso(at_us)}"
