"""The policy file: what people write, checked as a whole and turned into a core Policy, or refused with every problem.

    version: 1
    streams:
      default: {window: 1h, timezone: UTC, limits: {cost_usd: "15.00", actions: 1000, tokens: 2000000}}
    rules:
      - {id: refunds, match: {action: case.refund}, when: "action.cost_micros > 0", effect: approval,
         approval: {timeout: 15m}}
      - {id: routine, match: {risk: [low, medium]}, effect: allow}
    budgets:
      - {id: org-month, identity: {org: acme}, period: monthly, max_cost_usd: "500.00", on_exhausted: defer}

A version is named by the hash of its canonical text, the parsed content as sorted JSON: comments, formatting and other
ways to write the same value do not change it. Canonical text is itself a policy file, with the same hash. Keys that say
the default are left out of it, so that a key that a later release adds does not rename the versions that were kept.
"""

import json
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pydantic import ValidationError

from governance.core.budgets import TokenBudgetConfig
from governance.core.digest import sha256
from governance.core.models import NO_MODELS, Access, ModelPolicy, Override, Tier, Whom
from governance.core.plans import Limits, StreamPlan
from governance.core.policy import Effect, Match, Policy, Rule
from governance.core.prices import UnitPrices
from governance.core.windows import WindowPlan
from governance.errors import InvalidOption, PolicyInvalid
from governance.policy_model import PolicyModel
from governance.policy_model.budgets import BudgetModel
from governance.policy_model.models import ModelsModel, WhomModel
from governance.policy_model.rules import ApprovalModel, MatchModel, RuleModel, SteerModel
from governance.policy_model.streams import StreamModel
from governance.policy_problems import first_problem, policy_problems
from governance.yaml_document import Problem, read_document

TEXT_BYTES_MAX: Final = 1024 * 1024

# What a rule that gives no reason says. One that denies has to give its own.
_REASONS: Final = {
    Effect.ALLOW: "rule {} allows it",
    Effect.STEER: "rule {} points to another way",
    Effect.APPROVAL: "rule {} wants a person to approve it",
}

_NOT_ASCII: Final = re.compile(r"[\x7f-\uffff]")


def load_policy(path: Path | str) -> Policy:
    """The policy in the file at `path`. Raises PolicyInvalid."""
    return parse_policy(read_policy(path), path=str(path))


def read_policy(path: Path | str) -> str:
    """The text of the file at `path`. Raises PolicyInvalid when it cannot be read as text."""
    try:
        with Path(path).open("rb") as file:
            raw = file.read(TEXT_BYTES_MAX + 1)
    except OSError as problem:
        raise PolicyInvalid(str(path), [f"the file cannot be read: {problem.strerror or problem}"]) from None
    if len(raw) > TEXT_BYTES_MAX:
        raise PolicyInvalid(str(path), [f"the file is larger than {TEXT_BYTES_MAX} bytes"])
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = raw.count(b"\n", 0, problem.start) + 1
        raise PolicyInvalid(str(path), [f"line {line}: byte {problem.start} is not UTF-8 text"]) from None


def parse_policy(text: str, path: str = "<policy>") -> Policy:
    """The policy in `text`, which messages call `path`. Raises PolicyInvalid with every problem."""
    model = _parse(text, path)
    policy_hash = sha256(_canonical(model))
    return Policy(
        hash=policy_hash,
        version=model.version,
        streams=MappingProxyType({name: _plan(stream) for name, stream in model.streams.items()}),
        rules=tuple(_rule(rule) for rule in model.rules),
        budgets=tuple(budget.as_budget() for budget in model.budgets),
        models=NO_MODELS if model.models is None else _models(model.models, policy_hash),
        require_identity=frozenset(model.require_identity),
    )


