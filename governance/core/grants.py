"""Grants: standing approvals. Later actions like the approved one need no person while it lasts, and are counted.

A grant is about one rule in one version of its chain, one action name, and whoever asked for the approved action. Its
bounds are cumulative, and zero means zero. It takes as many people as the approval that it is given with.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from governance.core.instants import iso
from governance.core.money import usd


@dataclass(frozen=True, slots=True)
class GrantTerms:
    """What an approval stands for beyond its own action; bounds are cumulative, 0 is nothing, None is no bound."""

    for_session: bool = False
    resource: str | None = None
    max_uses: int | None = None
    max_cost_micros: int | None = None
    until_us: int | None = None

    def __str__(self) -> str:
        parts = ["for the session"] if self.for_session else []
        parts += [f"on {self.resource!r}"] if self.resource is not None else []
        parts += [f"{self.max_uses} uses"] if self.max_uses is not None else []
        parts += [f"{usd(self.max_cost_micros)} in all"] if self.max_cost_micros is not None else []
        parts += [f"until {iso(self.until_us)}"] if self.until_us is not None else []
        return f"a grant {', '.join(parts)}"


def agreed(asked: Sequence[GrantTerms | None]) -> GrantTerms | None:
    """The grant that all of these approvals ask for: of several ends the earliest. None when they do not agree."""
    wanted = [terms for terms in asked if terms is not None]
    if len(wanted) < len(asked) or len({(replace(t, until_us=None), t.until_us is None) for t in wanted}) != 1:
        return None
    return min(wanted, key=lambda terms: terms.until_us or 0)


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant as read from the store; None is unbounded. It has an end: a session's, or `until_us`."""

    id: str
    rule: str
    chain_hash: str
    action_name: str
    agent_id: str | None
    user: str | None
    session_id: str | None
    resource: str | None
    max_uses: int | None
    uses: int
    max_cost_micros: int | None
    cost_micros: int
    until_us: int | None

    def covers(self, wanted: "Wanted") -> bool:
        return (
            (self.rule, self.chain_hash, self.action_name) == (wanted.rule, wanted.chain_hash, wanted.action_name)
            and (self.agent_id, self.user) == (wanted.agent_id, wanted.user)
            and self.session_id in (None, wanted.session_id)
            and (self.resource is None or (wanted.resource is not None and fnmatchcase(wanted.resource, self.resource)))
            and (self.until_us is None or wanted.now_us < self.until_us)
            and (self.max_uses is None or self.uses + wanted.uses <= self.max_uses)
            # What an action does not declare, nobody can count: it uses no grant that is bounded by cost.
            and (self.max_cost_micros is None or 0 < wanted.cost_micros <= self.max_cost_micros - self.cost_micros)
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an attempt asks of a grant. `uses` is 0 when an earlier attempt of the same action used it already."""

    rule: str
    chain_hash: str
    action_name: str
    agent_id: str | None
    user: str | None
    session_id: str
    resource: str | None
    uses: int
    cost_micros: int
    now_us: int


@dataclass(frozen=True, slots=True)
class UseGrant:
    """What an admission takes from a grant; the store takes it only while the bounds allow."""

    id: str
    uses: int
    cost_micros: int


@dataclass(frozen=True, slots=True)
class OpenGrant:
    """The grant that a decision gives."""

    id: str
    ticket_id: str
    rule: str
    chain_hash: str
    action_name: str
    agent_id: str | None
    user: str | None
    session_id: str | None
    resource: str | None
    max_uses: int | None
    max_cost_micros: int | None
    until_us: int | None
