"""The strictest rule that applies wins, and nothing is allowed by omission or by accident."""

from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governance.core.approvals import one_level
from governance.core.plans import Limits, OnExhausted, StreamPlan
from governance.core.policy import (
    NO_RULE,
    ActionFacts,
    Allow,
    Applies,
    ConditionError,
    ConditionResult,
    Deny,
    Effect,
    Failed,
    Match,
    Mismatched,
    Park,
    Policy,
    Risk,
    Rule,
    Steer,
    Unmet,
    Verdict,
    decide,
    explain,
)
from governance.core.rules import STRICTNESS, Condition
from governance.core.windows import DAY_US, WindowPlan

PLAN = StreamPlan(WindowPlan(DAY_US, "UTC"), Limits())
FACTS = ActionFacts(
    name="case.refund",
    risk=Risk.HIGH,
    resource="customer_case:c1",
    stream="support",
    agent_id="desk-1",
    user="u1",
    team="t1",
    org="o1",
    cost_micros=400_000,
    tokens=600,
    arguments={"case_id": "c1"},
)


def true(facts: ActionFacts) -> bool:
    return True


def false(facts: ActionFacts) -> bool:
    return False


def unevaluable(facts: ActionFacts) -> bool:
    raise ConditionError("args.nope > 1", "no such key: nope")


def broken(facts: ActionFacts) -> bool:
    raise ZeroDivisionError("division by zero")


def truthy(facts: ActionFacts) -> bool:
    return "an error, which is truthy"  # type: ignore[return-value]


def falsy(facts: ActionFacts) -> bool:
    return None  # type: ignore[return-value]


FAILING: tuple[Condition, ...] = (unevaluable, broken, truthy, falsy)


def rule(name: str, effect: Effect, match: Match | None = None, condition: Condition | None = None) -> Rule:
    return Rule(
        id=name,
        match=match or Match(),
        condition=condition,
        effect=effect,
        reason=f"because of {name}",
        approval=one_level(900_000_000) if effect is Effect.APPROVAL else None,
        guidance="do that instead" if effect is Effect.STEER else None,
        suggest=("case.reply",) if effect is Effect.STEER else (),
    )


def policy(*rules: Rule) -> Policy:
    return Policy("hash", 1, MappingProxyType({"default": PLAN}), rules)


@pytest.mark.parametrize(
    ("effect", "verdict"),
    [
        (Effect.ALLOW, Allow("r", "because of r")),
        (Effect.STEER, Steer("r", "because of r", "do that instead", ("case.reply",))),
        (Effect.APPROVAL, Park("r", "because of r", one_level(900_000_000))),
        (Effect.DENY, Deny("r", "because of r")),
    ],
)
def test_each_effect_has_its_verdict(effect: Effect, verdict: Verdict) -> None:
    assert decide(policy(rule("r", effect)), FACTS) == verdict


def test_strictness_is_deny_approval_steer_allow() -> None:
    assert STRICTNESS == (Effect.DENY, Effect.APPROVAL, Effect.STEER, Effect.ALLOW)
    for stricter, laxer in pairwise(STRICTNESS):
        for order in ((stricter, laxer), (laxer, stricter)):
            assert decide(policy(*(rule(effect, effect) for effect in order)), FACTS).rule == stricter


def test_among_equally_strict_rules_the_first_in_the_file_wins() -> None:
    rules = [rule("allow", Effect.ALLOW), rule("first", Effect.DENY), rule("second", Effect.DENY)]
    assert decide(policy(*rules), FACTS).rule == "first"


def test_an_action_without_a_rule_is_denied_and_told_what_to_do() -> None:
    for rules in ((), (rule("r", Effect.ALLOW, Match(action=("mail.*",))),), (rule("r", Effect.ALLOW, None, false),)):
        verdict = decide(policy(*rules), FACTS)
        assert verdict == Deny(NO_RULE, "no rule of the policy allows case.refund at risk high: add a rule that does")


@pytest.mark.parametrize("condition", FAILING)
@pytest.mark.parametrize("effect", list(Effect))
def test_a_condition_that_fails_denies_whatever_its_rule_does(effect: Effect, condition: Condition) -> None:
    rules = policy(rule("allow-all", Effect.ALLOW), rule("conditional", effect, None, condition))
    verdict = decide(rules, FACTS)
    assert isinstance(verdict, Deny)
    assert verdict.rule == "conditional"
    assert "the condition of rule conditional could not be evaluated" in verdict.reason


def test_the_reason_names_the_expression_and_its_problem() -> None:
    verdict = decide(policy(rule("r", Effect.ALLOW, None, unevaluable)), FACTS)
    assert verdict.reason.endswith("could not be evaluated: no such key: nope, in `args.nope > 1`")


def test_a_failing_condition_of_a_rule_about_other_actions_does_not_matter() -> None:
    rules = policy(rule("other", Effect.DENY, Match(action=("mail.*",)), broken), rule("allow", Effect.ALLOW))
    assert decide(rules, FACTS) == Allow("allow", "because of allow")


