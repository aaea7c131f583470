"""Tokens: what proves who decides. Only a hash of the secret is kept."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, select, text

from governance.store.engine import Store, rows
from governance.store.schema.decisions import tokens

# "acpt" in ASCII: of two first admins, made at once, one wins.
_LOCK = 0x61637074
_LIVE = "revoked_us IS NULL AND (expires_us IS NULL OR expires_us > :now)"


def exclude_others(store: Store, connection: Connection) -> None:
    """Holds off everybody else who gives or revokes tokens until the commit; SQLite does so by itself."""
    if store.is_postgresql:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})


def live_roles(connection: Connection, now_us: int) -> list[str]:
    """The roles, as JSON, of every token that counts."""
    return [str(row[0]) for row in rows(connection, f"SELECT roles FROM tokens WHERE {_LIVE}", {"now": now_us})]


def add(
    connection: Connection,
    *,
    token_id: str,
    principal: str,
    roles: str,
    digest: str,
    by: str,
    at_us: int,
    expires_us: int | None,
) -> None:
    rows(
        connection,
        """INSERT INTO tokens (id, principal, roles, hash, created_us, created_by, expires_us)
            VALUES (:id, :principal, :roles, :hash, :at, :by, :expires)""",
        {
            "id": token_id,
            "principal": principal,
            "roles": roles,
            "hash": digest,
            "at": at_us,
            "by": by,
            "expires": expires_us,
        },
    )


def find(store: Store, token_id: str, now_us: int) -> tuple[str, str, str] | None:
    """(principal, roles as JSON, hash) of a token that counts."""
    found: Sequence[Sequence[Any]] = store.read(
        f"SELECT principal, roles, hash FROM tokens WHERE id = :id AND {_LIVE}", {"id": token_id, "now": now_us}
    )
    return (str(found[0][0]), str(found[0][1]), str(found[0][2])) if found else None


def revoke(connection: Connection, token_id: str, *, by: str, at_us: int) -> str | None:
    """Whose token it was; None when there is none that is not revoked."""
    found = rows(
        connection,
        """UPDATE tokens SET revoked_us = :at, revoked_by = :by WHERE id = :id AND revoked_us IS NULL
            RETURNING principal""",
        {"id": token_id, "at": at_us, "by": by},
    )
    return str(found[0][0]) if found else None


def listing(store: Store) -> list[RowMapping]:
    """Every token there ever was, the latest first."""
    with store.statement() as connection:
        return list(connection.execute(select(tokens).order_by(tokens.c.created_us.desc(), tokens.c.id)).mappings())
