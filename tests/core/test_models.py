"""Who may use which model, and what a call costs."""

from dataclasses import replace

import pytest

from governance.core.budgets import Payer
from governance.core.models import (
    NO_MODELS,
    Access,
    ModelAllowed,
    ModelGovernor,
    ModelPolicy,
    ModelRefused,
    Override,
    OverrideEffect,
    Tier,
    Whom,
)
from governance.core.prices import TokensUsed, UnitPrices
from governance.core.rules import Risk

NOW_US = 1_000_000
PRICES = UnitPrices(input=1_000_000, cached=500_000, output=4_000_000, table="test")
POLICY = ModelPolicy(
    tiers={Tier.STANDARD: ("small-*", "both-*"), Tier.PREMIUM: ("large-*",), Tier.RESTRICTED: ("secret", "both-*")},
    access=(
        Access(Tier.STANDARD, Whom()),
        Access(Tier.PREMIUM, Whom(team=("t1", "ops-*"), risk=frozenset({Risk.LOW, Risk.MEDIUM}))),
        Access(Tier.RESTRICTED, Whom(org=("o1",), agent=("desk-?",))),
    ),
    prices={"small-1": PRICES, "small-*": replace(PRICES, input=1), "*": replace(PRICES, input=2)},
)


def payer(**parts: str) -> Payer:
    return replace(Payer(None, None, None, None, "default"), **parts)


def asked(
    model: str, risk: Risk = Risk.LOW, policy: ModelPolicy = POLICY, **caller: str
) -> ModelAllowed | ModelRefused:
    return ModelGovernor(policy, NOW_US).check_access(model, payer(**caller), risk)


def override(**changes: object) -> Override:
    base = Override("trial", Whom(user=("u1",)), "secret*", OverrideEffect.ALLOW, "a trial", NOW_US + 1)
    return replace(base, **changes)  # type: ignore[arg-type]


def test_a_tier_is_open_to_whom_it_is_given_and_to_nobody_else() -> None:
    assert asked("small-1") == ModelAllowed("small-1", Tier.STANDARD)
    assert asked("large-1", team="t1") == ModelAllowed("large-1", Tier.PREMIUM)
    assert asked("large-1", team="ops-9") == ModelAllowed("large-1", Tier.PREMIUM)
    for refused in (asked("large-1"), asked("large-1", team="t2"), asked("large-1", Risk.HIGH, team="t1")):
        assert isinstance(refused, ModelRefused)
        assert refused.rule == "model:premium"
    assert "team t2 at risk low" in asked("large-1", team="t2").reason  # type: ignore[union-attr]
    # Every part that is given has to match.
    assert isinstance(asked("secret", org="o1"), ModelRefused)
    assert isinstance(asked("secret", org="o1", agent="desk-1"), ModelAllowed)


def test_the_strictest_tier_that_names_a_model_counts() -> None:
    assert POLICY.tier_of("both-1") is Tier.RESTRICTED
    assert isinstance(asked("both-1"), ModelRefused)


def test_an_unknown_model_is_refused_unless_the_policy_says_its_tier() -> None:
    refused = asked("other")
    assert isinstance(refused, ModelRefused)
    assert refused.rule == "model:unknown"
    assert isinstance(asked("small-1", policy=NO_MODELS), ModelRefused)
    assert asked("other", policy=replace(POLICY, unknown=Tier.STANDARD)) == ModelAllowed("other", Tier.STANDARD)
    assert isinstance(asked("other", policy=replace(POLICY, unknown=Tier.PREMIUM)), ModelRefused)
    # A name that looks like another one is another one, for whatever opens.
    assert isinstance(asked("Small-1"), ModelRefused)


def test_another_case_is_no_way_round_what_forbids() -> None:
    every = replace(POLICY, tiers={**POLICY.tiers, Tier.STANDARD: ("*",)})
    assert asked("small-1", policy=every) == ModelAllowed("small-1", Tier.STANDARD)
    for name, tier in {"SECRET": "restricted", "Large-1": "premium"}.items():
        refused = asked(name, policy=every)
        assert isinstance(refused, ModelRefused)
        assert refused.rule == f"model:{tier}"
    never = override(id="never", model="small-*", effect=OverrideEffect.DENY)
    assert asked("SMALL-1", policy=replace(every, overrides=(never,)), user="u1").rule == "model:never"  # type: ignore[union-attr]
    assert isinstance(asked("SECRET", policy=replace(every, overrides=(override(),)), user="u1"), ModelRefused)


