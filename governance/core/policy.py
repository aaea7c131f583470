"""Policy: versioned rules that decide what becomes of an action before anything runs.

The strictest rule that applies wins, among equally strict ones the first in file order. Nothing is allowed by
omission or by accident: an action that no rule applies to is denied, and a condition that cannot be evaluated denies
whatever effect its rule has.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias, assert_never

from governance.core.approvals import Chain
from governance.core.budgets import TokenBudgetConfig
from governance.core.identity import Part
from governance.core.models import NO_MODELS, ModelPolicy
from governance.core.plans import StreamPlan
from governance.core.rules import (
    MATCH_PARTS,
    STRICTNESS,
    ActionFacts,
    ConditionError,
    Effect,
    Match,
    Risk,
    Rule,
)

# A rule's own words come through here too: who asks for a decision need not know how rules are built.
__all__ = [
    "DEFAULT_STREAM",
    "NO_RULE",
    "ActionFacts",
    "Allow",
    "Applies",
    "ConditionError",
    "ConditionResult",
    "Deny",
    "Effect",
    "Explanation",
    "Failed",
    "Finding",
    "Match",
    "Mismatched",
    "Outcome",
    "Park",
    "Policy",
    "Risk",
    "Rule",
    "Steer",
    "Unmet",
    "Verdict",
    "decide",
    "explain",
    "judge",
]

DEFAULT_STREAM: Final = "default"
NO_RULE: Final = "no-rule-matches"

_RANK: Final = {effect: rank for rank, effect in enumerate(STRICTNESS)}
_RANK_OF_NONE: Final = len(STRICTNESS)


@dataclass(frozen=True, slots=True)
class Policy:
    """One version of rules, streams' plans and budgets. `hash` names its content, `version` the file format."""

    hash: str
    version: int
    streams: Mapping[str, StreamPlan]
    rules: tuple[Rule, ...]
    budgets: tuple[TokenBudgetConfig, ...] = ()
    models: ModelPolicy = NO_MODELS
    #: Parts of an identity that every action has to have.
    require_identity: frozenset[Part] = frozenset()

    def __post_init__(self) -> None:
        if DEFAULT_STREAM not in self.streams:
            raise ValueError(f"a policy needs a stream {DEFAULT_STREAM!r}: every other stream falls back to it")

    def plan_for(self, stream: str) -> StreamPlan:
        """The plan of `stream`, or that of the stream `default`."""
        return self.streams.get(stream) or self.streams[DEFAULT_STREAM]


@dataclass(frozen=True, slots=True)
class Allow:
    """May run, as far as policy goes."""

    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class Park:
    """Waits for a person, who is asked along `chain`."""

    rule: str
    reason: str
    chain: Chain


@dataclass(frozen=True, slots=True)
class Steer:
    """Refused, with advice what to do instead."""

    rule: str
    reason: str
    guidance: str
    suggest: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Deny:
    """Refused."""

    rule: str
    reason: str


Verdict: TypeAlias = Allow | Park | Steer | Deny


@dataclass(frozen=True, slots=True)
class Mismatched:
    """The rule is about other actions: `part` of its match says so."""

    part: str


@dataclass(frozen=True, slots=True)
class Unmet:
    """The rule is about this action and its condition is false."""


@dataclass(frozen=True, slots=True)
class Applies:
    """The rule is about this action and its condition, if it has one, is true."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The rule is about this action and its condition could not be evaluated."""

    problem: str


Outcome: TypeAlias = Mismatched | Unmet | Applies | Failed

_MISMATCHED: Final = {part: Mismatched(part) for part in MATCH_PARTS}
_UNMET: Final = Unmet()
_APPLIES: Final = Applies()


