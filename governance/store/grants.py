"""Grants: giving, finding and revoking them; they are used by the changes of the admissions they allow."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, and_, not_, or_, select

from governance.core.grants import Grant, OpenGrant, Wanted
from governance.store.engine import Store, rows
from governance.store.schema.decisions import grants
from governance.store.schema.work import sessions

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

_PAGE: Final = 50


def usable(store: Store, wanted: Wanted, used_before: str | None) -> Iterator[Grant]:
    """Grants that may cover `wanted`, the oldest first, read page by page; `Grant.covers` picks."""
    after: tuple[int, str] = (0, "")
    while True:
        # One that its own action has used up may still let another attempt of it run.
        found: Sequence[Sequence[Any]] = store.read(
            f"""SELECT created_us, {_COLUMNS} FROM grants
                WHERE rule = :rule AND action_name = :name AND chain_hash = :chain AND revoked_us IS NULL
                    AND coalesce(agent_id, '') = :agent AND coalesce("user", '') = :user
                    AND (session_id IS NULL OR session_id = :session) AND (until_us IS NULL OR until_us > :now)
                    AND (max_uses IS NULL OR uses < max_uses OR id = :before)
                    AND (max_cost_micros IS NULL OR cost_micros + :cost <= max_cost_micros)
                    AND (created_us, id) > (:created, :id)
                ORDER BY created_us, id LIMIT :limit""",
            {
                "rule": wanted.rule,
                "name": wanted.action_name,
                "chain": wanted.chain_hash,
                "agent": wanted.agent_id or "",
                "user": wanted.user or "",
                "session": wanted.session_id,
                "now": wanted.now_us,
                "before": used_before or "",
                "cost": wanted.cost_micros,
                "created": after[0],
                "id": after[1],
                "limit": _PAGE,
            },
        )
        yield from (Grant(*row[1:]) for row in found)
        if len(found) < _PAGE:
            return
        after = (found[-1][0], found[-1][1])


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
    """Grants for people, the latest first; unless `everything`, those that last. `over` says that their time is up."""
    over = or_(
        and_(grants.c.until_us.is_not(None), grants.c.until_us <= now_us),
        and_(grants.c.session_id.is_not(None), sessions.c.window_end_us <= now_us),
    )
    used_up = or_(
        and_(grants.c.max_uses.is_not(None), grants.c.uses >= grants.c.max_uses),
        and_(grants.c.max_cost_micros.is_not(None), grants.c.cost_micros >= grants.c.max_cost_micros),
    )
    query = (
        select(grants, over.label("over"), used_up.label("used_up"))
        .join_from(grants, sessions, sessions.c.id == grants.c.session_id, isouter=True)
        .order_by(grants.c.created_us.desc(), grants.c.id)
        .limit(limit)
    )
    if not everything:
        query = query.where(grants.c.revoked_us.is_(None), not_(over), not_(used_up))
    with store.statement() as connection:
        return list(connection.execute(query).mappings())
