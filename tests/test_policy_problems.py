"""Everything that is wrong with a policy file is told at once, where its author finds it."""

from typing import get_args

import pytest

from governance.errors import PolicyInvalid
from governance.policy_file import parse_policy
from governance.policy_model.rules import AnyRule, RuleModel


def problems_of(text: str) -> list[str]:
    with pytest.raises(PolicyInvalid) as refused:
        parse_policy(text, path="policy.yaml")
    assert refused.value.path == "policy.yaml"
    assert str(refused.value).startswith("the policy policy.yaml is refused as a whole, nothing of it was loaded:\n")
    return refused.value.problems


def with_rules(*lines: str) -> str:
    head = 'version: 1\nstreams:\n  default: {window: 1h, timezone: UTC, limits: {cost_usd: "1.00"}}\nrules:\n'
    return head + "".join(f"  {line}\n" for line in lines)


def with_stream(text: str) -> str:
    return f"version: 1\nrules: []\nstreams:\n  default: {text}\n"


STREAM_PROBLEMS = [
    ("{window: 7h, limits: {}}", "window: expected a length that divides a day, such as 15m, 1h, 4h or 1d, got '7h'"),
    ("{window: 2d, limits: {}}", "window: expected a length that divides a day"),
    ("{window: 0s, limits: {}}", "window: expected a duration such as 90s, 15m, 1h or 1d, got '0s'"),
    ("{window: 1w, limits: {}}", "window: expected a duration"),
    ("{window: 60, limits: {}}", "window: expected a duration such as 90s, 15m, 1h or 1d, got 60"),
    ("{window: 1.5h, limits: {}}", "window: expected a duration"),
    ("{window: -1h, limits: {}}", "window: expected a duration"),
    ('{window: "٣h", limits: {}}', "window: expected a duration"),
    ("{window: h, limits: {}}", "window: expected a duration"),
    ('{window: "", limits: {}}', "window: expected a duration"),
    ("{window: [1h], limits: {}}", "window: expected a duration such as 90s, 15m, 1h or 1d, got a list"),
    ("{limits: {}}", "window: this key is missing"),
    ("{window: 1h}", "limits: this key is missing, a stream without limits says so with {}"),
    ("{window: 1h, limits: 5}", "limits: expected a mapping, got 5"),
    ("{window: 1h, timezone: Mars/Base, limits: {}}", "timezone: expected an IANA time zone"),
    ("{window: 1h, timezone: America, limits: {}}", "timezone: expected an IANA time zone"),
    ("{window: 1h, timezone: ../../etc/passwd, limits: {}}", "timezone: expected an IANA time zone"),
    ("{window: 1h, timezone: 5, limits: {}}", "timezone: expected text, got 5"),
    (
        "{window: 1h, limits: {}, on_exhausted: wait}",
        "on_exhausted: expected one of 'deny', 'defer' or 'stop', got 'wait'",
    ),
    (
        "{window: 1h, limits: {}, colour: red}",
        "colour: unknown key, expected one of window, timezone, limits,",
    ),
    ("{window: 1h, limits: {}, stripes: 0}", "stripes: "),
    ("{window: 1h, limits: {}, stripes: 65}", "stripes: "),
    ('{window: 1h, limits: {}, stripes: "4"}', "stripes: "),
    ("{window: 1h, limits: {cost_usd: -1}}", "limits.cost_usd: expected 0 or more USD, got -1"),
    ("{window: 1h, limits: {cost_usd: .nan}}", "limits.cost_usd: expected a finite amount"),
    ("{window: 1h, limits: {cost_usd: -.inf}}", "limits.cost_usd: expected a finite amount"),
    ("{window: 1h, limits: {cost_usd: cheap}}", "limits.cost_usd: expected USD as plain decimal text"),
    ("{window: 1h, limits: {cost_usd: 0.0000001}}", "limits.cost_usd: expected at most 6 decimals"),
    ("{window: 1h, limits: {cost_usd: 1e99999}}", "limits.cost_usd: expected at most $1000000000.00"),
    ("{window: 1h, limits: {cost_usd: true}}", "limits.cost_usd: expected USD as plain decimal text"),
    ("{window: 1h, limits: {cost_usd: }}", "limits.cost_usd: it is empty: give it a value, or leave the key out"),
    ("{window: 1h, limits: {cost_usd: ~}}", "limits.cost_usd: it is empty"),
    ("{window: 1h, limits: {cost_usd: 0x10}}", "limits.cost_usd: write the number in plain decimal digits"),
    ("{window: 1h, limits: {cost_usd: !!float five}}", "limits.cost_usd: this is not a decimal number"),
    ("{window: 1h, limits: {actions: -1}}", "limits.actions: expected 0 or more, got -1"),
    ("{window: 1h, limits: {actions: 1.0}}", "limits.actions: expected a whole number, got 1.0"),
    ('{window: 1h, limits: {actions: "5"}}', "limits.actions: expected a whole number, got '5'"),
    ("{window: 1h, limits: {actions: true}}", "limits.actions: expected a whole number, got true"),
    ("{window: 1h, limits: {actions: 010}}", "limits.actions: write the number in plain decimal digits"),
    ("{window: 1h, limits: {actions: " + "9" * 5000 + "}}", "limits.actions: write the number in plain decimal digits"),
    ("{window: 1h, limits: {actions: 99999999999999}}", "limits.actions: expected at most 1000000000000"),
    ("{window: 1h, limits: {tokens: 1e3}}", "limits.tokens: expected a whole number of tokens"),
    ("{window: 1h, limits: {tokens: -5}}", "limits.tokens: expected 0 or more tokens"),
    ("{window: 1h, limits: {dollars: 5}}", "limits.dollars: unknown key, expected one of cost_usd, actions, tokens"),
]