def test_a_stream_without_a_plan_has_the_default_one() -> None:
    support = replace(PLAN, on_exhausted=OnExhausted.DEFER)
    both = Policy("hash", 1, {"default": PLAN, "support": support}, ())
    assert both.plan_for("support") is support
    assert both.plan_for("another") is PLAN
    assert both.plan_for("default") is PLAN
    with pytest.raises(ValueError, match="default"):
        Policy("hash", 1, {"support": support}, ())


def test_an_explanation_says_what_became_of_every_rule() -> None:
    explanation = explain(
        policy(
            rule("mail", Effect.DENY, Match(action=("mail.*",)), true),
            rule("plain", Effect.ALLOW),
            rule("unmet", Effect.DENY, None, false),
            rule("decides", Effect.APPROVAL, None, true),
            rule("also", Effect.APPROVAL),
        ),
        FACTS,
    )
    assert explanation.verdict == Park("decides", "because of decides", one_level(900_000_000))
    told = [(found.rule.id, found.outcome, found.condition, found.decided) for found in explanation.findings]
    assert told == [
        ("mail", Mismatched("action"), ConditionResult.NOT_EVALUATED, False),
        ("plain", Applies(), ConditionResult.ABSENT, False),
        ("unmet", Unmet(), ConditionResult.FALSE, False),
        ("decides", Applies(), ConditionResult.TRUE, True),
        ("also", Applies(), ConditionResult.ABSENT, False),
    ]


def test_an_explanation_shows_the_evaluation_error_that_decided() -> None:
    explanation = explain(policy(rule("allow", Effect.ALLOW), rule("odd", Effect.ALLOW, None, unevaluable)), FACTS)
    assert explanation.verdict.rule == "odd"
    odd = explanation.findings[1]
    assert odd.outcome == Failed("no such key: nope, in `args.nope > 1`")
    assert odd.condition is ConditionResult.ERROR
    assert odd.decided


names = st.sampled_from(["case.refund", "case.reply", "mail.bulk", "account.close"])
globs = st.sampled_from(["case.*", "*.refund", "mail.bulk", "*", "account.?lose", "nothing"])
matches = st.builds(
    Match,
    action=st.none() | st.lists(globs, min_size=1, max_size=2).map(tuple),
    risk=st.none() | st.frozensets(st.sampled_from(Risk), min_size=1),
    user=st.none() | st.just(("u1",)) | st.just(("u*", "v")),
)
conditions: st.SearchStrategy[Condition | None] = st.sampled_from([None, None, None, true, true, false, *FAILING])
facts_ = st.builds(
    replace,
    st.just(FACTS),
    name=names,
    risk=st.sampled_from(Risk),
    user=st.sampled_from([None, "u1", "x"]),
)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    count = draw(st.integers(0, 7))
    return policy(
        *(rule(f"r{n}", draw(st.sampled_from(Effect)), draw(matches), draw(conditions)) for n in range(count))
    )


def strictness(verdict: Verdict) -> int:
    return (Deny, Park, Steer, Allow).index(type(verdict))


@settings(deadline=None)
@given(policies(), facts_)
def test_decide_and_explain_never_disagree(rules: Policy, facts: ActionFacts) -> None:
    explanation = explain(rules, facts)
    assert decide(rules, facts) == explanation.verdict
    assert [found.rule for found in explanation.findings] == list(rules.rules)
    decided = [found.rule.id for found in explanation.findings if found.decided]
    assert decided == ([] if explanation.verdict.rule == NO_RULE else [explanation.verdict.rule])


@settings(deadline=None)
@given(policies(), facts_)
def test_the_verdict_is_that_of_the_plain_definition(rules: Policy, facts: ActionFacts) -> None:
    applying: list[tuple[int, int, str]] = []
    for index, one in enumerate(rules.rules):
        if one.match.mismatch(facts) is None and one.condition is not false:
            effect = Effect.DENY if one.condition in FAILING else one.effect
            applying.append((STRICTNESS.index(effect), index, one.id))
    verdict = decide(rules, facts)
    if not applying:
        assert verdict.rule == NO_RULE
        assert isinstance(verdict, Deny)
    else:
        rank, _, name = min(applying)
        assert (strictness(verdict), verdict.rule) == (rank, name)


@settings(deadline=None)
@given(policies(), facts_)
def test_what_is_allowed_has_a_rule_that_allows_it_and_none_that_fails(rules: Policy, facts: ActionFacts) -> None:
    if isinstance(decide(rules, facts), Allow):
        outcomes = [(found.rule.effect, found.outcome) for found in explain(rules, facts).findings]
        assert (Effect.ALLOW, Applies()) in outcomes
        assert not any(isinstance(outcome, Failed) for _, outcome in outcomes)
        assert all(effect is Effect.ALLOW for effect, outcome in outcomes if outcome == Applies())


@settings(deadline=None)
@given(policies(), policies(), facts_)
def test_more_rules_never_loosen_what_a_rule_decided(some: Policy, more: Policy, facts: ActionFacts) -> None:
    before = decide(some, facts)
    if before.rule != NO_RULE:
        extra = [replace(one, id=f"more-{one.id}") for one in more.rules]
        assert strictness(decide(policy(*extra, *some.rules), facts)) <= strictness(before)
