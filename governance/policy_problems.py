"""What is wrong with a policy file, in its author's words: line, key path, what was expected and what was found."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, TypeAlias

from pydantic import BaseModel, ValidationError

from governance.core.policy import DEFAULT_STREAM, NO_RULE, Effect
from governance.policy_model import PolicyModel
from governance.policy_model.budgets import BudgetModel, IdentityModel
from governance.policy_model.models import AccessModel, ModelsModel, OverrideModel, PricesModel, TiersModel, WhomModel
from governance.policy_model.rules import (
    AllowModel,
    AnyRule,
    ApprovalModel,
    ApprovalTermsModel,
    DenyModel,
    MatchModel,
    SteerModel,
)
from governance.policy_model.streams import LimitsModel, StreamModel
from governance.yaml_document import Document, Path, Problem

Error: TypeAlias = Mapping[str, Any]

_RULES: Final[Mapping[str, type[BaseModel]]] = {
    Effect.ALLOW: AllowModel,
    Effect.STEER: SteerModel,
    Effect.APPROVAL: ApprovalModel,
    Effect.DENY: DenyModel,
}
_EFFECTS: Final = ", ".join(_RULES)

# pydantic's word -> ours.
_EXPECTED: Final[Mapping[str, str]] = {
    "string_type": "text",
    "string_too_short": "some text",
    "string_too_long": "at most {max_length} characters",
    "string_pattern_mismatch": "a name of at most 100 letters, digits and . _ : / - that starts with a letter or digit",
    "int_type": "a whole number",
    "greater_than_equal": "{ge} or more",
    "less_than_equal": "at most {le}",
    "enum": "one of {expected}",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}

_WHY: Final[Mapping[str, str]] = {
    "match": ", a rule about every action says so with {}",
    "reason": ", a rule that denies says why",
    "guidance": ", a rule that steers says what to do instead",
    "identity": ", a budget says whose it is, such as {org: acme}",
    "limits": ", a stream without limits says so with {}",
    "until": ", an override ends",
}


def policy_problems(document: Document, invalid: ValidationError | None) -> list[str]:
    """Every problem of a document that is a mapping, in the order of its lines."""
    problems = document.problems + _across(document)
    known = {problem.path for problem in problems}
    for error in _errors(document, invalid):
        problem = _problem(document, error)
        if problem.path not in known:
            problems.append(problem)
    return [str(problem) for problem in sorted(problems, key=lambda problem: problem.line)]


def first_problem(invalid: ValidationError) -> tuple[str, str]:
    """The key and the words of the first error of something that is in no document."""
    error = invalid.errors(include_url=False)[0]
    return ".".join(map(str, error["loc"])), _words(error)


def _across(document: Document) -> list[Problem]:
    """What can only be said about the file as a whole."""
    problems = []
    content = document.value if isinstance(document.value, dict) else {}
    streams = content.get("streams")
    if isinstance(streams, dict) and DEFAULT_STREAM not in streams:
        text = f"the stream {DEFAULT_STREAM!r} is missing: it is the plan of every stream that is not named here"
        problems.append(Problem(document.line_of(("streams",)), ("streams",), text))
    return problems + _ids(document, "rules", "rule") + _ids(document, "budgets", "budget")


def _ids(document: Document, key: str, noun: str) -> list[Problem]:
    """Ids that are taken, by rules or by budgets."""
    problems = []
    items = document.value.get(key) if isinstance(document.value, dict) else None
    first_line: dict[str, int] = {}
    for index, item in enumerate(items if isinstance(items, list) else ()):
        name = item.get("id") if isinstance(item, dict) else None
        if not isinstance(name, str):
            continue
        path = (key, index, "id")
        line = document.line_of(path)
        if name in first_line:
            problems.append(Problem(line, path, f"the id {name!r} is taken by the {noun} on line {first_line[name]}"))
        elif name == NO_RULE:
            problems.append(Problem(line, path, f"the id {NO_RULE!r} means that no rule decided, choose another"))
        first_line.setdefault(name, line)
    return problems


def _errors(document: Document, invalid: ValidationError | None) -> list[Error]:
    """pydantic's errors, with those of the rules that it gave up on because it could not tell their effect."""
    errors: list[Error] = []
    for error in invalid.errors(include_url=False) if invalid else ():
        errors.append(error)
        if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
            try:
                AnyRule.model_validate(error["input"])
            except ValidationError as rule:
                inner = rule.errors(include_url=False)
                errors += [{**found, "loc": (*error["loc"], "any", *found["loc"])} for found in inner]
    return errors


def _problem(document: Document, error: Error) -> Problem:
    path: Path = tuple(error["loc"])
    if path[:1] == ("rules",) and len(path) > 2:
        path = path[:2] + path[3:]  # without the effect, by which pydantic chose the rule's model
    kind, found = error["type"], error["input"]
    match kind:
        case "missing":
            return Problem(document.line_of(path), path, f"this key is missing{_WHY.get(str(path[-1]), '')}")
        case "union_tag_not_found":
            path = (*path, "effect")
            return Problem(document.line_of(path), path, f"this key is missing, expected one of {_EFFECTS}")
        case "union_tag_invalid":
            path = (*path, "effect")
            text = f"expected one of {_EFFECTS}, got {_shown(found['effect'])}"
            return Problem(document.line_of(path), path, text)
        case "extra_forbidden":
            return Problem(document.line_of(path), path, f"unknown key, expected one of {_keys(error['loc'])}")
        case _:
            path = document.nearest(path)
            return Problem(document.line_of(path), path, f"{_words(error)}, got {_shown(found)}")


def _words(error: Error) -> str:
    """What was expected, in our words."""
    kind, context = error["type"], error.get("ctx", {})
    match kind:
        case "value_error":
            return str(context["error"])
        case _ if kind in _EXPECTED:
            return f"expected {_EXPECTED[kind].format(**context)}"
        case _:
            return str(error["msg"])


def _keys(loc: Path) -> str:
    """The keys that are known where an unknown one was found."""
    return ", ".join(_model(loc[:-1]).model_fields)


def _model(place: Path) -> type[BaseModel]:
    match place:
        case ("streams", _):
            return StreamModel
        case ("streams", _, "limits"):
            return LimitsModel
        case ("budgets", _):
            return BudgetModel
        case ("budgets", _, "identity"):
            return IdentityModel
        case ("rules", _, str(effect)):
            return _RULES.get(effect, AnyRule)
        case ("rules", _, _, "match"):
            return MatchModel
        case ("rules", _, _, "approval"):
            return ApprovalTermsModel
        case ("models",):
            return ModelsModel
        case ("models", "tiers"):
            return TiersModel
        case ("models", "access", _):
            return AccessModel
        case ("models", "overrides", _):
            return OverrideModel
        case ("models", "access" | "overrides", _, "match"):
            return WhomModel
        case ("models", "prices", _):
            return PricesModel
        case _:
            return PolicyModel


def _shown(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f"{value!r:.80}"
        case Decimal() | int():
            return f"{value!s:.80}"
        case list() | tuple():
            return "a list"
        case dict():
            return "a mapping"
        case None:
            return "nothing"
        case _:
            return f"a {type(value).__name__}"
