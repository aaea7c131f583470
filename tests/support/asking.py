"""Requests for a person, as the tests of deciding make them and look at them."""

import json
from typing import Any

from acp_tasks.message import arguments_json, digest, pack
from governance.core.actions import Submission
from governance.core.policy import Risk
from tests.support.governed import POLICY, Desk

RULES = """rules:
  - id: two-leads
    match: {action: case.refund}
    effect: approval
    reason: "money leaves"
    approval: {chain: [{first: team-lead 15m}, {then: on-call 30m}, {then: deny}], approvals: 2}
"""
TWO_LEADS = POLICY.replace("rules:\n", RULES)
LEADS = ("ann", "bob", "u1")


def action(desk: Desk, name: str = "case.reply", risk: Risk = Risk.HIGH, **kwargs: object) -> Submission:
    """A request under the rule `ask` (one approval) or, as `case.refund`, `two-leads`."""
    arguments = arguments_json(name, [], kwargs or {"case_id": "c1", "amount_usd": "5.00"}, 10_000)
    options = {"queue": "celery", "headers": {"acp": {"command_id": "x", "agent_id": "desk-1"}}}
    return desk.submit(
        name=name,
        risk=risk,
        digest=digest(name, arguments),
        message=pack(name, arguments, options),
        agent_id="desk-1",
        user="u1",
        team="t1",
        org="o1",
        resource="customer_case:c1",
        model="small-model",
    )


def row(desk: Desk, table: str, action_id: str) -> dict[str, Any]:
    column = "id" if table == "actions" else "action_id"
    with desk.gov.store.statement() as connection:
        found = connection.exec_driver_sql(f"SELECT * FROM {table} WHERE {column} = ?", (action_id,)).mappings().one()
        return dict(found)


def payloads(desk: Desk, action_id: str, kind: str) -> list[dict[str, Any]]:
    found = desk.gov.store.read(
        "SELECT payload FROM events WHERE action_id = :id AND kind = :kind ORDER BY id", {"id": action_id, "kind": kind}
    )
    return [json.loads(payload) for (payload,) in found]
