"""The policy file is taken as a whole or refused as a whole, with every problem where its author finds it."""

import json
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from governance.cel import EXPRESSION_CHARS_MAX, compile_condition
from governance.core.approvals import one_level
from governance.core.plans import Limits, OnExhausted, StreamPlan
from governance.core.policy import (
    NO_RULE,
    ActionFacts,
    Allow,
    Deny,
    Effect,
    Match,
    Park,
    Policy,
    Risk,
    Rule,
    Steer,
    decide,
)
from governance.core.windows import DAY_US, WindowPlan
from governance.errors import PolicyInvalid
from governance.policy_file import TEXT_BYTES_MAX, canonical, load_policy, parse_policy, read_policy

HOUR_US = 3_600_000_000
SHIPPED = Path(__file__).parents[1] / "policy.yaml"
FACTS = ActionFacts("case.refund", Risk.HIGH, None, "support", None, None, None, None, 400_000, 600, {})

GOOD = """\
# a comment
version: 1
streams:
  default: {window: 1h, timezone: UTC, limits: {cost_usd: "15.00", actions: 30, tokens: 200000}}
  support:
    window: 1d
    timezone: Europe/Berlin
    limits: {cost_usd: 0.10}
    on_exhausted: defer
    stripes: 16
rules:
  - {id: never, match: {action: "account.*", risk: critical}, effect: deny, reason: "no way"}
  - {id: refunds, match: {action: case.refund}, when: "action.cost_micros > 0", effect: approval,
     approval: {timeout: 15m}}
  - {id: routine, match: {risk: [low, medium]}, effect: allow}
  - {id: bulk, match: {action: mail.bulk}, effect: steer, guidance: "Answer the case instead.", suggest: [case.reply]}
  - id: all-parts
    match:
      action: [a, b*]
      risk: high
      stream: support
      agent: desk-*
      resource: ["case:*", "customer:*"]
      user: u1
      team: t1
      org: o1
    effect: deny
    reason: >
      in two
      lines
"""


def with_rules(*lines: str) -> str:
    head = 'version: 1\nstreams:\n  default: {window: 1h, timezone: UTC, limits: {cost_usd: "1.00"}}\nrules:\n'
    return head + "".join(f"  {line}\n" for line in lines)


def with_stream(text: str) -> str:
    return f"version: 1\nrules: []\nstreams:\n  default: {text}\n"


def test_a_file_becomes_streams_and_rules() -> None:
    policy = parse_policy(GOOD)
    assert policy.version == 1
    assert dict(policy.streams) == {
        "default": StreamPlan(WindowPlan(HOUR_US, "UTC"), Limits(15_000_000, 30, 200_000), OnExhausted.DENY),
        "support": StreamPlan(WindowPlan(DAY_US, "Europe/Berlin"), Limits(100_000), OnExhausted.DEFER, stripes=16),
    }
    assert [rule.id for rule in policy.rules] == ["never", "refunds", "routine", "bulk", "all-parts"]
    never, refunds, routine, bulk, all_parts = policy.rules
    assert never == Rule("never", Match(("account.*",), frozenset({Risk.CRITICAL})), None, Effect.DENY, "no way")
    assert refunds.approval == one_level(15 * 60 * 1_000_000)
    assert refunds.condition is not None
    assert refunds.reason == "rule refunds wants a person to approve it"
    assert routine.match == Match(risk=frozenset({Risk.LOW, Risk.MEDIUM}))
    assert routine.reason == "rule routine allows it"
    assert (bulk.guidance, bulk.suggest) == ("Answer the case instead.", ("case.reply",))
    assert all_parts.reason == "in two lines"
    assert all_parts.match == Match(
        action=("a", "b*"),
        risk=frozenset({Risk.HIGH}),
        stream=("support",),
        agent=("desk-*",),
        resource=("case:*", "customer:*"),
        user=("u1",),
        team=("t1",),
        org=("o1",),
    )


def test_what_a_file_says_is_decided() -> None:
    policy = parse_policy(GOOD)
    assert decide(policy, FACTS) == Park("refunds", "rule refunds wants a person to approve it", one_level(900_000_000))
    assert decide(policy, replace(FACTS, cost_micros=0)).rule == NO_RULE
    assert decide(policy, replace(FACTS, name="x", risk=Risk.LOW)) == Allow("routine", "rule routine allows it")
    assert isinstance(decide(policy, replace(FACTS, name="mail.bulk", risk=Risk.LOW)), Steer)
    assert decide(policy, replace(FACTS, name="account.close", risk=Risk.CRITICAL)) == Deny("never", "no way")