BUDGET_PROBLEMS = [
    ("{id: tokens, identity: {org: a}, period: daily, max_tokens: 1}", ".id: the id 'tokens' means a session's own"),
    ('{id: "a:b", identity: {org: a}, period: daily, max_tokens: 1}', ".id: expected an id without : and /"),
    ("{id: b, identity: {org: a}, period: dayly, max_tokens: 1}", ".period: expected one of 'daily', 'weekly',"),
    ("{id: b, identity: {org: a}, max_tokens: 1}", ".period: this key is missing"),
    ("{id: b, period: daily, max_tokens: 1}", ".identity: this key is missing, a budget says whose it is"),
    ("{id: b, identity: {}, period: daily, max_tokens: 1}", ".identity: expected at least one of user, team, org,"),
    ("{id: b, identity: {usr: a}, period: daily, max_tokens: 1}", ".identity.usr: unknown key, expected one of user,"),
    ("{id: b, identity: {org: 5}, period: daily, max_tokens: 1}", ".identity.org: expected text, got 5"),
    ("{id: b, identity: {org: a}, period: daily}", ": expected at least one of max_tokens, max_cost_usd and"),
    ("{id: b, identity: {org: a}, period: daily, max_tokens: -1}", ".max_tokens: expected 0 or more tokens, got -1"),
    ("{id: b, identity: {org: a}, period: daily, max_cost_usd: cheap}", ".max_cost_usd: expected USD as plain decimal"),
    ("{id: b, identity: {org: a}, period: daily, allowed_models: []}", ".allowed_models: expected at least one"),
    ("{id: b, identity: {org: a}, period: daily, max_tokens: 1, soft: [80, 50]}", ".soft: expected percents that rise"),
    ("{id: b, identity: {org: a}, period: daily, max_tokens: 1, soft: [101]}", ".soft[0]: expected at most 100"),
    ("{id: b, identity: {org: a}, period: daily, max_tokens: 1, timezone: Mars}", ".timezone: expected an IANA"),
    ("{id: b, identity: {org: a}, period: daily, max_tokens: 1, stripes: 0}", ".stripes: expected 1 or more, got 0"),
    ("{id: b, identity: {org: a}, period: daily, max_tokens: 1, on_exhausted: no}", ".on_exhausted: expected one of"),
    (
        "{id: b, identity: {org: a}, period: unlimited, max_tokens: 1, on_exhausted: defer}",
        ": on_exhausted: defer waits for the next window, and an unlimited period has none",
    ),
    (
        "{id: b, identity: {org: a, user: b}, period: daily, max_tokens: 1, on_exhausted: stop}",
        ": on_exhausted: stop stops whom the budget is about: expected an identity of one key",
    ),
    ("5", ": expected a mapping, got 5"),
]


