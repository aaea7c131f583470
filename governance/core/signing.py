"""Signatures: who submits an action vouches for all that governance goes by, with a key that the workers know, too.

HMAC-SHA256 over canonical JSON. A record's signature has two halves, both bound to the action's id: what it is and for
whom, and what it would run, so that an approver may put other arguments in place of the second and nothing else. Any
of the known keys verifies, the first one signs: keys are rotated without a pause.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from governance.core.digest import canonical_json, sha256
from governance.core.identity import Identity
from governance.core.tickets import Ticket, TicketState

RULE: Final = "signature"
_SEPARATOR: Final = "|"


@dataclass(frozen=True, slots=True)
class Keyring:
    """Secrets by the id of their key, the one that signs first."""

    secrets: Mapping[str, bytes] = field(repr=False)

    @property
    def signing(self) -> str:
        """The id of the key that signs."""
        return next(iter(self.secrets))

    def mac(self, key: str, content: object) -> str:
        """The code of `content`, JSON, by the key of that id."""
        return hmac.new(self.secrets[key], canonical_json(content).encode(), hashlib.sha256).hexdigest()

    def fits(self, key: str, mac: str, content: object) -> bool:
        """Whether that key made `mac` of `content`, in a time that does not depend on where they differ."""
        return hmac.compare_digest(self.mac(key, content).encode(), mac.encode())


@dataclass(frozen=True, slots=True)
class Signable:
    """What governance goes by in an action: as it is submitted, and as its row says it."""

    action_id: str
    command_id: str
    name: str
    stream: str
    agent_id: str | None
    claimed: Identity
    risk: str
    idempotent: bool
    direct: bool
    model: str | None
    cost_micros: int
    tokens: int
    correlation_id: str
    digest: str
    resource: str | None
    message: str

    def _terms(self, digest: str) -> list[object]:
        who = [self.agent_id, self.claimed.user, self.claimed.team, self.claimed.org]
        what = [self.name, self.stream, str(self.risk), self.idempotent, self.direct, self.model]
        limits = [self.cost_micros, self.tokens]
        return ["terms", self.action_id, self.command_id, self.correlation_id, *who, *what, *limits, digest]

    def _content(self) -> list[object]:
        return ["content", self.action_id, self.digest, self.resource, sha256(self.message)]


def sign(keyring: Keyring, signable: Signable) -> str:
    """The signature as a row keeps it: the key, the code of each half, the digest that was signed."""
    key = keyring.signing
    terms, content = (keyring.mac(key, half) for half in (signable._terms(signable.digest), signable._content()))
    return _SEPARATOR.join((key, terms, content, signable.digest))


def problem(keyring: Keyring, signature: str | None, signable: Signable, ticket: Ticket | None) -> str | None:
    """Why a row may not run, None when it is what was signed.

    Other arguments than those that were signed may run when `ticket` is an approval of exactly these: the decision is
    their authority, and the trail has both digests.
    """
    if signature is None:
        return "nobody signed it"
    parts = signature.split(_SEPARATOR)
    if len(parts) != 4:
        return "its signature cannot be read"
    key, terms, content, digest = parts
    if key not in keyring.secrets:
        return f"it is signed by the key {key!r:.80}, which is not known here"
    if not keyring.fits(key, terms, signable._terms(digest)):
        return f"it is not what the key {key} signed: its record was changed"
    if digest == signable.digest:
        fits = keyring.fits(key, content, signable._content())
        return None if fits else f"it is not what the key {key} signed: its message or its resource was changed"
    approved = (
        ticket is not None
        and ticket.state in (TicketState.APPROVED, TicketState.CONSUMED)
        and ticket.digest == signable.digest
    )
    return None if approved else "its arguments are neither those that were signed nor those that somebody approved"
