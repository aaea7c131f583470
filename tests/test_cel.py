"""Conditions in CEL: typed when loaded, and never true by accident."""

import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governance.cel import EXPRESSION_CHARS_MAX, NESTING_MAX, compile_condition
from governance.core.policy import ActionFacts, ConditionError, Risk

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
    arguments={"case_id": "c1", "amount": 12, "urgent": True, "lines": [1, 2], "to": {"iban": "DE1"}, "note": None},
)


@pytest.mark.parametrize(
    ("source", "met"),
    [
        ("true", True),
        ("action.cost_micros > 0", True),
        ("action.cost_micros > 400000", False),
        ("action.tokens == 600", True),
        ("action.name == 'case.refund' && action.name.startsWith('case.')", True),
        ('action.risk in ["high", "critical"]', True),
        ("action.resource == 'customer_case:c1'", True),
        ("action.stream == 'support' && action.agent_id == 'desk-1'", True),
        ("action.user == 'u1' && action.team == 't1' && action.org == 'o1'", True),
        ("args.amount > 10", True),
        ("args['amount'] > 12", False),
        ("args.urgent == true", True),
        ("args.lines.exists(line, line == 2)", True),
        ("args.to.iban.startsWith('DE')", True),
        ("args.note == null", True),
        ("has(args.nope) && args.nope > 1", False),
        ("'amount' in args", True),
        ("size(args) == 6", True),
        ("args.amount == 12 ? action.tokens > 1 : false", True),
        ("action . cost_micros > 0", True),
        ("// a comment about cost\naction.cost_micros > 0", True),
    ],
)
def test_an_expression_sees_the_action_and_its_arguments(source: str, met: bool) -> None:
    assert compile_condition(source)(FACTS) is met


def test_what_an_action_does_not_have_is_empty_text() -> None:
    nobody = replace(FACTS, resource=None, agent_id=None, user=None, team=None, org=None)
    for name in ("resource", "agent_id", "user", "team", "org"):
        assert compile_condition(f"action.{name} == ''")(nobody) is True


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("", "Syntax error"),
        ("   ", "Syntax error"),
        ("(", "column 2: Syntax error"),
        ("action.cost_micros >", "Syntax error"),
        ("true\x00 && false", "Syntax error"),
        ("action.cost > 0", "column 7: undeclared reference to 'action.cost' (an action has name, risk,"),
        ("action.cost > 0 && action.foo == 1", "undeclared reference to 'action.foo'"),
        ("action == 1", "undeclared reference to 'action' (an action has"),
        ("action['cost_micros'] > 0", "undeclared reference to 'action'"),
        ("action.args.amount > 1", "its arguments are in args)"),
        ("has(action.cost)", "undeclared reference"),
        ("cost_micros > 0", "undeclared reference to 'cost_micros'"),
        ("open('/etc/passwd') == ''", "undeclared reference to 'open'"),
        ("action.cost_micros > 'a'", "no matching overload"),
        ("action.user == null", "no matching overload"),
        ("action.cost_micros > 1.5", "no matching overload"),
        ("action.cost_micros", "it gives INT, not BOOL"),
        ("'yes'", "it gives STRING, not BOOL"),
        ("args.urgent", "it gives DYN, not BOOL"),
        ("[true]", "not BOOL"),
        ('action.risk >= "high"', "risks have no order here"),
        ('"high" <= action.risk', "risks have no order here"),
        ("!" * EXPRESSION_CHARS_MAX + "true", f"at most {EXPRESSION_CHARS_MAX}"),
        ("(" * 500 + "true" + ")" * 500, "limit"),
        ("action.name == '\ud800'", "incompatible"),
    ],
)
def test_what_is_not_a_typed_bool_is_refused_at_load(source: str, problem: str) -> None:
    with pytest.raises(ConditionError) as refused:
        compile_condition(source)
    assert problem in refused.value.problem


@pytest.mark.parametrize(
    ("source", "arguments", "problem"),
    [
        ("args.nope > 1", {}, "Key not found"),
        ("args.x > 1", {"x": "text"}, "No matching overload"),
        ("args.x > 1", {"x": None}, "No matching overload"),
        ("!args.x", {"x": 1}, "No matching overload"),
        ("args.x ? true : false", {"x": "text"}, "No matching overload"),
        ("1 / args.x > 1", {"x": 0}, "divide by zero"),
        ("args.x + 1 > 1", {"x": 2**63 - 1}, "overflow"),
        ("args.x == 1", {"x": 1, "y": 2**70}, "out of range"),
        ("args.x == 1", {"x": 1, "y": object()}, "Non-CEL value"),
        ("args.x == 1", {"x": 1, "y": {1, 2}}, "Non-CEL value"),
        ("args.x == 1", {"x": 1, "y": "\ud800"}, ""),
        ("args.x.all(a, args.x.all(b, a + b >= 0))", {"x": list(range(300))}, "Iteration budget"),
        ("args.x[args.i] == 1", {"x": [1], "i": 5}, "Index error"),
        ("args.x[args.k] == 1", {"x": {}, "k": "\x00\n" * 5000}, "Key not found"),
    ],
)
def test_an_evaluation_error_is_never_a_truth(source: str, arguments: dict[str, object], problem: str) -> None:
    condition = compile_condition(source)
    with pytest.raises(ConditionError) as failed:
        condition(replace(FACTS, arguments=arguments))
    assert problem.lower() in failed.value.problem.lower()
    assert failed.value.expression == source
    assert failed.value.problem.isprintable()
    assert len(failed.value.problem) < 400


