"""Models: the tier that a model is in, and who may use it.

A model is in the strictest tier that has a pattern for it; one that no tier has is unknown, and refused unless the
policy says otherwise. A tier is open to whom an access entry gives it, and to nobody else. An override lets somebody
use a model all the same, or forbids it, until it expires: a denying one counts before everything, an allowing one
before tier and access. What a budget says of models holds for everybody that it covers.

A pattern that restricts is about a model in whatever case it is asked for; one that opens is about its very name.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final, TypeAlias

from governance.core.budgets import Payer
from governance.core.instants import iso
from governance.core.prices import UnitPrices
from governance.core.rules import Risk
from governance.core.switches import names_model


class Tier(StrEnum):
    """Strictest last."""

    STANDARD = "standard"
    PREMIUM = "premium"
    RESTRICTED = "restricted"


class OverrideEffect(StrEnum):
    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Whom:
    """Which callers an entry is about: every part that is given must match one of its globs, None is not asked."""

    user: tuple[str, ...] | None = None
    team: tuple[str, ...] | None = None
    org: tuple[str, ...] | None = None
    agent: tuple[str, ...] | None = None
    risk: frozenset[Risk] | None = None

    def covers(self, payer: Payer, risk: Risk) -> bool:
        if self.risk is not None and risk not in self.risk:
            return False
        asked = ((self.user, payer.user), (self.team, payer.team), (self.org, payer.org), (self.agent, payer.agent))
        return all(
            patterns is None or (name is not None and any(fnmatchcase(name, pattern) for pattern in patterns))
            for patterns, name in asked
        )


@dataclass(frozen=True, slots=True)
class Access:
    """Opens a tier to some callers."""

    tier: Tier
    whom: Whom


@dataclass(frozen=True, slots=True)
class Override:
    """An exception for some callers and models, with its reason and its end."""

    id: str
    whom: Whom
    model: str
    effect: OverrideEffect
    reason: str
    until_us: int

    def lasts(self, now_us: int) -> bool:
        return now_us < self.until_us

    def payload(self) -> dict[str, str]:
        """How the trail reports it."""
        return {"id": self.id, "effect": self.effect, "reason": self.reason, "until": iso(self.until_us)}


@dataclass(frozen=True, slots=True)
class ModelPolicy:
    """What a policy says of models. `unknown`: the tier of a model that no tier names; None refuses it.

    `prices` are the operator's, by glob; they count before any table.
    """

    tiers: Mapping[Tier, tuple[str, ...]] = field(default_factory=dict)
    access: tuple[Access, ...] = ()
    overrides: tuple[Override, ...] = ()
    unknown: Tier | None = None
    prices: Mapping[str, UnitPrices] = field(default_factory=dict)

    def tier_of(self, model: str) -> Tier | None:
        """The strictest tier that names the model, else that of unknown ones."""
        for tier in reversed(Tier):
            names = names_model if tier is not Tier.STANDARD else _opens
            if any(names(pattern, model) for pattern in self.tiers.get(tier, ())):
                return tier
        return self.unknown

    def price_of(self, model: str) -> UnitPrices | None:
        """The operator's price: by the name itself, else by the longest glob."""
        exact = self.prices.get(model)
        if exact is not None:
            return exact
        fitting = [pattern for pattern in self.prices if fnmatchcase(model, pattern)]
        return self.prices[max(fitting, key=lambda pattern: (len(pattern), pattern))] if fitting else None


#: Of a policy that does not speak of models: every one is unknown.
NO_MODELS: Final = ModelPolicy()


@dataclass(frozen=True, slots=True)
class ModelAllowed:
    """May be used; `override` when that is an exception. `tier` None: an override let an unknown model through."""

    model: str
    tier: Tier | None
    override: Override | None = None


@dataclass(frozen=True, slots=True)
class ModelRefused:
    """May not be used."""

    model: str
    rule: str
    reason: str


ModelAccess: TypeAlias = ModelAllowed | ModelRefused


@dataclass(frozen=True, slots=True)
class ModelGovernor:
    """Says who may use which model, at one instant. `budgets`: ids of the budgets that the caller is
    charged to and that are for some models only, each with its patterns."""

    policy: ModelPolicy
    now_us: int
    budgets: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def check_access(self, model: str, identity: Payer, risk: Risk) -> ModelAccess:
        """Whether `identity` may use `model` in an action of this risk, and by which exception if by one."""
        override = self._override(model, identity, risk)
        if override is not None and override.effect is OverrideEffect.DENY:
            return ModelRefused(model, f"model:{override.id}", f"{override.reason} (until {iso(override.until_us)})")
        refused = budget_refusal(model, self.budgets)
        if refused is not None:
            return refused
        tier = self.policy.tier_of(model)
        if override is not None:
            return ModelAllowed(model, tier, override)
        if tier is None:
            reason = (
                f"no tier of the policy names {model}: add a pattern for it under models.tiers, or say models.unknown"
            )
            return ModelRefused(model, "model:unknown", reason)
        if not any(entry.tier is tier and entry.whom.covers(identity, risk) for entry in self.policy.access):
            who = ", ".join(f"{part} {name}" for part, name in named(identity).items()) or "a caller without identity"
            reason = f"{model} is {tier}, and models.access does not open that tier to {who} at risk {risk}"
            return ModelRefused(model, f"model:{tier}", reason)
        return ModelAllowed(model, tier)

    def _override(self, model: str, identity: Payer, risk: Risk) -> Override | None:
        """The exception that counts: a denying one before the others, among equals the first."""
        standing = [
            override
            for override in self.policy.overrides
            if override.lasts(self.now_us)
            and (names_model if override.effect is OverrideEffect.DENY else _opens)(override.model, model)
            and override.whom.covers(identity, risk)
        ]
        return min(standing, key=lambda override: override.effect is not OverrideEffect.DENY, default=None)


def _opens(pattern: str, model: str) -> bool:
    return fnmatchcase(model, pattern)


def budget_refusal(model: str, budgets: Iterable[tuple[str, tuple[str, ...]]]) -> ModelRefused | None:
    """The first of `budgets`, each with the patterns of the models that it is for, that is not for this one."""
    for budget_id, patterns in budgets:
        if not any(_opens(pattern, model) for pattern in patterns):
            reason = f"the budget {budget_id} is for {', '.join(patterns) or 'no model'}, and not for {model}"
            return ModelRefused(model, f"budget:{budget_id}", reason)
    return None


def named(payer: Payer) -> dict[str, str]:
    """The parts of an identity that are known, as the trail names them."""
    parts = {"agent": payer.agent, "user": payer.user, "team": payer.team, "org": payer.org}
    return {part: name for part, name in parts.items() if name is not None}
