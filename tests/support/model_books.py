"""What the books of a shop say of its model calls."""

import json
from collections.abc import Mapping
from typing import Any

from tests.support.fleet import Shop


def account(shop: Shop, stream: str, unit: str) -> tuple[int, int]:
    """What is posted on a stream's account, and held."""
    found = shop.gov.store.read(
        """SELECT a.posted, a.held FROM accounts a JOIN sessions s ON s.id = a.scope_id
            WHERE s.stream = :stream AND a.unit = :unit AND a.scope = 'session'""",
        {"stream": stream, "unit": unit},
    )
    return int(found[0][0]), int(found[0][1])


def calls(shop: Shop, action_id: str) -> list[Mapping[str, Any]]:
    with shop.gov.store.statement() as connection:
        found = connection.exec_driver_sql(
            f"SELECT * FROM model_calls WHERE action_id = '{action_id}' ORDER BY at_us, id"
        )
        return [dict(row) for row in found.mappings()]


def told(shop: Shop, action_id: str, kind: str) -> list[dict[str, Any]]:
    found = shop.gov.store.read(
        "SELECT payload FROM events WHERE action_id = :id AND kind = :kind ORDER BY id", {"id": action_id, "kind": kind}
    )
    return [json.loads(payload) for (payload,) in found]


def flags(shop: Shop, action_id: str) -> set[tuple[str, str, str]]:
    found = shop.gov.store.read(
        """SELECT a.unit, e.kind, e.flag FROM entries e JOIN accounts a ON a.id = e.account_id
            WHERE e.action_id = :id AND e.flag IS NOT NULL""",
        {"id": action_id},
    )
    return {(row[0], row[1], row[2]) for row in found}