@pytest.mark.parametrize(("budget", "problem"), BUDGET_PROBLEMS, ids=[problem for _, problem in BUDGET_PROBLEMS])
def test_a_budget_that_is_not_understood_is_refused(budget: str, problem: str) -> None:
    (found,) = problems_of(with_rules().replace("rules:\n", "rules: []\n") + f"budgets:\n  - {budget}\n")
    assert found.startswith(f"line 6, budgets[0]{problem}")


def test_two_budgets_do_not_share_an_id() -> None:
    one = "  - {id: b, identity: {org: a}, period: daily, max_tokens: 1}\n"
    (found,) = problems_of(with_rules().replace("rules:\n", "rules: []\n") + "budgets:\n" + one + one)
    assert found == "line 7, budgets[1].id: the id 'b' is taken by the budget on line 6"


def test_a_stream_cannot_park() -> None:
    (found,) = problems_of(with_stream("{window: 1h, limits: {}, on_exhausted: park}"))
    assert "expected one of 'deny', 'defer' or 'stop', got 'park'" in found


@pytest.mark.parametrize(("stream", "problem"), STREAM_PROBLEMS, ids=[problem for _, problem in STREAM_PROBLEMS])
def test_a_stream_that_is_not_understood_is_refused(stream: str, problem: str) -> None:
    (found,) = problems_of(with_stream(stream))
    assert found.startswith(f"line 4, streams.default.{problem}")
    assert len(found) < 300