class ConditionResult(StrEnum):
    """What a rule's condition gave."""

    ABSENT = "none"
    NOT_EVALUATED = "not evaluated"
    TRUE = "true"
    FALSE = "false"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one rule, and whether it is the one that decided."""

    rule: Rule
    outcome: Outcome
    decided: bool

    @property
    def condition(self) -> ConditionResult:
        if self.rule.condition is None:
            return ConditionResult.ABSENT
        match self.outcome:
            case Mismatched():
                return ConditionResult.NOT_EVALUATED
            case Unmet():
                return ConditionResult.FALSE
            case Applies():
                return ConditionResult.TRUE
            case Failed():
                return ConditionResult.ERROR
            case _:
                assert_never(self.outcome)


@dataclass(frozen=True, slots=True)
class Explanation:
    """A verdict, and every rule in file order. When none decided, the verdict's rule is `no-rule-matches`."""

    verdict: Verdict
    findings: tuple[Finding, ...]


def decide(policy: Policy, facts: ActionFacts) -> Verdict:
    """What becomes of an action. Never raises: what cannot be evaluated denies."""
    decisive = _strictest(policy.rules, (judge(rule, facts) for rule in policy.rules))
    return _verdict(policy, decisive, facts)


def explain(policy: Policy, facts: ActionFacts) -> Explanation:
    """The verdict of `decide` and how every rule took part in it, also those that decide() need not look at."""
    outcomes = tuple(judge(rule, facts) for rule in policy.rules)
    decisive = _strictest(policy.rules, outcomes)
    findings = tuple(
        Finding(rule, outcome, decided=decisive is not None and decisive[0] == index)
        for index, (rule, outcome) in enumerate(zip(policy.rules, outcomes, strict=True))
    )
    return Explanation(_verdict(policy, decisive, facts), findings)


def judge(rule: Rule, facts: ActionFacts) -> Outcome:
    """What one rule says. A condition that fails in whatever way, or gives no bool, is `Failed`."""
    part = rule.match.mismatch(facts)
    if part is not None:
        return _MISMATCHED[part]
    if rule.condition is None:
        return _APPLIES
    try:
        met: object = rule.condition(facts)
    except ConditionError as error:
        return Failed(str(error))
    except Exception as error:
        return Failed(f"{type(error).__name__}: {error}")
    if met is True:
        return _APPLIES
    if met is False:
        return _UNMET
    return Failed(f"it gave a {type(met).__name__}, not true or false")


def _strictest(rules: Sequence[Rule], outcomes: Iterable[Outcome]) -> tuple[int, Outcome] | None:
    """The deciding rule's index and its outcome. Takes outcomes in file order, up to the first that denies."""
    decisive, strictest = None, _RANK_OF_NONE
    for index, outcome in enumerate(outcomes):
        rank = _rank(rules[index], outcome)
        if rank < strictest:
            decisive, strictest = (index, outcome), rank
            if rank == _RANK[Effect.DENY]:
                break
    return decisive


def _rank(rule: Rule, outcome: Outcome) -> int:
    match outcome:
        case Mismatched() | Unmet():
            return _RANK_OF_NONE
        case Applies():
            return _RANK[rule.effect]
        case Failed():
            return _RANK[Effect.DENY]
        case _:
            assert_never(outcome)


def _verdict(policy: Policy, decisive: tuple[int, Outcome] | None, facts: ActionFacts) -> Verdict:
    if decisive is None:
        return Deny(NO_RULE, f"no rule of the policy allows {facts.name} at risk {facts.risk}: add a rule that does")
    index, outcome = decisive
    rule = policy.rules[index]
    if isinstance(outcome, Failed):
        return Deny(rule.id, f"the condition of rule {rule.id} could not be evaluated: {outcome.problem}")
    match rule.effect:
        case Effect.ALLOW:
            return Allow(rule.id, rule.reason)
        case Effect.STEER:
            assert rule.guidance is not None
            return Steer(rule.id, rule.reason, rule.guidance, rule.suggest)
        case Effect.APPROVAL:
            assert rule.approval is not None
            return Park(rule.id, rule.reason, rule.approval)
        case Effect.DENY:
            return Deny(rule.id, rule.reason)
        case _:
            assert_never(rule.effect)
