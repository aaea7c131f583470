"""Kill switches: engaging and releasing them, each in an epoch of its own, and the board of those that are engaged."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, select

from governance.core.board import Board
from governance.core.budgets import Book, Raise, parse_budget
from governance.core.events import Event
from governance.core.switches import Mode, Scope, Switch, names_model
from governance.store.directory import LOADED
from governance.store.engine import Store, rows
from governance.store.epochs import EPOCH, epoch_in, exclude_admissions
from governance.store.events import append_in
from governance.store.schema.decisions import switches
from governance.store.schema.work import sessions

_COLUMNS: Final = {
    Scope.ACTION: "id",
    Scope.SESSION: "session_id",
    Scope.STREAM: "stream",
    Scope.AGENT: "agent_id",
    Scope.USER: "user",
    Scope.TEAM: "team",
    Scope.ORG: "org",
}


def board(store: Store) -> Board:
    """Every engaged switch, every budget that is set or raised, and the epoch, as one statement saw them."""
    found = store.read(
        f"""SELECT 'epoch' AS kind, NULL AS id, NULL, NULL, NULL, NULL, {EPOCH} AS first, {LOADED} AS second, 0 AS third
            UNION ALL SELECT 'switch', id, scope, scope_id, mode, reason, grace_us, engaged_us, 0
                FROM switches WHERE released_us IS NULL
            UNION ALL SELECT 'budget', id, config, NULL, NULL, NULL, 0, 0, 0
                FROM budgets WHERE config IS NOT NULL
            UNION ALL SELECT 'raise', id, budget_id, who, NULL, NULL, cost_micros, tokens, until_us
                FROM raises WHERE ended_us IS NULL""",
        {},
    )
    by_kind: dict[str, list[Sequence[Any]]] = {"epoch": [], "switch": [], "budget": [], "raise": []}
    for kind, *row in found:
        by_kind[kind].append(row)
    engaged = (Switch(row[0], Scope(row[1]), row[2], Mode(row[3]), *row[4:7]) for row in by_kind["switch"])
    return Board(
        epoch=int(by_kind["epoch"][0][5]),
        directory_epoch=int(by_kind["epoch"][0][6]),
        engaged=tuple(sorted(engaged, key=lambda switch: (switch.engaged_us, switch.id))),
        book=Book(
            budgets={row[0]: parse_budget(row[1]) for row in by_kind["budget"]},
            raises=tuple(
                Raise(row[0], row[1], row[2], *map(int, row[5:]))
                for row in sorted(by_kind["raise"], key=lambda row: str(row[0]))
            ),
        ),
    )


def epoch(store: Store) -> int:
    return int(store.read(f"SELECT {EPOCH}", {})[0][0])


def engage(
    store: Store, switch: Switch, *, by: str, event: Event, also: Event | None = None, epoch: int | None = None
) -> str | None:
    """Engages `switch` and writes `event` (and `also`), unless its scope is engaged in this mode; the engaged one's id.

    Of one that is engaged the grace can still be shortened: by an engagement that would end it earlier.
    None, and nothing is written, when the epoch is another one than the decision saw.
    When this returns, whatever started before has been committed, and nothing in scope starts any more.
    """
    with store.transaction() as connection:
        exclude_admissions(store, connection)
        if epoch is not None and epoch_in(store, connection) != epoch:
            return None
        return engage_in(connection, switch, by=by, event=event, also=also)


def engage_in(connection: Connection, switch: Switch, *, by: str, event: Event, also: Event | None = None) -> str:
    """`engage` in the caller's transaction, which holds off the admissions and knows the epoch."""
    already = rows(
        connection,
        """SELECT id, engaged_us, grace_us FROM switches
            WHERE scope = :scope AND scope_id = :id AND mode = :mode AND released_us IS NULL""",
        {"scope": switch.scope, "id": switch.scope_id, "mode": switch.mode},
    )
    if already:
        first_id, engaged_us, grace_us = already[0]
        # Never less than what is asked for, whatever the clock has done in between.
        shorter_us = max(switch.grace_us, switch.engaged_us + switch.grace_us - engaged_us)
        # Less time was asked for, not the same by a clock that is behind.
        if switch.grace_us < grace_us and shorter_us < grace_us:
            rows(
                connection,
                f"UPDATE switches SET grace_us = :grace, epoch = {EPOCH} + 1 WHERE id = :id",
                {"id": first_id, "grace": shorter_us},
            )
            append_in(connection, replace(event, kind="switch.shortened"))
        return str(first_id)
    rows(
        connection,
        f"""INSERT INTO switches (id, scope, scope_id, mode, reason, grace_us, engaged_us, engaged_by, epoch)
            VALUES (:id, :scope, :scope_id, :mode, :reason, :grace, :at, :by, {EPOCH} + 1)""",
        {
            "id": switch.id,
            "scope": switch.scope,
            "scope_id": switch.scope_id,
            "mode": switch.mode,
            "reason": switch.reason,
            "grace": switch.grace_us,
            "at": switch.engaged_us,
            "by": by,
        },
    )
    if also is not None:
        append_in(connection, also)
    append_in(connection, event)
    return switch.id