def test_an_evaluation_error_in_a_condition_denies() -> None:
    policy = parse_policy(with_rules("- {id: r, match: {}, when: args.amount < 100, effect: allow}"))
    assert decide(policy, replace(FACTS, arguments={"amount": 99})) == Allow("r", "rule r allows it")
    assert decide(policy, replace(FACTS, arguments={"amount": 100})).rule == NO_RULE
    for arguments in ({}, {"amount": "99"}, {"amount": None}):
        verdict = decide(policy, replace(FACTS, arguments=arguments))
        assert isinstance(verdict, Deny)
        assert verdict.rule == "r"
        assert "could not be evaluated" in verdict.reason
        assert "args.amount < 100" in verdict.reason


@pytest.mark.parametrize(
    ("written", "length_us"),
    [("90s", 90_000_000), ("15m", 900_000_000), ("4h", 4 * HOUR_US), ("24h", DAY_US), ("1d", DAY_US)],
)
def test_durations(written: str, length_us: int) -> None:
    policy = parse_policy(with_stream(f"{{window: {written}, limits: {{}}}}"))
    assert policy.plan_for("x").window == WindowPlan(length_us, "UTC")


@pytest.mark.parametrize(
    ("written", "micros"),
    [
        ('"15.00"', 15_000_000),
        ("15.00", 15_000_000),
        ("15", 15_000_000),
        ("0", 0),
        ("0.1", 100_000),
        ("0.000001", 1),
        ("999999999.999999", 999_999_999_999_999),
        ("1.5e1", 15_000_000),
    ],
)
def test_money_is_what_was_written(written: str, micros: int) -> None:
    policy = parse_policy(with_stream(f"{{window: 1h, limits: {{cost_usd: {written}}}}}"))
    assert policy.plan_for("x").limits == Limits(cost_micros=micros)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    def problem(path: Path) -> str:
        with pytest.raises(PolicyInvalid) as refused:
            load_policy(path)
        assert refused.value.path == str(path)
        (found,) = refused.value.problems
        return found

    assert problem(tmp_path / "missing.yaml") == "the file cannot be read: No such file or directory"
    assert problem(tmp_path) == "the file cannot be read: Is a directory"
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"version: 1\nstreams: \xff\n")
    assert problem(binary) == "line 2: byte 20 is not UTF-8 text"
    huge = tmp_path / "huge.yaml"
    huge.write_bytes(b"#" * (TEXT_BYTES_MAX + 1))
    assert problem(huge) == f"the file is larger than {TEXT_BYTES_MAX} bytes"


def test_a_file_is_loaded_also_with_a_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load_policy(file).hash == load_policy(str(file)).hash == parse_policy(GOOD).hash
    assert canonical(read_policy(file)) == canonical(GOOD)


def test_the_hash_names_the_content_not_the_way_it_is_written() -> None:
    policy = parse_policy(GOOD)
    assert len(policy.hash) == 64
    for before, after in (
        ("# a comment\n", "\n\n# another\n"),
        ("1h", "60m"),
        ('"15.00"', "15"),
        ("risk: critical", "risk: [critical]"),
        ("0.10", '"0.1"'),
        (", timezone: UTC", ""),
        ("1h, timezone: UTC", "1h, on_exhausted: deny, timezone: UTC"),
        ('"action.cost_micros > 0"', "action.cost_micros > 0 "),
        ("window: 1d\n    timezone: Europe/Berlin\n", "timezone: Europe/Berlin\n    window: 24h\n"),
    ):
        assert before in GOOD
        assert parse_policy(GOOD.replace(before, after, 1)).hash == policy.hash
    for before, after in (("1h", "30m"), ("15.00", "15.01"), ("case.refund", "case.refunds"), ("no way", "No way")):
        assert parse_policy(GOOD.replace(before, after, 1)).hash != policy.hash


def test_the_order_of_rules_is_content_and_that_of_streams_is_not() -> None:
    first, second = "- {id: a, match: {}, effect: allow}", "- {id: b, match: {}, effect: allow}"
    assert parse_policy(with_rules(first, second)).hash != parse_policy(with_rules(second, first)).hash
    swapped = json.loads(canonical(GOOD))
    swapped["streams"] = dict(reversed(swapped["streams"].items()))
    assert parse_policy(json.dumps(swapped)).hash == parse_policy(GOOD).hash


def same(kept: Policy, policy: Policy) -> bool:
    return (kept.hash, kept.streams, kept.rules) == (policy.hash, policy.streams, policy.rules)


@pytest.mark.parametrize("text", [GOOD, SHIPPED.read_text(), with_stream("{window: 1h, limits: {}}")])
def test_a_kept_version_is_loaded_again_as_the_same(text: str) -> None:
    kept = canonical(text)
    assert json.loads(kept)
    assert canonical(kept) == kept
    assert same(parse_policy(kept), parse_policy(text))