RULE_PROBLEMS = [
    ("{id: r, match: {}, effect: deny}", ".reason: this key is missing, a rule that denies says why"),
    ('{id: r, match: {}, effect: deny, reason: ""}', ".reason: expected some text, got ''"),
    ('{id: r, match: {}, effect: deny, reason: "  "}', ".reason: expected some text"),
    ("{id: r, match: {}, effect: deny, reason: 5}", ".reason: expected text, got 5"),
    ("{id: r, match: {}, effect: deny, reason: " + "x" * 1001 + "}", ".reason: expected at most 1000 characters"),
    ('{id: r, match: {}, effect: deny, reason: "a\\0b"}', ".reason: the character U+0000 is not accepted in text"),
    ('{id: r, match: {}, effect: deny, reason: "\\ud800"}', ".reason: the character U+D800 is not accepted in text"),
    ("{id: r, match: {}}", ".effect: this key is missing, expected one of allow, steer, approval, deny"),
    ("{id: r, match: {}, effect: permit}", ".effect: expected one of allow, steer, approval, deny, got 'permit'"),
    ("{id: r, match: {}, effect: Deny}", ".effect: expected one of allow, steer, approval, deny, got 'Deny'"),
    ("{id: r, match: {}, effect: 1}", ".effect: expected one of allow, steer, approval, deny, got 1"),
    ("{match: {}, effect: allow}", ".id: this key is missing"),
    ("{id: 5, match: {}, effect: allow}", ".id: expected text, got 5"),
    ("{id: 'a b', match: {}, effect: allow}", ".id: expected a name of"),
    ('{id: "a\\n", match: {}, effect: allow}', ".id: expected a name of"),
    ("{id: '', match: {}, effect: allow}", ".id: expected a name of"),
    ("{id: no-rule-matches, match: {}, effect: allow}", ".id: the id 'no-rule-matches' means that no rule decided"),
    ("{id: r, effect: allow}", ".match: this key is missing, a rule about every action says so with {}"),
    ("{id: r, match: , effect: allow}", ".match: it is empty"),
    ("{id: r, match: case, effect: allow}", ".match: expected a mapping, got 'case'"),
    ("{id: r, match: {colour: red}, effect: allow}", ".match.colour: unknown key, expected one of action, risk,"),
    ("{id: r, match: {risk: hgih}, effect: allow}", ".match.risk: expected one of 'low', 'medium', 'high' or"),
    ("{id: r, match: {risk: [low, hgih]}, effect: allow}", ".match.risk[1]: expected one of"),
    ("{id: r, match: {risk: HIGH}, effect: allow}", ".match.risk: expected one of"),
    ("{id: r, match: {risk: []}, effect: allow}", ".match.risk: expected at least one, got a list"),
    ("{id: r, match: {action: []}, effect: allow}", ".match.action: expected at least one"),
    ('{id: r, match: {action: ""}, effect: allow}', ".match.action: expected some text"),
    ("{id: r, match: {action: [a, 5]}, effect: allow}", ".match.action[1]: expected text, got 5"),
    ("{id: r, match: {action: [a, ~]}, effect: allow}", ".match.action[1]: it is empty"),
    ("{id: r, match: {action: {a: b}}, effect: allow}", ".match.action: expected text, got a mapping"),
    ("{id: r, match: {}, effect: approval}", ".approval: this key is missing"),
    (
        "{id: r, match: {}, effect: approval, approval: {}}",
        ".approval: expected either timeout or chain, got a mapping",
    ),
    ("{id: r, match: {}, effect: approval, approval: 15m}", ".approval: expected a mapping, got '15m'"),
    ("{id: r, match: {}, effect: approval, approval: {timeout: soon}}", ".approval.timeout: expected a duration"),
    ("{id: r, match: {}, effect: approval, approval: {timeout: 400d}}", ".approval.timeout: expected at most 366d"),
    ("{id: r, match: {}, effect: approval, approval: {timeout: 1h, by: bob}}", ".approval.by: unknown key, expected"),
    ("{id: r, match: {}, effect: allow, approval: {timeout: 1h}}", ".approval: unknown key, expected one of"),
    ("{id: r, match: {}, effect: allow, guidance: x}", ".guidance: unknown key"),
    ("{id: r, match: {}, effect: steer}", ".guidance: this key is missing, a rule that steers says"),
    ("{id: r, match: {}, effect: steer, guidance: x, suggest: []}", ".suggest: expected at least one"),
    ("{id: r, match: {}, effect: allow, when: action.cost > 0}", ".when: column 7: undeclared reference to"),
    ("{id: r, match: {}, effect: allow, when: action.tokens}", ".when: it gives INT, not BOOL"),
    ("{id: r, match: {}, effect: allow, when: args.urgent}", ".when: it gives DYN, not BOOL"),
    ("{id: r, match: {}, effect: allow, when: 'action.tokens >'}", ".when: column 16: Syntax error"),
    ("{id: r, match: {}, effect: allow, when: ''}", ".when: column 1: Syntax error"),
    ("{id: r, match: {}, effect: allow, when: true}", ".when: expected a CEL expression as text, got true"),
    ("{id: r, match: {}, effect: allow, when: }", ".when: it is empty"),
    ("{id: r, match: {}, effect: allow, when: " + "1" * 2001 + "<1}", ".when: it has 2003 characters, at most 2000"),
    ("{id: r, match: {}, effect: allow, effect: deny, reason: x}", ".effect: this key is here twice, first on line 5"),
    ("{id: r, match: {risk: low, risk: high}, effect: allow}", ".match.risk: this key is here twice"),
    ("{id: r, match: {}, effect: allow, 1: x}", ": a key has to be text, quote it: '1'"),
    ("{id: r, match: {}, effect: allow, [a]: x}", ": a key has to be text"),
    ("{id: r, match: {}, effect: allow, reason: !!python/name:os.system x}", ".reason: the tag"),
    ("{id: r, match: {}, effect: allow, reason: !secret x}", ".reason: the tag !secret is not accepted"),
    ("{id: r, match: !!set {}, effect: allow}", ".match: the tag tag:yaml.org,2002:set is not accepted"),
    ("allow everything", ": expected a mapping, got 'allow everything'"),
]