def test_an_override_lasts_until_its_end_and_is_named() -> None:
    trial = override()
    with_trial = replace(POLICY, overrides=(trial,))
    assert asked("secret", policy=with_trial, user="u1") == ModelAllowed("secret", Tier.RESTRICTED, trial)
    assert isinstance(asked("secret", policy=with_trial, user="u2"), ModelRefused)
    assert isinstance(
        asked("secret", policy=replace(POLICY, overrides=(override(until_us=NOW_US),)), user="u1"), ModelRefused
    )
    anything = replace(POLICY, overrides=(override(model="*"),))
    unknown = asked("other", policy=anything, user="u1")
    assert isinstance(unknown, ModelAllowed)
    assert unknown.tier is None


def test_a_denying_override_counts_before_an_allowing_one_and_before_the_tier() -> None:
    never = override(id="never", model="small-*", effect=OverrideEffect.DENY, reason="it leaks")
    policy = replace(POLICY, overrides=(override(model="*"), never))
    refused = asked("small-1", policy=policy, user="u1")
    assert isinstance(refused, ModelRefused)
    assert refused.rule == "model:never"
    assert "it leaks" in refused.reason
    assert isinstance(asked("small-1", policy=policy, user="u2"), ModelAllowed)


def test_a_budget_is_for_the_models_it_names_whatever_overrides_say() -> None:
    policy = replace(POLICY, overrides=(override(model="*"),))
    governor = ModelGovernor(policy, NOW_US, (("team-daily", ("small-*",)),))
    assert isinstance(governor.check_access("small-1", payer(user="u1"), Risk.LOW), ModelAllowed)
    refused = governor.check_access("large-1", payer(user="u1"), Risk.LOW)
    assert isinstance(refused, ModelRefused)
    assert refused.rule == "budget:team-daily"


def test_the_operators_price_is_the_nearest_name() -> None:
    assert POLICY.price_of("small-1") is PRICES
    assert POLICY.price_of("small-2") == replace(PRICES, input=1)
    assert POLICY.price_of("large-1") == replace(PRICES, input=2)
    assert NO_MODELS.price_of("small-1") is None


@pytest.mark.parametrize(
    ("used", "cost_micros"),
    [
        (TokensUsed(1, 0), 1),
        (TokensUsed(0, 0), 0),
        (TokensUsed(1, 0, cached=1), 1),
        (TokensUsed(1000, 100, cached=400), 600 + 200 + 400),
        (TokensUsed(10, 0, cached=99), 5),
        # Without a price of its own, what is written costs what other input does.
        (TokensUsed(1000, 0, cached=400, written=600), 800),
    ],
)
def test_a_cost_is_rounded_up(used: TokensUsed, cost_micros: int) -> None:
    assert PRICES.cost_micros(used) == cost_micros


def test_what_fits_costs_no_more_than_what_is_there() -> None:
    for room in (0, 99, 100, 101, 103, 104, 5000):
        fits = PRICES.output_within(room, 100)
        assert fits is not None
        assert fits == 0 or PRICES.cost_micros(TokensUsed(100, fits)) <= room
        assert PRICES.cost_micros(TokensUsed(100, fits + 1)) > room
    assert replace(PRICES, output=0).output_within(100, 100) is None


def test_before_it_is_known_what_the_cache_takes_the_dearest_price_counts() -> None:
    written = replace(PRICES, written=1_250_000)
    assert written.cost_micros(TokensUsed(1000, 100, cached=400, written=200)) == 400 + 200 + 250 + 400
    assert written.cost_micros_max(TokensUsed(1000, 100)) == 1250 + 400
    assert written.output_within(1250 + 400, 1000) == 100
    assert PRICES.cost_micros_max(TokensUsed(1000, 100)) == PRICES.cost_micros(TokensUsed(1000, 100))
    assert not TokensUsed(10, 5, cached=6, written=6).is_plausible
