"""Grants: giving, finding and revoking them; they are used by the changes of the admissions they allow."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, select, text

from governance.core.grants import Grant, OpenGrant, Wanted
from governance.store.engine import Store, rows
from governance.store.schema.decisions import grants

_GRANT = (
    "id",
    "rule",
    "chain_hash",
    "action_name",
    "agent_id",
    "user",
    "session_id",
    "resource",
    "max_uses",
    "uses",
    "max_cost_micros",
    "cost_micros",
    "until_us",
)
_COLUMNS = ", ".join(f'"{column}"' for column in _GRANT)


_LASTS = """revoked_us IS NULL AND (until_us IS NULL OR until_us > :now) AND (max_uses IS NULL OR uses < max_uses)
    AND (max_cost_micros IS NULL OR cost_micros < max_cost_micros)"""
# One that its own action has used up may still let another attempt of it run.
_CANDIDATES_MAX = 50


def usable(store: Store, wanted: Wanted, used_before: str | None) -> list[Grant]:
    """Grants that may cover `wanted`, the oldest first; `Grant.covers` picks."""
    found: Sequence[Sequence[Any]] = store.read(
        f"""SELECT {_COLUMNS} FROM grants WHERE rule = :rule AND action_name = :name AND revoked_us IS NULL
                AND coalesce(agent_id, '') = :agent AND coalesce("user", '') = :user AND ({_LASTS} OR id = :before)
            ORDER BY created_us, id LIMIT :limit""",
        {
            "rule": wanted.rule,
            "name": wanted.action_name,
            "agent": wanted.agent_id or "",
            "user": wanted.user or "",
            "now": wanted.now_us,
            "before": used_before or "",
            "limit": _CANDIDATES_MAX,
        },
    )
    return [Grant(*row) for row in found]


def give(connection: Connection, grant: OpenGrant, *, by: str, at_us: int) -> None:
    rows(
        connection,
        """INSERT INTO grants (id, ticket_id, rule, chain_hash, action_name, agent_id, "user", session_id, resource,
                max_uses, uses, max_cost_micros, cost_micros, until_us, created_us, created_by)
            VALUES (:id, :ticket, :rule, :chain_hash, :action_name, :agent_id, :user, :session_id, :resource,
                :max_uses, 0, :max_cost, 0, :until, :at, :by)""",
        {
            "id": grant.id,
            "ticket": grant.ticket_id,
            "rule": grant.rule,
            "chain_hash": grant.chain_hash,
            "action_name": grant.action_name,
            "agent_id": grant.agent_id,
            "user": grant.user,
            "session_id": grant.session_id,
            "resource": grant.resource,
            "max_uses": grant.max_uses,
            "max_cost": grant.max_cost_micros,
            "until": grant.until_us,
            "at": at_us,
            "by": by,
        },
    )


def revoke(connection: Connection, grant_id: str, *, by: str, reason: str, at_us: int) -> bool:
    """False when there is no such grant that lasts."""
    return bool(
        rows(
            connection,
            """UPDATE grants SET revoked_us = :at, revoked_by = :by, revoke_reason = :reason
                WHERE id = :id AND revoked_us IS NULL RETURNING id""",
            {"id": grant_id, "at": at_us, "by": by, "reason": reason},
        )
    )


def find(store: Store, grant_id: str) -> RowMapping | None:
    with store.statement() as connection:
        return connection.execute(select(grants).where(grants.c.id == grant_id)).mappings().first()


def listing(store: Store, *, everything: bool, now_us: int, limit: int) -> list[RowMapping]:
    """Grants for people, the latest first; unless `everything`, those that last."""
    query = select(grants).order_by(grants.c.created_us.desc(), grants.c.id).limit(limit)
    if not everything:
        query = query.where(text(_LASTS).bindparams(now=now_us))
    with store.statement() as connection:
        return list(connection.execute(query).mappings())