@pytest.mark.parametrize(("rule", "problem"), RULE_PROBLEMS, ids=[problem for _, problem in RULE_PROBLEMS])
def test_a_rule_that_is_not_understood_is_refused(rule: str, problem: str) -> None:
    (found,) = problems_of(with_rules(f"- {rule}"))
    assert found.startswith(f"line 5, rules[0]{problem}")
    assert len(found) < 400


@pytest.mark.parametrize(
    ("effect", "problem"),
    [
        ("", "effect: this key is missing, expected one of allow, steer, approval, deny"),
        ("effect: ster, ", "effect: expected one of allow, steer, approval, deny, got 'ster'"),
    ],
)
def test_a_rule_without_a_known_effect_has_its_unknown_keys_named(effect: str, problem: str) -> None:
    keys = f"{effect}efect: steer, guidance: x, suggest: [y], approval: {{timeout: 1h}}, match: {{colour: red}}"
    told = problems_of(with_rules(f"- {{id: r, {keys}}}"))
    assert {line.removeprefix("line 5, rules[0].") for line in told} == {
        problem,
        "efect: unknown key, expected one of id, match, when, reason, effect, guidance, suggest, approval",
        "match.colour: unknown key, expected one of action, risk, stream, agent, resource, user, team, org, model",
    }


def test_a_rule_without_a_known_effect_may_have_what_any_rule_has() -> None:
    every = {key for model in get_args(RuleModel) for key in model.model_fields}
    assert set(AnyRule.model_fields) == every


FILE_PROBLEMS = [
    ("", ["line 1: it is empty: expected a mapping with version, streams and rules"]),
    ("# only a comment\n", ["line 1: it is empty"]),
    ("- 1\n", ["line 1: it is not a mapping"]),
    ("allow everything\n", ["line 1: it is not a mapping"]),
    ("null\n", ["line 1: it is empty"]),
    ("{}\n", ["line 1, version: this", "line 1, streams: this", "line 1, rules: this"]),
    ("version: 1\nrules: [\n", ["line 3: while parsing a flow node"]),
    ("version: 1\n  rules: []\n", ["line 2: mapping values are not allowed here"]),
    ("a: 1\n---\nb: 2\n", ["line 2: expected a single document in the stream"]),
    ("a: *nowhere\n", ["line 1: found undefined alias 'nowhere'"]),
    ("version: 1\n\nstreams: \x01\n", ["line 3: a character that YAML does not accept"]),
    ("a: " + "[" * 5000 + "]" * 5000, ["line 1: it is nested too deeply"]),
    (
        "version: 2\nstreams: {}\nrules: []\n",
        ["line 1, version: expected 1", "line 2, streams: the stream 'default' is missing"],
    ),
    (
        "version: true\nstreams: 1\nrules: 2\n",
        ["line 1, version: expected 1", "line 2, streams: expected a mapping", "line 3, rules: expected a list"],
    ),
    (
        "version: 1.0\nstreams: []\nrules: {}\n",
        ["line 1, version: expected 1", "line 2, streams: expected a mapping", "line 3, rules: expected a list"],
    ),
    (
        'version: "1"\nstreams: \nrules: \n',
        ["line 1, version: expected 1", "line 2, streams: it is empty", "line 3, rules: it is empty"],
    ),
]


@pytest.mark.parametrize(("text", "expected"), FILE_PROBLEMS)
def test_a_file_that_is_no_policy_is_refused(text: str, expected: list[str]) -> None:
    found = problems_of(text)
    assert len(found) == len(expected)
    for problem, start in zip(found, expected, strict=True):
        assert problem.startswith(start)


