"""Rules say exactly which actions they are about."""

from dataclasses import replace

import pytest

from governance.core.approvals import one_level
from governance.core.rules import ActionFacts, Effect, Match, Risk, Rule

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
NOBODY = replace(FACTS, resource=None, agent_id=None, user=None, team=None, org=None)


@pytest.mark.parametrize(
    ("match", "mismatch"),
    [
        (Match(), None),
        (Match(action=("case.refund",)), None),
        (Match(action=("case.*",)), None),
        (Match(action=("mail.*", "*.refund")), None),
        (Match(action=("case.ref[aeiou]nd", "x")), None),
        (Match(action=("case.refun?",)), None),
        (Match(action=("*",)), None),
        (Match(action=("Case.*",)), "action"),
        (Match(action=("case",)), "action"),
        (Match(action=("refund",)), "action"),
        (Match(action=("case.refund.now",)), "action"),
        (Match(action=("case?",)), "action"),
        (Match(action=()), "action"),
        (Match(risk=frozenset({Risk.HIGH, Risk.CRITICAL})), None),
        (Match(risk=frozenset({Risk.LOW})), "risk"),
        (Match(stream=("supp*",)), None),
        (Match(stream=("default",)), "stream"),
        (Match(agent=("desk-?",)), None),
        (Match(agent=("desk",)), "agent"),
        (Match(resource=("customer_case:*",)), None),
        (Match(resource=("invoice:*",)), "resource"),
        (Match(user=("u1",)), None),
        (Match(user=("u2",)), "user"),
        (Match(team=("t1",)), None),
        (Match(team=("t2",)), "team"),
        (Match(org=("o1",)), None),
        (Match(org=("o2",)), "org"),
        (Match(action=("case.*",), risk=frozenset({Risk.HIGH}), org=("o2",)), "org"),
        (Match(action=("mail.*",), org=("o2",)), "action"),
    ],
)
def test_every_part_of_a_match_must_match(match: Match, mismatch: str | None) -> None:
    assert match.mismatch(FACTS) == mismatch


@pytest.mark.parametrize(
    ("part", "match"),
    [
        ("agent", Match(agent=("*",))),
        ("resource", Match(resource=("*",))),
        ("user", Match(user=("*",))),
        ("team", Match(team=("*",))),
        ("org", Match(org=("*",))),
    ],
)
def test_what_an_action_does_not_have_matches_no_pattern(part: str, match: Match) -> None:
    assert match.mismatch(FACTS) is None
    assert match.mismatch(NOBODY) == part


def test_a_name_with_line_breaks_is_matched_as_a_whole() -> None:
    assert Match(action=("case.refund",)).mismatch(replace(FACTS, name="case.refund\n")) == "action"
    assert Match(action=("case.refun?",)).mismatch(replace(FACTS, name="case.refund\n")) == "action"
    assert Match(action=("case.*",)).mismatch(replace(FACTS, name="case.\nrefund")) is None


def test_matches_compare_and_hash_by_what_they_say() -> None:
    assert Match(action=("a*",)) == Match(action=("a*",))
    assert len({Match(action=("a*",)), Match(action=("a*",)), Match(action=("b*",))}) == 2
    assert "_tests" not in repr(Match())


def test_a_rule_has_the_terms_of_its_effect_and_no_other() -> None:
    with pytest.raises(ValueError, match="approval"):
        Rule("r", Match(), None, Effect.APPROVAL, "why")
    with pytest.raises(ValueError, match="approval"):
        Rule("r", Match(), None, Effect.ALLOW, "why", approval=one_level(1))
    with pytest.raises(ValueError, match="guidance"):
        Rule("r", Match(), None, Effect.STEER, "why")
    with pytest.raises(ValueError, match="guidance"):
        Rule("r", Match(), None, Effect.DENY, "why", guidance="x")
