"""What must agree at every moment: accounts with entries and running attempts, actions with tickets and events."""

import json
from collections import Counter

from governance.operations.context import Governance
from governance.store import ledger

_REQUESTS = """SELECT a.id, a.state, a.ticket_id, t.id FROM actions a
    LEFT JOIN tickets t ON t.action_id = a.id AND t.state = 'pending' WHERE a.created_us >= :since
    AND ((a.state = 'parked') <> (t.id IS NOT NULL) OR (t.id IS NOT NULL AND t.id <> a.ticket_id))"""
_TRAIL = """SELECT a.id, a.state, e.state FROM actions a JOIN events e ON e.id = (SELECT max(l.id) FROM events l
    WHERE l.action_id = a.id AND l.state IS NOT NULL) WHERE a.created_us >= :since AND a.state <> e.state"""
_HELD = """SELECT c.id, c.held, coalesce(h.amount, 0) FROM accounts c LEFT JOIN
    (SELECT e.account_id, sum(e.held_delta) AS amount FROM entries e JOIN actions a
        ON a.id = e.action_id AND a.attempt = e.attempt AND a.state = 'running'
        WHERE e.kind IN ('hold', 'top_up') GROUP BY e.account_id) h ON h.account_id = c.id
    WHERE c.held <> coalesce(h.amount, 0)"""
_GRANTS = """SELECT id FROM grants WHERE uses > max_uses OR cost_micros > max_cost_micros"""
_TICKETS = """SELECT t.id, t.state, t.step, t.told_step FROM tickets t JOIN actions a ON a.id = t.action_id
    WHERE a.created_us >= :since"""
_TICKET_EVENTS = """SELECT e.kind, e.payload FROM events e JOIN actions a ON a.id = e.action_id
    WHERE a.created_us >= :since AND e.payload LIKE '%"ticket":%'"""


def assert_agree(gov: Governance, since_us: int = 0) -> None:
    """Raises AssertionError with what does not agree; of actions, those that were submitted since then."""
    since = {"since": since_us}
    assert ledger.unbalanced(gov.store) == []
    for what, sql in (("held", _HELD), ("requests", _REQUESTS), ("trail", _TRAIL), ("grants", _GRANTS)):
        found = gov.store.read(sql, since)
        assert not found, (what, [tuple(row) for row in found])
    steps: Counter[str] = Counter()
    consumed: Counter[str] = Counter()
    for kind, payload in gov.store.read(_TICKET_EVENTS, since):
        ticket = json.loads(payload)["ticket"]
        steps[ticket] += 1
        consumed[ticket] += kind == "action.admitted"
    for ticket, state, step, told_step in gov.store.read(_TICKETS, since):
        assert step == steps[ticket], (ticket, state, "its step is not the number of its events")
        assert told_step <= step
        assert consumed[ticket] == (state == "consumed"), (ticket, state, "consumed once, or not at all")