printable = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=200).filter(str.strip)


@settings(deadline=None)
@example("a\u2028b\u2029c", "\ufeff \U0001f600 é", ["\uffff", "\u2028"])
@given(printable, printable, st.lists(printable, min_size=1, max_size=3))
def test_any_text_survives_being_kept(reason: str, guidance: str, patterns: list[str]) -> None:
    rules = [
        {"id": "a", "match": {"action": patterns, "user": patterns[0]}, "effect": "deny", "reason": reason},
        {"id": "b", "match": {}, "effect": "steer", "guidance": guidance, "suggest": patterns},
    ]
    streams = {"default": {"window": "1h", "limits": {}}}
    # YAML knows no surrogate pairs, which is how json writes what is beyond 16 bits unless it is told not to.
    text = json.dumps({"version": 1, "streams": streams, "rules": rules}, ensure_ascii=False)
    for separator in "\u2028\u2029\ufeff\ufffe\uffff":  # line breaks, marks or nothing to YAML
        text = text.replace(separator, f"\\u{ord(separator):04x}")
    policy = parse_policy(text)
    assert policy.rules[0].reason == reason.strip()
    assert policy.rules[0].match.action == tuple(patterns)
    assert policy.rules[1].guidance == guidance.strip()
    assert same(parse_policy(canonical(text)), policy)


def test_the_longest_condition_survives_being_kept() -> None:
    condition = "action.tokens > 0" + "||true".rjust(EXPRESSION_CHARS_MAX - 17)
    text = with_rules(f"- {{id: r, match: {{}}, effect: allow, when: '{condition}'}}")
    assert same(parse_policy(canonical(text)), parse_policy(text))
    assert parse_policy(text).rules[0].condition == compile_condition(condition)


def verdict(policy: Policy, name: str, risk: Risk, cost_micros: int = 0) -> object:
    return decide(policy, replace(FACTS, name=name, risk=risk, cost_micros=cost_micros))


def test_the_shipped_policy_decides_the_desk() -> None:
    policy = load_policy(SHIPPED)
    assert set(policy.streams) == {"default", "support"}
    assert policy.plan_for("support").on_exhausted is OnExhausted.DEFER
    for name, risk, cost_micros, expected, rule in (
        ("case.reply", Risk.LOW, 4_000, Allow, "routine"),
        ("case.reply", Risk.MEDIUM, 4_000, Allow, "routine"),
        ("case.refund", Risk.HIGH, 20_000, Park, "refunds-need-a-person"),
        ("case.refund", Risk.HIGH, 0, Park, "refunds-need-a-person"),
        ("case.refund", Risk.LOW, 1, Park, "refunds-need-a-person"),
        ("case.refund", Risk.CRITICAL, 1, Deny, "critical-needs-hands"),
        ("case.export", Risk.HIGH, 0, Park, "high-risk-needs-a-person"),
        ("account.close", Risk.CRITICAL, 0, Deny, "never-close-accounts"),
        ("ledger.wipe", Risk.CRITICAL, 0, Deny, "critical-needs-hands"),
        ("mail.bulk", Risk.LOW, 0, Steer, "no-bulk-mail"),
        ("mail.bulk", Risk.HIGH, 0, Park, "high-risk-needs-a-person"),
    ):
        found = verdict(policy, name, risk, cost_micros)
        assert isinstance(found, expected)
        assert found.rule == rule


@settings(deadline=None)
@given(st.text(max_size=30), st.sampled_from([Risk.HIGH, Risk.CRITICAL]), st.integers(0, 10**12))
def test_no_shipped_policy_allows_an_action_of_high_risk(name: str, risk: Risk, cost_micros: int) -> None:
    for policy in SHIPPED_POLICIES:
        assert isinstance(verdict(policy, name, risk, cost_micros), Park | Deny)


def test_the_packaged_default_has_limits_and_asks_for_a_person() -> None:
    policy = SHIPPED_POLICIES[1]
    plan = policy.plan_for("anything")
    assert plan == StreamPlan(WindowPlan(HOUR_US, "UTC"), Limits(15_000_000, 1000, 2_000_000), OnExhausted.DENY)
    assert isinstance(verdict(policy, "x", Risk.LOW), Allow)
    assert isinstance(verdict(policy, "x", Risk.MEDIUM), Allow)
    assert verdict(policy, "x", Risk.HIGH) == Park(
        "high-risk-needs-a-person", "a high-risk action waits for a person", one_level(900_000_000)
    )
    assert isinstance(verdict(policy, "x", Risk.CRITICAL), Deny)


SHIPPED_POLICIES = (
    load_policy(SHIPPED),
    parse_policy(resources.files("governance").joinpath("default_policy.yaml").read_text(encoding="utf-8")),
)