def test_every_problem_is_told_at_once_in_the_order_of_the_lines() -> None:
    text = """\
version: 1
streams:
  support: {window: 7h, timezone: Mars/Base, limits: {cost_usd: -1}}
  "not a name": {window: 1h, limits: {}}
rules:
  - id: a
    match: {risk: [low, huge]}
    effect: allow
    effect: deny
    when: action.cost > 0
  - id: a
    match:
      colour: red
    effect: dney
    when: 1 + 1
  - {id: b, match: {}, effect: deny}
extra: &anchor [1]
more: *anchor
"""
    assert [problem.partition(":")[0] for problem in problems_of(text)] == [
        "line 2, streams",
        "line 3, streams.support.window",
        "line 3, streams.support.timezone",
        "line 3, streams.support.limits.cost_usd",
        "line 4, streams.not a name",
        "line 7, rules[0].match.risk[1]",
        "line 9, rules[0].effect",
        "line 10, rules[0].when",
        "line 11, rules[1].id",
        "line 13, rules[1].match.colour",
        "line 14, rules[1].effect",
        "line 15, rules[1].when",
        "line 16, rules[2].reason",
        "line 17, extra",
        "line 18, more",
    ]


def test_a_duplicate_rule_id_names_the_first() -> None:
    rule = "- {id: twin, match: {}, effect: allow}"
    assert problems_of(with_rules(rule, rule)) == ["line 6, rules[1].id: the id 'twin' is taken by the rule on line 5"]


def test_an_alias_is_refused_where_it_stands_even_one_of_itself() -> None:
    first, second = "- {id: a, match: &m {risk: low}, effect: allow}", "- {id: b, match: *m, effect: allow}"
    assert problems_of(with_rules(first, second)) == [
        "line 6, rules[1].match: aliases (*name) are not accepted, write it out"
    ]
    endless = problems_of(with_rules("- &r {id: a, match: {action: &p [*p]}, effect: allow}"))
    assert endless == ["line 5, rules[0].match.action[0]: aliases (*name) are not accepted, write it out"]


def test_a_duplicate_key_at_the_top_does_not_hide_the_rest() -> None:
    found = problems_of(with_rules("- {id: r, match: {}, effect: no}") + "rules: []\n")
    assert [problem.partition(":")[0] for problem in found] == ["line 5, rules[0].effect", "line 6, rules"]


MODEL_PROBLEMS = [
    ("{tiers: {cheap: [a]}}", "models.tiers.cheap: unknown key, expected one of standard, premium, restricted"),
    ("{tiers: {standard: []}}", "models.tiers.standard: expected at least one, got a list"),
    ("{access: [{tier: standard}]}", "models.access[0].match: this key is missing"),
    ("{access: [{tier: cheap, match: {}}]}", "models.access[0].tier: expected one of"),
    (
        "{access: [{tier: standard, match: {model: m}}]}",
        "models.access[0].match.model: unknown key, expected one of user",
    ),
    ("{unknown: maybe}", "models.unknown: "),
    (
        "{overrides: [{id: a, match: {}, model: m, effect: allow, reason: r}]}",
        "models.overrides[0].until: this key is missing, an override ends",
    ),
    (
        "{overrides: [{id: a, match: {}, model: m, effect: allow, reason: r, until: 2030-01-01}]}",
        "models.overrides[0].until: expected an instant with its zone such as 2030-01-31T18:00:00Z, got '2030-01-01'",
    ),
    ("{overrides: [{id: a, match: {}, model: m, effect: allow, until: x}]}", "models.overrides[0].reason: this key"),
    ('{prices: {"m": {input: "1"}}}', "models.prices.m.output: this key is missing"),
    ('{prices: {"m": {input: "1", output: -1}}}', "models.prices.m.output: expected 0 or more USD, got -1"),
    ("{colour: red}", "models.colour: unknown key, expected one of tiers, access, overrides, unknown, prices"),
]


@pytest.mark.parametrize(("text", "expected"), MODEL_PROBLEMS)
def test_what_is_wrong_with_models_is_said_with_its_line(text: str, expected: str) -> None:
    problems = problems_of(with_rules("[]").replace("rules:\n  []\n", f"rules: []\nmodels: {text}\n"))
    assert any(problem.startswith("line 5, ") and expected in problem for problem in problems), problems
