"""Identity: the user, team and org that an action is charged to, resolved upward by the directory.

A caller claims any of the three. What the directory knows of a user's team and a team's org is filled in, so that
leaving out the org is no way around the org's budget, and a claim that contradicts it is refused. What was filled in is
remembered as such: another directory fills it in anew.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final


class Part(StrEnum):
    """The parts of an identity, narrowest first."""

    USER = "user"
    TEAM = "team"
    ORG = "org"


#: Rules of the refusals.
MISSING: Final = "identity:missing"
CONTRADICTION: Final = "identity:contradiction"


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom something is charged to, as far as it is said."""

    user: str | None = None
    team: str | None = None
    org: str | None = None


@dataclass(frozen=True, slots=True)
class Membership:
    """What the directory knows: the user's team, and the org of that team or, without one, of the claimed team."""

    team: str | None = None
    org: str | None = None


@dataclass(frozen=True, slots=True)
class Resolved:
    """Whom an action is charged to. `filled`: parts that the directory said and the caller did not."""

    identity: Identity
    filled: frozenset[Part] = frozenset()
    contradiction: str | None = None


def resolve(claimed: Identity, known: Membership) -> Resolved:
    """The claim, filled up with what is known; as it is where it contradicts that, and then with a sentence."""
    team = known.team or claimed.team
    if team != claimed.team and claimed.team is not None:
        said = f"user {claimed.user} belongs to team {team} by the directory, and the action says team {claimed.team}"
        return Resolved(claimed, contradiction=said)
    org = (known.org if team is not None else None) or claimed.org
    if org != claimed.org and claimed.org is not None:
        said = f"team {team} belongs to org {org} by the directory, and the action says org {claimed.org}"
        return Resolved(claimed, contradiction=said)
    identity = Identity(claimed.user, team, org)
    filled = {part for part in Part if getattr(identity, part) is not None and getattr(claimed, part) is None}
    return Resolved(identity, frozenset(filled))


def claimed_of(identity: Identity, filled: Iterable[Part]) -> Identity:
    """What the caller said: the identity without the parts that were filled in."""
    return replace(identity, **{str(part): None for part in filled})


def missing(identity: Identity, required: Iterable[Part]) -> tuple[Part, ...]:
    """The required parts that nobody said and the directory does not know, narrowest first."""
    wanted = frozenset(required)
    return tuple(part for part in Part if part in wanted and getattr(identity, part) is None)


def refusal(resolved: Resolved, required: Iterable[Part]) -> tuple[str, str] | None:
    """The rule and the reason for which an action of this identity may not run, None when it may."""
    if resolved.contradiction is not None:
        return CONTRADICTION, f"{resolved.contradiction}: leave it out, or have the directory corrected"
    lacking = missing(resolved.identity, required)
    if not lacking:
        return None
    parts = " and ".join(f"{'an' if part is Part.ORG else 'a'} {part}" for part in lacking)
    who = f"user {resolved.identity.user}" if resolved.identity.user is not None else "the action"
    return MISSING, f"the policy requires {parts}, and neither {who} nor the directory says which: name it in identity"


def filled_text(filled: Iterable[Part]) -> str | None:
    """The parts as the store keeps them; None for none."""
    return ",".join(sorted(filled)) or None


def parse_filled(text: str | None) -> frozenset[Part]:
    return frozenset(Part(part) for part in text.split(",")) if text else frozenset()
