"""Rows of revision 0001, and what later revisions make of them."""

from collections.abc import Mapping
from typing import Any

from governance.core.approvals import one_level
from governance.core.instants import SECOND_US

NOW_US = 1_800_000_000 * SECOND_US
SHORT_US = 900 * SECOND_US
LONG_US = 3600 * SECOND_US


def session_row(session_id: str, start_us: int, policy_hash: str) -> dict[str, Any]:
    return {
        "id": session_id,
        "stream": "default",
        "window_start_us": start_us,
        "window_end_us": start_us + LONG_US,
        "policy_hash": policy_hash,
        "opened_us": start_us,
    }


def action_row(action_id: str, session_id: str, **changes: Any) -> dict[str, Any]:
    same = {
        "name": "mail.send",
        "stream": "default",
        "attempt": 0,
        "idempotent": True,
        "direct": False,
        "user": "ann",
        "risk": "high",
        "cost_micros": 4_000,
        "tokens": 0,
        "correlation_id": "k",
        "message": "{}",
        "created_us": NOW_US,
        "publish_count": 1,
    }
    named = {"id": action_id, "command_id": f"c-{action_id}", "digest": f"d-{action_id}", "session_id": session_id}
    return same | named | changes


def ticket_row(ticket_id: str, action_id: str, within_us: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": ticket_id,
        "action_id": action_id,
        "digest": f"d-{action_id}",
        "state": "pending",
        "rule": "ask",
        "reason": "a person decides",
        "requested_us": NOW_US,
        "expires_us": NOW_US + within_us,
        **changes,
    }


DECIDED = {"decided_us": NOW_US + 1, "decided_by": "bob", "decision_reason": "fine"}
# Rows of revision 0001, in an order in which they can be written.
FIRST_ROWS: Mapping[str, list[dict[str, Any]]] = {
    "policies": [
        {"hash": "p-old", "source": "{}", "created_us": NOW_US},
        {"hash": "p-new", "source": "[]", "created_us": NOW_US},
    ],
    "sessions": [session_row("default@0", 0, "p-old"), session_row("default@1", LONG_US, "p-new")],
    "actions": [
        action_row("parked", "default@1", state="parked", ticket_id="t-pending"),
        action_row("released", "default@1", state="queued", ticket_id="t-approved"),
        action_row("done", "default@0", state="succeeded", attempt=1, ticket_id="t-consumed", delivered_us=NOW_US + 3),
        action_row("busy", "default@1", state="running", attempt=1, lease_worker="w", lease_child="c"),
    ],
    "tickets": [
        ticket_row("t-pending", "parked", SHORT_US),
        ticket_row("t-approved", "released", LONG_US, state="approved", **DECIDED),
        ticket_row("t-consumed", "done", SHORT_US, state="consumed", **DECIDED),
        ticket_row("t-expired", "parked", SHORT_US, state="expired", decided_us=NOW_US - 1),
    ],
    "accounts": [
        {
            "id": "stream:default:0:cost_micros",
            "scope": "stream",
            "scope_id": "default",
            "unit": "cost_micros",
            "window_start_us": 0,
            "window_end_us": LONG_US,
            "limit_amount": 1_000_000,
            "posted": 4_000,
            "held": 0,
        }
    ],
    "entries": [
        {
            "account_id": "stream:default:0:cost_micros",
            "action_id": "done",
            "attempt": 1,
            "kind": kind,
            "held_delta": held,
            "posted_delta": posted,
            "at_us": NOW_US,
        }
        for kind, held, posted in (("hold", 4_000, 0), ("post", -4_000, 4_000))
    ],
    "workers": [{"id": "w", "pid": 1, "started_us": NOW_US, "heartbeat_us": NOW_US}],
    "events": [
        {"session_id": "default@0", "kind": kind, "actor": "w", "at_us": NOW_US, "payload": "{}", **seal}
        for kind, seal in (("session.opened", {"seq": 1, "hash": "h"}), ("action.succeeded", {"action_id": "done"}))
    ],
}
# Columns that later revisions added, and that say nothing of what was there before.
EMPTY: Mapping[str, tuple[str, ...]] = {
    "actions": (
        "model",
        "filled",
        "signature",
        "grant_id",
        "switch_id",
        "superseded_by",
        "pruned_state",
        "pruned_attempt",
    ),
    "accounts": ("raised", "pruned_us", "summed_us", "summed"),
    "sessions": ("closed_us", "summary", "epoch"),
    "workers": ("host", "queues", "slots", "ready_us"),
}
# Columns that later revisions dropped.
DROPPED: Mapping[str, tuple[str, ...]] = {"workers": ("suspected_us",)}
# What revision 0008 adds to each account.
ONE_ROW: Mapping[str, Any] = {"stripe": 0, "stripes": 1, "account_limit": None}
# What revision 0002 adds to each ticket.
ADDED: Mapping[str, dict[str, Any]] = {
    ticket_id: {
        "policy_hash": policy_hash,
        "chain": one_level(within_us).text,
        "chain_hash": one_level(within_us).hash,
        "level": 0,
        "votes": "[]",
        "step": step,
        "told_step": step,
        "due_us": NOW_US + within_us,
    }
    for ticket_id, policy_hash, within_us, step in (
        ("t-pending", "p-new", SHORT_US, 1),
        ("t-approved", "p-new", LONG_US, 2),
        ("t-consumed", "p-old", SHORT_US, 2),
        ("t-expired", "p-new", SHORT_US, 2),
    )
}


def insert(table: str, row: Mapping[str, Any]) -> str:
    columns = ", ".join(f'"{column}"' for column in row)
    return f"INSERT INTO {table} ({columns}) VALUES ({', '.join(f':{column}' for column in row)})"
