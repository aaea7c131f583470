"""Budgets by identity of every kind, and what the tests of them ask."""

import json
from typing import Any

from tests.support.governed import Desk, ManualClock

DAY_S = 24 * 3600
BUDGETS = """
budgets:
  - {id: each-user, identity: {user: "*"}, period: daily, max_cost_usd: "0.01", max_tokens: 1000}
  - {id: org-week, identity: {org: acme}, period: weekly, timezone: Europe/Berlin, max_cost_usd: "0.03"}
  - {id: waits, identity: {team: patient}, period: daily, max_tokens: 100, on_exhausted: defer}
  - {id: asks, identity: {team: asking}, period: monthly, max_tokens: 100, on_exhausted: park}
  - {id: stops, identity: {team: strict}, period: unlimited, max_tokens: 100, on_exhausted: stop}
  - {id: models, identity: {org: "*", agent: a1}, period: unlimited, allowed_models: ["gpt-*"]}
"""


def ask(desk: Desk, **changes: Any) -> Any:
    return desk.arrive(desk.submit(**{"cost_micros": 0, "tokens": 0, **changes}))


def clock(desk: Desk) -> ManualClock:
    assert isinstance(desk.gov.clock, ManualClock)
    return desk.gov.clock


def accounts(desk: Desk) -> dict[str, tuple[int, int, int]]:
    """(limit, posted, held) by the account's scope_id and unit."""
    found = desk.gov.store.read(
        "SELECT scope_id, unit, limit_amount, posted, held FROM accounts WHERE scope = 'budget' ORDER BY id", {}
    )
    return {f"{row[0]} {row[1]}": (row[2], row[3], row[4]) for row in found}


def told(desk: Desk, kind: str) -> list[dict[str, Any]]:
    found = desk.gov.store.read("SELECT payload FROM events WHERE kind = :kind ORDER BY id", {"kind": kind})
    return [json.loads(row[0]) for row in found]
