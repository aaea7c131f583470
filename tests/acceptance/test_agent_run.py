"""`acp run --agent`: a model reads the cases, and what it asks for is governed as anything else."""

import json
from collections import Counter

import pytest

from acp_tasks.cli.run import SHIPPED
from tests.support.place import Place

pytestmark = pytest.mark.fleet

PRIORITIES = Counter(json.loads(line)["priority"] for line in SHIPPED.read_text().splitlines())
ANSWERED = PRIORITIES["low"] + PRIORITIES["medium"]


def test_cases_are_read_by_a_model_and_a_second_run_repeats_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    place = Place(tmp_path_factory.mktemp("agent"))
    ended = place.acp("run", "--agent", "--json")
    assert ended.code == 0, ended.err
    summary = ended.json
    assert summary["actions"] == {
        "denied": PRIORITIES["critical"],
        "parked": PRIORITIES["high"],
        "succeeded": ANSWERED,
    }
    assert summary["runs"] == {"deferred": PRIORITIES["high"], "succeeded": ANSWERED + PRIORITIES["critical"]}
    assert summary["denials"] == {"never-close-accounts": PRIORITIES["critical"]}
    assert (summary["effects"], summary["stuck"], summary["audit"]["problems"]) == (ANSWERED, [], [])
    # Two calls of the model for each case that was worked through, and one for each that waits, beside the replies.
    assert summary["spent_micros"] > ANSWERED * 4000
    assert {line["command_id"].rpartition(":")[0] for line in place.outbox()} == {
        f"case:{line['case_id']}:agent" for line in place.outbox()
    }
    approved, denied = summary["tickets"][:2]
    environment = place.environment()
    for command, ticket in (("approve", approved), ("deny", denied)):
        told = place.acp("approvals", command, ticket["id"], "--reason", "checked", environment=environment)
        assert told.code == 0, told.err
    second = place.acp("run", "--agent", "--json")
    assert second.code == 0, second.err
    summary = second.json
    assert summary["cases"]["repeated"] == summary["cases"]["read"]
    assert summary["effects"] == 1
    assert summary["runs"] == {
        "deferred": PRIORITIES["high"] - 2,
        "succeeded": ANSWERED + PRIORITIES["critical"] + 2,
    }
    refunds = [line["action_id"] for line in place.outbox() if line["effect"] == "refund"]
    assert refunds == [approved["action_id"]]
    commands = [line["command_id"] for line in place.outbox()]
    assert len(commands) == len(set(commands)) == ANSWERED + 1
