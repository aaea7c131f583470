"""Who decides: a name with roles, proved by a token and never said by whoever comes.

viewer             decides nothing
approver:<role>    decides requests that ask for approvers of <role>, or of any role
approver           decides every request
operator           stops and releases, resolves what is in doubt, runs drills
admin              all of it, and gives and revokes tokens
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from governance.errors import InvalidOption, NotAllowed

VIEWER: Final = "viewer"
APPROVER: Final = "approver"
OPERATOR: Final = "operator"
ADMIN: Final = "admin"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}")
_OURS = ("drill", "governance")
_ROLE = re.compile(r"viewer|operator|admin|approver(:[a-z0-9][a-z0-9_.-]{0,49})?")


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody, or a program, that has been authenticated."""

    name: str
    roles: frozenset[str]

    @property
    def actor(self) -> str:
        """How the trail names them."""
        return f"principal:{self.name}"

    def may_approve(self, roles: Sequence[str]) -> bool:
        """Whether they may decide a request that asks for approvers of `roles`; none means of any role."""
        if self.roles & {APPROVER, ADMIN}:
            return True
        held = {role.partition(":")[2] for role in self.roles if role.startswith(f"{APPROVER}:")}
        return bool(held & set(roles)) if roles else bool(held)


def require(principal: Principal, wanted: str) -> None:
    """Raises NotAllowed unless the principal is a `wanted`: approver (of whatever role), operator or admin."""
    held = {role.partition(":")[0] for role in principal.roles}
    if wanted not in held and ADMIN not in held:
        article = "an" if wanted[0] in "ao" else "a"
        raise NotAllowed(principal.name, f"do what {article} {wanted} does", sorted(principal.roles))


def checked_name(name: str) -> str:
    """Raises InvalidOption."""
    if name in _OURS:
        raise InvalidOption("principal", name, "another name: by this one the trail calls the program itself")
    if not _NAME.fullmatch(name):
        raise InvalidOption("principal", name, "1 to 100 letters, digits and . _ @ -, the first a letter or digit")
    return name


def checked_roles(roles: Sequence[str]) -> frozenset[str]:
    """Raises InvalidOption."""
    if not roles:
        raise InvalidOption("role", "none", "at least one of viewer, approver, approver:ROLE, operator, admin")
    for role in roles:
        if not _ROLE.fullmatch(role):
            raise InvalidOption("role", role, "viewer, approver, approver:ROLE, operator or admin")
    return frozenset(roles)
