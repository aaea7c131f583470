"""The directory of users, teams and orgs: looked up for submissions, replaced as a whole."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from sqlalchemy import Connection, RowMapping, Table, delete, insert, select, text

from governance.core.directory import Directory
from governance.core.identity import Identity, Membership
from governance.store.engine import Store, rows
from governance.store.epochs import EPOCH, exclude_admissions
from governance.store.schema.identity import directories, orgs, teams, users

#: The epoch of the directory that is in force, 0 without one; as an expression.
LOADED: Final = "(SELECT coalesce(max(epoch), 0) FROM directories)"
# "acpi" in ASCII: of two loads at once, one waits.
_LOCK: Final = 0x61637069


def membership(store: Store, claimed: Identity) -> tuple[int, Membership]:
    """The epoch of the directory in force, and what it knows of whom is claimed."""
    found = store.read(
        f"""SELECT {LOADED}, u.team, t.org FROM (SELECT 1 AS one) AS o
            LEFT JOIN users u ON u.id = :user LEFT JOIN teams t ON t.id = coalesce(u.team, :team)""",
        {"user": claimed.user, "team": claimed.team},
    )
    epoch, team, org = found[0]
    return int(epoch), Membership(team, org)


def replace(
    store: Store, loaded: Directory, *, by: str, at_us: int, also: Callable[[Connection, str | None], None]
) -> None:
    """Puts `loaded` in place of the whole directory; `also` writes in the same transaction, given the hash before.

    Admissions go on under the directory of before while the rows are written; those under way at its end are waited
    for, and none that read the one before is written after it.
    """
    with store.transaction() as connection:
        if store.is_postgresql:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        before = latest_in(connection)
        for table in (users, teams, orgs):
            connection.execute(delete(table))
        _add(connection, orgs, [{"id": org} for org in loaded.orgs])
        _add(connection, teams, [{"id": team, "org": org} for team, org in loaded.teams.items()])
        _add(connection, users, [{"id": user, "team": team} for user, team in loaded.users.items()])
        exclude_admissions(store, connection)
        # Only now: in the trail, it comes after whatever went by the directory of before.
        also(connection, None if before is None else str(before["hash"]))
        rows(
            connection,
            f"""INSERT INTO directories (epoch, hash, orgs, teams, users, loaded_us, loaded_by)
                VALUES ({EPOCH} + 1, :hash, :orgs, :teams, :users, :at, :by)""",
            {
                "hash": loaded.hash,
                "orgs": len(loaded.orgs),
                "teams": len(loaded.teams),
                "users": len(loaded.users),
                "at": at_us,
                "by": by,
            },
        )


def _add(connection: Connection, table: Table, lines: Sequence[Mapping[str, str]]) -> None:
    if lines:
        connection.execute(insert(table), lines)


def latest(store: Store) -> RowMapping | None:
    """The load that is in force."""
    with store.statement() as connection:
        return latest_in(connection)


def latest_in(connection: Connection) -> RowMapping | None:
    return connection.execute(select(directories).order_by(directories.c.epoch.desc()).limit(1)).mappings().first()


def members(store: Store, *, org: str | None, team: str | None, limit: int) -> list[tuple[str, str | None, str | None]]:
    """(org, team, user), in this order; an org without teams and a team without users have one line each."""
    found = store.read(
        """SELECT o.id, t.id, u.id FROM orgs o LEFT JOIN teams t ON t.org = o.id LEFT JOIN users u ON u.team = t.id
            WHERE (CAST(:org AS text) IS NULL OR o.id = :org) AND (CAST(:team AS text) IS NULL OR t.id = :team)
            ORDER BY o.id, t.id, u.id LIMIT :limit""",
        {"org": org, "team": team, "limit": limit},
    )
    return [(row[0], row[1], row[2]) for row in found]