def test_facts_that_do_not_fit_are_an_evaluation_error() -> None:
    with pytest.raises(ConditionError, match="too big"):
        compile_condition("action.cost_micros > 0")(replace(FACTS, cost_micros=2**63))
    with pytest.raises(ConditionError):
        compile_condition("action.name == 'x'")(replace(FACTS, name="\ud800"))


def nested(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = {}
    for _ in range(depth):
        inner = {"in": inner}
    return {"x": 1, "deep": inner}


def test_arguments_too_deep_for_the_library_are_refused_before_it_sees_them() -> None:
    condition = compile_condition("args.x == 1")
    assert condition(replace(FACTS, arguments=nested(NESTING_MAX - 2))) is True
    for depth in (NESTING_MAX, 200_000):
        with pytest.raises(ConditionError, match="nested deeper"):
            condition(replace(FACTS, arguments=nested(depth)))


def test_an_expression_that_does_not_read_the_arguments_does_not_mind_them() -> None:
    assert compile_condition("action.cost_micros > 0")(replace(FACTS, arguments={"x": object()})) is True


@pytest.mark.parametrize(
    ("value", "source"),
    [
        ((1, 2), "args.x == [1, 2]"),
        ({1: "a", None: "b"}, "args.x['1'] == 'a' && args.x['null'] == 'b'"),
        ({"deep": ({"er": (1,)},)}, "args.x.deep[0].er == [1]"),
        (Risk.HIGH, "args.x == 'high'"),
        (Decimal("1.50"), "args.x == '1.50'"),
        (date(2026, 1, 2), "args.x == '2026-01-02'"),
        (datetime(2026, 1, 2, 3, 4), "args.x.startsWith('2026-01-02')"),  # noqa: DTZ001
        (UUID(int=0), "args.x == '00000000-0000-0000-0000-000000000000'"),
    ],
)
def test_arguments_read_as_their_json_would_after_the_message_travelled(value: object, source: str) -> None:
    assert compile_condition(source)(replace(FACTS, arguments={"x": value})) is True


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["x", "y", "z"]), json_values))
def test_whatever_the_arguments_it_is_a_bool_or_an_error(arguments: dict[str, object]) -> None:
    facts = replace(FACTS, arguments=arguments)
    for source in ("args.x > 1", "args.x == args.y", "args.x.exists(i, i == 1) || has(args.z)"):
        try:
            met: object = compile_condition(source)(facts)
        except ConditionError:
            continue
        assert met is True or met is False


def test_conditions_are_equal_when_their_source_is() -> None:
    assert compile_condition("true") == compile_condition("true")
    assert compile_condition("true") != compile_condition("false")
    assert len({compile_condition("true"), compile_condition("true")}) == 1


def test_a_compiled_condition_may_be_used_by_any_thread() -> None:
    condition = compile_condition("args.amount > action.tokens && action.user.startsWith('u')")

    def ask(number: int) -> bool:
        facts = replace(FACTS, tokens=number % 7, arguments={"amount": number % 5})
        return condition(facts) is (number % 5 > number % 7)

    with ThreadPoolExecutor(max_workers=8) as threads:
        assert all(threads.map(ask, range(4000)))


def test_a_compiled_condition_may_be_used_after_a_fork_also_beside_busy_threads() -> None:
    """In a process of its own: a worker compiles in its main process, and the pool's children evaluate."""
    script = textwrap.dedent("""
        import os, sys, threading
        from dataclasses import replace
        from governance.cel import compile_condition
        from governance.core.policy import ActionFacts, Risk

        facts = ActionFacts("a", Risk.LOW, None, "s", None, "u", None, None, 1, 1, {"amount": 2})
        above, user = compile_condition("args.amount > 1"), compile_condition("action.user == 'u'")
        fails = compile_condition("args.nope > 1")
        stop = threading.Event()

        def ask():
            assert above(facts) and user(facts) and not above(replace(facts, arguments={"amount": 1}))
            try:
                fails(facts)
            except Exception as error:
                assert type(error).__name__ == "ConditionError"
            else:
                raise AssertionError("an error passed for a truth")

        def busy():
            while not stop.is_set():
                ask()
                compile_condition("args.amount > 3")

        threads = [threading.Thread(target=busy) for _ in range(3)]
        for thread in threads:
            thread.start()
        children = []
        for _ in range(12):
            child = os.fork()
            if not child:
                try:
                    for _ in range(300):
                        ask()
                    compile_condition("args.amount > 2")
                    os._exit(0)
                except BaseException:
                    os._exit(1)
            children.append(child)
        codes = [os.waitpid(child, 0)[1] for child in children]
        stop.set()
        sys.exit(any(codes))
    """)
    done = subprocess.run([sys.executable, "-c", script], timeout=120, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