def release(store: Store, switch_id: str, *, by: str, reason: str, at_us: int, event: Event) -> bool:
    """False when it is not engaged any more."""
    with store.transaction() as connection:
        exclude_admissions(store, connection)
        released = rows(
            connection,
            f"""UPDATE switches SET released_us = :at, released_by = :by, release_reason = :reason, epoch = {EPOCH} + 1
                WHERE id = :id AND released_us IS NULL RETURNING id""",
            {"id": switch_id, "at": at_us, "by": by, "reason": reason},
        )
        if released:
            append_in(connection, event)
    return bool(released)


def find(store: Store, switch_id: str) -> RowMapping | None:
    with store.statement() as connection:
        return connection.execute(select(switches).where(switches.c.id == switch_id)).mappings().first()


def engaged_in(store: Store, scope: Scope, scope_id: str) -> list[RowMapping]:
    """The engaged switches of exactly this scope, in either mode."""
    query = select(switches).where(
        switches.c.scope == scope, switches.c.scope_id == scope_id, switches.c.released_us.is_(None)
    )
    with store.statement() as connection:
        return list(connection.execute(query).mappings())


def of_closed_sessions(store: Store, limit: int) -> list[RowMapping]:
    """The engaged switches on sessions that are closed."""
    query = (
        select(switches)
        .join(sessions, sessions.c.id == switches.c.scope_id)
        .where(switches.c.scope == Scope.SESSION, switches.c.released_us.is_(None), sessions.c.closed_us.is_not(None))
        .limit(limit)
    )
    with store.statement() as connection:
        return list(connection.execute(query).mappings())


def listing(store: Store, *, everything: bool, limit: int) -> list[RowMapping]:
    """Switches for people, the latest first."""
    query = select(switches).order_by(switches.c.engaged_us.desc(), switches.c.id).limit(limit)
    if not everything:
        query = query.where(switches.c.released_us.is_(None))
    with store.statement() as connection:
        return list(connection.execute(query).mappings())


def in_scope(store: Store, switch: Switch) -> tuple[str, Mapping[str, Any]]:
    """The condition on `actions a` that says which live actions a switch covers, with its values."""
    if switch.scope is Scope.SYSTEM:
        return "1 = 1", {}
    if switch.scope in (Scope.NAME, Scope.MODEL):
        # Globs are matched in one place, over the few names there are.
        column = switch.scope
        live = store.read(f"SELECT DISTINCT {column} FROM actions WHERE delivered_us IS NULL", {})
        meant = names_model if switch.scope is Scope.MODEL else _names
        named = [str(row[0]) for row in live if row[0] is not None and meant(switch.scope_id, str(row[0]))]
        values = {f"name{number}": name for number, name in enumerate(named)}
        listed = ", ".join(f":{value}" for value in values)
        return (f"a.{column} IN ({listed})" if named else "1 = 0"), values
    return f'a."{_COLUMNS[switch.scope]}" = :scope_id', {"scope_id": switch.scope_id}


def _names(pattern: str, name: str) -> bool:
    return fnmatchcase(name, pattern)