def check_budget(content: Mapping[str, object]) -> TokenBudgetConfig:
    """One budget as the policy file has them under `budgets`. Raises InvalidOption with its first problem."""
    try:
        return BudgetModel.model_validate(content).as_budget()
    except ValidationError as invalid:
        path, problem = first_problem(invalid)
        raise InvalidOption(
            f"budget {path}".strip(), content.get(path, content.get("id")), problem.removeprefix("expected ")
        ) from None


def packaged_policy() -> str:
    """The policy of a fleet that was given none."""
    return resources.files("governance").joinpath("default_policy.yaml").read_text(encoding="utf-8")


def canonical(policy_text: str, path: str = "<policy>") -> str:
    """The canonical text of a policy, for keeping: parse_policy takes it again. Raises PolicyInvalid."""
    return _canonical(_parse(policy_text, path))


def _canonical(model: PolicyModel) -> str:
    content = model.model_dump(mode="json", exclude_defaults=True)
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    # YAML reads JSON, except that it takes some characters for line breaks and knows no surrogate pairs.
    return _NOT_ASCII.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _parse(text: str, path: str) -> PolicyModel:
    document = read_document(text)
    if not document.problems and not isinstance(document.value, dict):
        found = "empty" if document.value is None else "not a mapping"
        document.problems = [Problem(1, (), f"it is {found}: expected a mapping with version, streams and rules")]
    if not isinstance(document.value, dict):
        raise PolicyInvalid(path, [str(problem) for problem in document.problems])
    try:
        model = PolicyModel.model_validate(document.value)
    except ValidationError as invalid:
        raise PolicyInvalid(path, policy_problems(document, invalid)) from None
    problems = policy_problems(document, None)
    if problems:
        raise PolicyInvalid(path, problems)
    return model


def _plan(stream: StreamModel) -> StreamPlan:
    return StreamPlan(
        window=WindowPlan(stream.window, stream.timezone),
        limits=Limits(stream.limits.cost_usd, stream.limits.actions, stream.limits.tokens),
        on_exhausted=stream.on_exhausted,
        grace_us=stream.grace,
        stripes=stream.stripes,
    )


def _rule(rule: RuleModel) -> Rule:
    effect = Effect(rule.effect)
    return Rule(
        id=rule.id,
        match=_match(rule.match),
        condition=rule.when,
        effect=effect,
        reason=rule.reason or _REASONS[effect].format(rule.id),
        approval=rule.approval.as_chain() if isinstance(rule, ApprovalModel) else None,
        guidance=rule.guidance if isinstance(rule, SteerModel) else None,
        suggest=rule.suggest if isinstance(rule, SteerModel) else (),
    )


def _match(match: MatchModel) -> Match:
    return Match(
        action=match.action,
        risk=None if match.risk is None else frozenset(match.risk),
        stream=match.stream,
        agent=match.agent,
        resource=match.resource,
        user=match.user,
        team=match.team,
        org=match.org,
        model=match.model,
    )


def _models(models: ModelsModel, policy_hash: str) -> ModelPolicy:
    tiers = {Tier(name): patterns for name, patterns in models.tiers if patterns is not None}
    return ModelPolicy(
        tiers=MappingProxyType(tiers),
        access=tuple(Access(entry.tier, _whom(entry.match)) for entry in models.access),
        overrides=tuple(
            Override(one.id, _whom(one.match), one.model, one.effect, one.reason, one.until) for one in models.overrides
        ),
        unknown=None if models.unknown == "refuse" else Tier(models.unknown),
        prices=MappingProxyType(
            {
                pattern: UnitPrices(
                    input=given.input,
                    cached=given.input if given.cached is None else given.cached,
                    output=given.output,
                    table=f"policy {policy_hash[:12]}",
                    written=given.written,
                )
                for pattern, given in models.prices.items()
            }
        ),
    )


def _whom(match: WhomModel) -> Whom:
    risk = None if match.risk is None else frozenset(match.risk)
    return Whom(user=match.user, team=match.team, org=match.org, agent=match.agent, risk=risk)
