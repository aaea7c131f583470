"""The directory: which team each user belongs to, and which org each team."""

from collections.abc import Mapping
from dataclasses import dataclass

from governance.core.digest import canonical_json, sha256


@dataclass(frozen=True, slots=True)
class Directory:
    """Every org, every team with its org, every user with their team."""

    orgs: tuple[str, ...]
    teams: Mapping[str, str]
    users: Mapping[str, str]

    @property
    def hash(self) -> str:
        """Of its content, however it was written."""
        return sha256(canonical_json([sorted(self.orgs), dict(self.teams), dict(self.users)]))
