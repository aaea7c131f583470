"""Authentication: tokens are given, presented, listed and revoked.

A token is `acp_<id>_<secret>`: the id finds the row, the secret's SHA-256 is compared. A secret of 32 random bytes
needs no slow hash. While nobody is an admin, whoever can reach the database may make the first one.
"""

import hmac
import json
import secrets
from dataclasses import dataclass, field

from governance.core.digest import canonical_json, sha256
from governance.core.events import Event
from governance.core.principals import ADMIN, Principal, checked_name, checked_roles, require
from governance.errors import NotAllowed, NotAuthenticated, NotFound
from governance.operations.context import CONTROL_STREAM, Governance
from governance.operations.sessions import in_force
from governance.store import tokens
from governance.store.events import append_in

__all__ = [
    "NewToken",
    "TokenLine",
    "authenticate",
    "create_token",
    "list_tokens",
    "local_token",
    "require",
    "revoke_token",
]

_PREFIX = "acp"


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that was just made; `text` is shown once and kept nowhere."""

    id: str
    principal: str
    roles: tuple[str, ...]
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TokenLine:
    """A token as people see it; `state` is live, expired or revoked."""

    id: str
    principal: str
    roles: tuple[str, ...]
    state: str
    created_us: int
    created_by: str
    expires_us: int | None
    revoked_us: int | None
    revoked_by: str | None


def create_token(
    gov: Governance,
    *,
    principal: str,
    roles: list[str],
    by: Principal | None,
    expires_us: int | None = None,
) -> NewToken:
    """Makes a token for `principal`. `by` is an admin, or None for the first admin's token while there is none.

    Raises InvalidOption, NotAllowed, NotAuthenticated.
    """
    if by is not None:
        require(by, ADMIN)
    return _create(gov, principal, roles, by.actor if by else "bootstrap", expires_us, first_only=by is None)


def local_token(gov: Governance, principal: str) -> NewToken:
    """An admin's token for the owner of a local stack: whoever owns the database can do this anyway."""
    return _create(gov, principal, [ADMIN], "local stack", None, first_only=False)


def authenticate(gov: Governance, text: str) -> Principal:
    """Who presents this token. Raises NotAuthenticated for one that is unknown, malformed, expired or revoked."""
    prefix, _, rest = text.strip().partition("_")
    token_id, _, secret = rest.partition("_")
    found = tokens.find(gov.store, token_id, gov.clock.now_us()) if prefix == _PREFIX and secret else None
    # Compared in any case, so that an unknown id takes as long as a wrong secret.
    right = hmac.compare_digest(sha256(secret), found[2] if found else sha256(""))
    if found is None or not right:
        raise NotAuthenticated("the token is not known here, or it has expired or been revoked")
    return Principal(found[0], frozenset(json.loads(found[1])))


def revoke_token(gov: Governance, token_id: str, *, by: Principal) -> str:
    """Makes a token worthless at once; returns whose it was. Raises NotFound, NotAllowed."""
    require(by, ADMIN)
    now_us = gov.clock.now_us()
    session_id = in_force(gov, CONTROL_STREAM, now_us).session.id
    with gov.store.transaction() as connection:
        tokens.exclude_others(gov.store, connection)
        whose = tokens.revoke(connection, token_id, by=by.actor, at_us=now_us)
        if whose is None:
            raise NotFound("live token", token_id, "acp tokens list shows them")
        payload = {"token": token_id, "principal": whose}
        append_in(connection, Event(session_id, "token.revoked", by.actor, now_us, payload=payload))
    return whose


def list_tokens(gov: Governance) -> list[TokenLine]:
    """The latest first; never a secret, never a hash."""
    now_us = gov.clock.now_us()
    lines = []
    for row in tokens.listing(gov.store):
        expired = row["expires_us"] is not None and row["expires_us"] <= now_us
        lines.append(
            TokenLine(
                id=row["id"],
                principal=row["principal"],
                roles=tuple(json.loads(row["roles"])),
                state="revoked" if row["revoked_us"] is not None else "expired" if expired else "live",
                created_us=row["created_us"],
                created_by=row["created_by"],
                expires_us=row["expires_us"],
                revoked_us=row["revoked_us"],
                revoked_by=row["revoked_by"],
            )
        )
    return lines


def _create(
    gov: Governance, principal: str, roles: list[str], by: str, expires_us: int | None, *, first_only: bool
) -> NewToken:
    checked_name(principal)
    listed = tuple(sorted(checked_roles(roles)))
    token_id, secret = gov.new_id(), secrets.token_urlsafe(32)
    now_us = gov.clock.now_us()
    session_id = in_force(gov, CONTROL_STREAM, now_us).session.id
    with gov.store.transaction() as connection:
        tokens.exclude_others(gov.store, connection)
        if first_only:
            _check_first(listed, any(ADMIN in json.loads(held) for held in tokens.live_roles(connection, now_us)))
        tokens.add(
            connection,
            token_id=token_id,
            principal=principal,
            roles=canonical_json(list(listed)),
            digest=sha256(secret),
            by=by,
            at_us=now_us,
            expires_us=expires_us,
        )
        payload = {"token": token_id, "principal": principal, "roles": list(listed), "expires_us": expires_us}
        append_in(connection, Event(session_id, "token.created", by, now_us, payload=payload))
    return NewToken(token_id, principal, listed, f"{_PREFIX}_{token_id}_{secret}")


def _check_first(roles: tuple[str, ...], admin_exists: bool) -> None:
    if admin_exists:
        raise NotAuthenticated("only an admin gives tokens, and nobody has been presented")
    if ADMIN not in roles:
        raise NotAllowed("nobody", f"give a token for {', '.join(roles)} before there is an admin", [])
