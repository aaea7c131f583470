"""What is in doubt asks a person, once for each attempt, whichever way it came to it."""

import json
from pathlib import Path

from governance.operations import audit
from governance.operations.doubts import list_doubts, open_tickets
from governance.operations.finish import Stopped
from governance.operations.recover import child_gone
from governance.operations.resolve import resolve
from tests.support.governed import ANN, Desk

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def test_an_action_in_doubt_opens_a_ticket_for_each_attempt_that_vanished(desk: Desk) -> None:
    lost, cut = desk.submit(idempotent=False, resource="case:c1"), desk.submit(idempotent=False)
    desk.admitted(lost)
    child_gone(desk.gov, desk.lease.worker_id, desk.lease.child, "it died")
    desk.finish(desk.admitted(cut), Stopped("switch:system", "stop", in_doubt=True))
    assert [doubt.action_id for doubt in list_doubts(desk.gov, limit=10)] == [lost.action_id, cut.action_id]
    assert len(open_tickets(desk.gov, 10)) == 2
    assert open_tickets(desk.gov, 10) == []
    resolve(desk.gov, lost.action_id, outcome="retry", by=ANN, reason="nothing arrived", command_id=None)
    desk.admitted(lost)
    child_gone(desk.gov, desk.lease.worker_id, desk.lease.child, "it died again")
    assert open_tickets(desk.gov, 10) == [f"in-doubt:{lost.action_id}:2"]
    (payload,) = desk.gov.store.read(
        "SELECT payload FROM alerts WHERE id = :id", {"id": f"in-doubt:{lost.action_id}:1"}
    )[0]
    told = json.loads(payload)
    assert (told["resource"], told["command_id"], told["why"]) == ("case:c1", lost.command_id, "it died")
    anchor = told["runbook"].partition("#")[2]
    assert f"### {anchor.replace('-', ' ')}".replace("alert action", "Alert: action") in OPERATIONS.read_text()
    assert f"acp recovery resolve {lost.action_id}" in told["next"]
    assert audit.verify(desk.gov).problems == ()
