"""What one action is: as admission reads it, with its ticket, and what is claimed of its message."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection

from governance.core.identity import Membership, Part, Resolved, filled_text, resolve
from governance.core.ledger import Account, Hold, Unit, summed_up
from governance.store.accounts import ACCOUNTS
from governance.store.action_rows import COLUMNS, FROM, ActionRow, row_of
from governance.store.engine import Store, rows
from governance.store.epochs import EPOCH

# What a user's team belongs to counts before what a team that is only claimed does.
_DIRECTORY = """LEFT JOIN users du ON du.id = a."user" LEFT JOIN teams dt ON dt.id = coalesce(du.team, a.team)"""


@dataclass(frozen=True, slots=True)
class Gathered:
    """What an admission decides by, as one statement saw it.

    `action` is charged to `identity`, which the present directory says; `stale`: its row does not say so yet.
    """

    action: ActionRow
    identity: Resolved
    stale: bool
    accounts: tuple[Account, ...]
    epoch: int


_ACCOUNT = "c.id, c.unit, c.limit_amount, c.posted, c.held, c.window_end_us"
# One row, however many accounts: they come as JSON in it.
_GATHER_POSTGRESQL = f"""SELECT {COLUMNS}, (SELECT CAST(json_agg(json_build_array({_ACCOUNT}, c.stripes)) AS text)
        FROM {ACCOUNTS} c WHERE c.id = ANY(CAST(:accounts AS text[]))), {EPOCH}, du.team, dt.org
        {FROM} {_DIRECTORY} WHERE a.id = :id"""


@lru_cache(maxsize=64)
def _gather_sqlite(accounts: int) -> str:
    names = ", ".join(f":account{n}" for n in range(accounts))
    return f"""SELECT {COLUMNS}, (SELECT json_group_array(json_array({_ACCOUNT}, 1))
            FROM accounts c WHERE c.id IN ({names})), {EPOCH}, du.team, dt.org
        {FROM} {_DIRECTORY} WHERE a.id = :id"""


def gather(store: Store, action_id: str, account_ids: Sequence[str]) -> Gathered | None:
    """The action with its ticket, its identity, its accounts and the epoch; None: unknown."""
    if store.is_postgresql:
        found = store.read(_GATHER_POSTGRESQL, {"id": action_id, "accounts": list(account_ids)})
    else:
        values: dict[str, object] = {f"account{n}": account_id for n, account_id in enumerate(account_ids)}
        found = store.read(_gather_sqlite(len(account_ids)), {**values, "id": action_id})
    if not found:
        return None
    *row, accounts_json, epoch, team, org = found[0]
    accounts = accounts_of(accounts_json)
    recorded = row_of(row)
    resolved = resolve(recorded.claimed, Membership(team, org))
    filled = filled_text(resolved.filled)
    if (resolved.identity, filled) == (recorded.identity, recorded.filled):
        return Gathered(recorded, resolved, False, accounts, int(epoch))
    said = {str(part): getattr(resolved.identity, part) for part in Part}
    return Gathered(replace(recorded, **said, filled=filled), resolved, True, accounts, int(epoch))


def accounts_of(text: str | None) -> tuple[Account, ...]:
    return tuple(Account(id_, Unit(unit), *numbers) for id_, unit, *numbers in json.loads(text or "[]"))


def find(store: Store, action_id: str) -> ActionRow | None:
    found = store.read(f"SELECT {COLUMNS} {FROM} WHERE a.id = :id", {"id": action_id})
    return row_of(found[0]) if found else None


def find_by_command(store: Store, command_id: str, action_id: str) -> ActionRow | None:
    """The action that owns `command_id`, else the one that has `action_id`."""
    found = store.read(
        f"""SELECT {COLUMNS} {FROM} WHERE a.command_id = :command OR a.id = :id
            ORDER BY CASE WHEN a.command_id = :command THEN 0 ELSE 1 END LIMIT 1""",
        {"command": command_id, "id": action_id},
    )
    return row_of(found[0]) if found else None


def standing(store: Store, action_id: str, attempt: int) -> tuple[bool, int]:
    """Whether `attempt` is the one that runs `action_id`, and the switches' epoch."""
    found = store.read(
        f"""SELECT (SELECT count(*) FROM actions WHERE id = :id AND attempt = :attempt AND state = 'running'),
            {EPOCH}""",
        {"id": action_id, "attempt": attempt},
    )
    return bool(found[0][0]), int(found[0][1])


def holds_in(connection: Connection, action_id: str, attempt: int) -> tuple[Hold, ...]:
    """What `attempt` holds and has not closed, top-ups and all."""
    found = rows(
        connection,
        """SELECT e.at_us, c.account, c.unit, e.held_delta, c.stripes, c.stripe
            FROM (SELECT * FROM entries WHERE action_id = :id AND attempt = :attempt AND kind = 'hold'
                UNION ALL SELECT * FROM entries WHERE action_id = :id AND attempt = :attempt AND kind = 'top_up') e
            JOIN accounts c ON c.id = e.account_id
            WHERE NOT EXISTS (SELECT 1 FROM entries d WHERE d.action_id = :id AND d.attempt = :attempt
                AND d.account_id = e.account_id AND d.kind IN ('post', 'void', 'expire')) ORDER BY e.id""",
        {"id": action_id, "attempt": attempt},
    )
    return summed_up((int(row[0]), Hold(row[1], Unit(row[2]), int(row[3]), *row[4:])) for row in found)


def republished(store: Store, action: ActionRow, now_us: int) -> bool:
    """Claims the next publication of a message, so that of two relays one publishes it."""
    return bool(
        store.run(
            """UPDATE actions SET published_us = :now, publish_count = publish_count + 1
                WHERE id = :id AND state = :state AND attempt = :attempt AND publish_count = :count RETURNING id""",
            {
                "now": now_us,
                "id": action.ref.id,
                "state": action.ref.state,
                "attempt": action.ref.attempt,
                "count": action.publish_count,
            },
        )
    )


def delivered(store: Store, action_id: str, now_us: int) -> bool:
    """Claims the delivery of a terminal action's outcome; False when it was delivered before."""
    return bool(
        store.run(
            """UPDATE actions SET delivered_us = :now WHERE id = :id AND delivered_us IS NULL
                AND state IN ('succeeded', 'failed', 'denied', 'cancelled') RETURNING id""",
            {"id": action_id, "now": now_us},
        )
    )


def undeliver(store: Store, action_id: str) -> None:
    """Has the outcome of an action that ended told again."""
    store.run(
        """UPDATE actions SET delivered_us = NULL, published_us = NULL
            WHERE id = :id AND delivered_us IS NOT NULL AND NOT direct""",
        {"id": action_id},
    )


def unpublish(store: Store, action_id: str) -> None:
    """Says that the message of a recorded action did not reach the broker; the relay publishes it."""
    store.run("UPDATE actions SET published_us = NULL WHERE id = :id AND delivered_us IS NULL", {"id": action_id})


def listed(store: Store, where: str, values: dict[str, Any]) -> list[ActionRow]:
    """The actions under a condition, in order of creation; a limit in it goes before their tickets are looked up."""
    sql = f"""SELECT {COLUMNS} FROM (SELECT * FROM actions a WHERE {where}) a
        LEFT JOIN tickets t ON t.id = a.ticket_id ORDER BY a.created_us, a.id"""
    return [row_of(row) for row in store.read(sql, values)]
