"""Conditions of rules, written in CEL: compiled and typed when a policy is loaded, evaluated at each decision.

An expression sees `action.name`, `.risk`, `.resource`, `.stream`, `.agent_id`, `.user`, `.team`, `.org`, `.model`
(text, empty when the action has none), `action.cost_micros`, `action.tokens` (integers) and `args`, the arguments by
name. Each `action.` field is a variable of its own, so that a misspelt one is refused when the policy is loaded.

The library reports a failed evaluation as a value, and that value is truthy: only a result of type BOOL counts here.
A compiled condition may be used by any thread, and in processes forked after it was compiled.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, time
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from cel_expr_python import cel

from governance.core.policy import ActionFacts, ConditionError

#: A longer condition belongs into several rules.
EXPRESSION_CHARS_MAX: Final = 2000

#: Deeper arguments are not evaluated: the library recurses on the C stack, and overflowing that kills the worker.
NESTING_MAX: Final = 100

_PROBLEM_CHARS_MAX: Final = 300

_TEXT: Final[Mapping[str, Callable[[ActionFacts], str | None]]] = {
    "action.name": lambda facts: facts.name,
    "action.risk": lambda facts: str(facts.risk),
    "action.resource": lambda facts: facts.resource,
    "action.stream": lambda facts: facts.stream,
    "action.agent_id": lambda facts: facts.agent_id,
    "action.user": lambda facts: facts.user,
    "action.team": lambda facts: facts.team,
    "action.org": lambda facts: facts.org,
    "action.model": lambda facts: facts.model,
}
_NUMBERS: Final[Mapping[str, Callable[[ActionFacts], int]]] = {
    "action.cost_micros": lambda facts: facts.cost_micros,
    "action.tokens": lambda facts: facts.tokens,
}
_ARGUMENTS: Final = "args"

_TYPES: Final = {
    **dict.fromkeys(_TEXT, cel.Type.STRING),
    **dict.fromkeys(_NUMBERS, cel.Type.INT),
    _ARGUMENTS: cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
}

_PROBLEM: Final = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")
_UNDECLARED_FIELD: Final = re.compile(r"undeclared reference to 'action(\.|')")
# Risks are words, and "critical" comes before "high" in the alphabet: an ordering would not say what it reads.
_RISK_ORDERED: Final = re.compile(r"action\s*\.\s*risk\s*[<>]|[<>]=?\s*action\s*\.\s*risk\b")


@dataclass(frozen=True, slots=True)
class CelCondition:
    """A compiled condition; equal to any other of the same source."""

    source: str
    _expression: Any = field(repr=False, compare=False)
    _variables: tuple[str, ...] = field(repr=False, compare=False)

    def __call__(self, facts: ActionFacts) -> bool:
        """Whether the condition holds. Raises ConditionError for whatever is not a plain true or false."""
        try:
            result = self._expression.eval(data={name: _value(name, facts) for name in self._variables})
            if result.type() == cel.Type.BOOL:
                return result.value() is True
            problem = str(result.value())
        except Exception as error:  # the library raises RuntimeError for what it cannot convert or finish
            problem = str(error)
        raise ConditionError(self.source, _printable(problem))


def compile_condition(source: str) -> CelCondition:
    """Compiles and types `source`. Raises ConditionError unless it is an expression that gives a bool."""
    if len(source) > EXPRESSION_CHARS_MAX:
        raise ConditionError(
            source[:60] + "…", f"it has {len(source)} characters, at most {EXPRESSION_CHARS_MAX} are accepted"
        )
    if _RISK_ORDERED.search(source):
        raise ConditionError(source, 'risks have no order here: write action.risk in ["high", "critical"]')
    try:
        expression = _environment().compile(source)
    except Exception as error:  # RuntimeError for what it refuses, TypeError for text that is not Unicode
        raise ConditionError(source, _compile_problem(str(error))) from None
    if expression.return_type() != cel.Type.BOOL:
        raise ConditionError(
            source, f"it gives {expression.return_type()}, not BOOL: compare it with something, such as x == true"
        )
    return CelCondition(source, expression, tuple(name for name in _TYPES if _may_name(source, name)))


@lru_cache(maxsize=1)
def _environment() -> Any:
    return cel.NewEnv(variables=_TYPES)


def _may_name(source: str, variable: str) -> bool:
    """Whether an expression may read a variable. Only those are handed over: converting arguments costs time."""
    return variable.rpartition(".")[2] in source


def _value(variable: str, facts: ActionFacts) -> object:
    if variable == _ARGUMENTS:
        return {name: _plain(value, NESTING_MAX) for name, value in facts.arguments.items()}
    if variable in _NUMBERS:
        return _NUMBERS[variable](facts)
    return _TEXT[variable](facts) or ""


def _plain(value: object, depth: int) -> object:
    """An argument as its JSON would give it back, so that a rule says the same before and after the message travelled.

    What JSON carries as text (decimals, dates, UUIDs) is text. Anything else is left for the library to refuse.
    """
    if depth == 0:
        raise ValueError(f"the arguments are nested deeper than {NESTING_MAX}")
    match value:
        case None | bool() | float():
            return value
        case str():
            return str.__str__(value)
        case int():
            return int(value)
        case Mapping():
            return {
                key if isinstance(key, str) else json.dumps(key): _plain(item, depth - 1) for key, item in value.items()
            }
        case list() | tuple():
            return [_plain(item, depth - 1) for item in value]
        case Decimal() | date() | time() | UUID():
            return str(value)
        case _:
            return value


def _printable(problem: str) -> str:
    """A problem as it may be written into a row and a log line: it can quote an argument, of any length and content."""
    shown = problem if len(problem) <= _PROBLEM_CHARS_MAX else problem[:_PROBLEM_CHARS_MAX] + "…"
    return "".join(char if char.isprintable() else "?" for char in shown)


def _compile_problem(message: str) -> str:
    found = [f"column {column}: {problem}" for _, column, problem in _PROBLEM.findall(message)]
    text = ("; ".join(found) or message.splitlines()[0]).replace(" (in container '')", "")
    if _UNDECLARED_FIELD.search(text):
        known = ", ".join(name.rpartition(".")[2] for name in (*_TEXT, *_NUMBERS))
        text += f" (an action has {known}; its arguments are in args)"
    return text
