"""Escalation chains and votes: who may approve a request, for how long each, how many must, and what their votes add
up to. When the last level has had its time, the request is denied.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

from governance.core.digest import canonical_json, sha256
from governance.core.grants import GrantTerms


@dataclass(frozen=True, slots=True)
class Level:
    """Approvers of any of `roles` (none: of any role) are asked, for `within_us` microseconds."""

    roles: tuple[str, ...]
    within_us: int


@dataclass(frozen=True)
class Chain:
    """Levels in the order in which they are asked; `approvals` different people have to approve.

    A level that is reached does not end the earlier one's right: whoever could approve first still can.
    """

    levels: tuple[Level, ...]
    approvals: int = 1
    requester_may_approve: bool = False

    def __post_init__(self) -> None:
        if not self.levels or any(level.within_us <= 0 for level in self.levels) or self.approvals < 1:
            raise ValueError("a chain needs a level, a time for each, and at least one approval")

    @property
    def timeout_us(self) -> int:
        """From the request to the denial."""
        return sum(level.within_us for level in self.levels)

    @cached_property
    def text(self) -> str:
        return canonical_json(
            {
                "levels": [{"roles": list(level.roles), "within_us": level.within_us} for level in self.levels],
                "approvals": self.approvals,
                "requester_may_approve": self.requester_may_approve,
            }
        )

    @cached_property
    def hash(self) -> str:
        """The chain's version."""
        return sha256(self.text)

    def roles_at(self, level: int) -> tuple[str, ...]:
        """Whose approval counts once `level` is reached; empty: any approver's."""
        reached = self.levels[: level + 1]
        if any(not asked.roles for asked in reached):
            return ()
        return tuple(dict.fromkeys(role for asked in reached for role in asked.roles))


def parse_chain(text: str) -> Chain:
    """The chain that `Chain.text` wrote."""
    found = json.loads(text)
    return Chain(
        levels=tuple(Level(tuple(level["roles"]), level["within_us"]) for level in found["levels"]),
        approvals=found["approvals"],
        requester_may_approve=found["requester_may_approve"],
    )


def one_level(timeout_us: int) -> Chain:
    """Any approver, for `timeout_us`."""
    return Chain((Level((), timeout_us),))


@dataclass(frozen=True, slots=True)
class Vote:
    """One person's approval of a request, and the grant that they want to be given with it."""

    by: str
    at_us: int
    reason: str | None
    grant: GrantTerms | None = None


def votes_text(votes: Sequence[Vote]) -> str:
    return canonical_json([asdict(vote) for vote in votes])


def parse_votes(text: str) -> tuple[Vote, ...]:
    """The votes that `votes_text` wrote; earlier releases kept no grant with them."""
    return tuple(
        Vote(vote["by"], vote["at_us"], vote["reason"], GrantTerms(**grant) if (grant := vote.get("grant")) else None)
        for vote in json.loads(text)
    )
