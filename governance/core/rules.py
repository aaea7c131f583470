"""Rules: which actions a rule is about, under which condition, and what it does to them."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import translate
from operator import attrgetter
from typing import Final, TypeAlias

from governance.core.approvals import Chain
from governance.errors import GovernanceError


class Risk(StrEnum):
    """How much harm an action can do, as its task declares it."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class Effect(StrEnum):
    """What a rule does to an action it applies to."""

    ALLOW = "allow"
    STEER = "steer"  # refused, with guidance towards another action
    APPROVAL = "approval"  # parked until a person decides
    DENY = "deny"


#: Strictest first.
STRICTNESS: Final = (Effect.DENY, Effect.APPROVAL, Effect.STEER, Effect.ALLOW)


@dataclass(frozen=True, slots=True)
class ActionFacts:
    """What rules may look at. `cost_micros` (micro-USD) and `tokens` are what the action declares it may use."""

    name: str
    risk: Risk
    resource: str | None
    stream: str
    agent_id: str | None
    user: str | None
    team: str | None
    org: str | None
    cost_micros: int
    tokens: int
    arguments: Mapping[str, object]
    model: str | None = None


class ConditionError(GovernanceError):
    """{problem}, in `{expression}`"""

    fields = ("expression", "problem")
    expression: str
    problem: str


Condition: TypeAlias = Callable[[ActionFacts], bool]

#: Part of a match -> the fact it looks at, in the order in which they are tested.
MATCH_PARTS: Final[Mapping[str, str]] = {
    "action": "name",
    "risk": "risk",
    "stream": "stream",
    "agent": "agent_id",
    "resource": "resource",
    "user": "user",
    "team": "team",
    "org": "org",
    "model": "model",
}


@dataclass(frozen=True, slots=True)
class Match:
    """Which actions a rule is about: every part that is given must match, None is not asked.

    Patterns are case-sensitive globs, any of which may match: `*` (also across dots), `?` and `[abc]`. An action
    without, say, a resource matches no resource pattern, not even `*`.
    """

    action: tuple[str, ...] | None = None
    risk: frozenset[Risk] | None = None
    stream: tuple[str, ...] | None = None
    agent: tuple[str, ...] | None = None
    resource: tuple[str, ...] | None = None
    user: tuple[str, ...] | None = None
    team: tuple[str, ...] | None = None
    org: tuple[str, ...] | None = None
    model: tuple[str, ...] | None = None
    _tests: tuple[tuple[str, Callable[[ActionFacts], object], Callable[[str], object]], ...] = field(
        init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        given = ((part, fact, getattr(self, part)) for part, fact in MATCH_PARTS.items())
        tests = tuple((part, attrgetter(fact), _accepts(wanted)) for part, fact, wanted in given if wanted is not None)
        object.__setattr__(self, "_tests", tests)

    def mismatch(self, facts: ActionFacts) -> str | None:
        """The first part that does not match, None when all do."""
        for part, read, accepts in self._tests:
            found = read(facts)
            if found is None or not accepts(found):  # type: ignore[arg-type]
                return part
        return None


def _accepts(wanted: Iterable[str]) -> Callable[[str], object]:
    patterns = tuple(wanted)
    if not any(wildcard in pattern for pattern in patterns for wildcard in "*?["):
        return frozenset(patterns).__contains__
    return re.compile("|".join(map(translate, patterns))).match


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to the actions that `match` and whose `condition` is true.

    `approval` belongs to the approval effect and `guidance` to the steer effect; a rule without them is a ValueError.
    """

    id: str
    match: Match
    condition: Condition | None
    effect: Effect
    reason: str
    approval: Chain | None = None
    guidance: str | None = None
    suggest: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.approval is not None) != (self.effect is Effect.APPROVAL):
            raise ValueError(f"rule {self.id}: an escalation chain belongs to the approval effect, and to no other")
        if (self.guidance is not None) != (self.effect is Effect.STEER):
            raise ValueError(f"rule {self.id}: guidance belongs to the steer effect, and to no other")
