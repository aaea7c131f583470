"""Approving other arguments on the command line: what is approved is what runs, and is on record."""

import json

from acp_tasks.message import arguments_json, digest
from governance.core.actions import Submission
from governance.operations import audit
from governance.operations.answers import Admitted
from tests.support.asking import LEADS, action, payloads, row
from tests.support.governed import Desk
from tests.support.terminal import Terminal


def test_edited_arguments_are_what_runs(terminal: Terminal, desk: Desk) -> None:
    made = action(desk, "case.refund")
    for name in LEADS:
        terminal.enroll(name, "approver:team-lead")
    kwargs = {"case_id": "c2", "amount_usd": "4.00"}
    approve = ("approvals", "approve", made.action_id, "--reason", "less", "--json")
    first = terminal.acp(*approve, "--edit", json.dumps(kwargs), by="ann")
    assert first.code == 0, first.err
    assert "does not know" not in first.err
    found = row(desk, "actions", made.action_id)
    expected = digest("case.refund", arguments_json("case.refund", [], kwargs, 10_000))
    assert (found["digest"], found["resource"], found["state"]) == (expected, "customer_case:c2", "parked")
    message = json.loads(found["message"])
    assert message["arguments"] == [[], kwargs]
    assert message["options"]["queue"] == "celery"
    assert message["options"]["headers"]["acp"] == {"command_id": "x", "agent_id": "desk-1"}
    assert row(desk, "tickets", made.action_id)["digest"] == expected
    voted = payloads(desk, made.action_id, "ticket.voted")[0]
    assert (voted["digest"], voted["digest_before"], voted["reason"]) == (expected, made.digest, "less")
    shown = terminal.acp("approvals", "show", made.action_id, "--json").json["what"]
    assert [(edit["by"], edit["digest_before"]) for edit in shown["edits"]] == [("principal:ann", made.digest)]

    path = terminal.folder / "arguments.json"
    path.write_text('[["c3", "3.00"], {}]')
    stale = terminal.acp(*approve, "--edit", f"@{path}", "--digest", made.digest[:12], by="bob")
    assert (stale.code, stale.json["error"]) == (1, "StateConflict"), "an edit of what is there no more"
    second = terminal.acp(*approve, "--edit", f"@{path}", by="bob")
    assert second.json["decisions"][0]["missing"] == 1, "an approval of other arguments does not count any more"
    unseen = terminal.acp(*approve, by="ann")
    assert unseen.code == 2
    edited = row(desk, "actions", made.action_id)["digest"]
    assert f"({edited[:12]})" in unseen.err
    last = terminal.acp(*approve, "--digest", edited[:12], by="ann")
    assert last.json["decisions"][0]["state"] == "queued"
    found = row(desk, "actions", made.action_id)
    assert found["resource"] == "customer_case:c3"
    assert json.loads(found["message"])["arguments"] == [["c3", "3.00"], {}]
    arrived = desk.arrive(made, digest=found["digest"], arguments={"case_id": "c3", "amount_usd": "3.00"})
    assert isinstance(arrived, Admitted)
    assert audit.verify(desk.gov).problems == ()


def test_arguments_that_cannot_be_are_refused(terminal: Terminal, desk: Desk) -> None:
    refund, unknown = action(desk, "case.refund"), action(desk, "theirs.task")

    def edited(made: Submission, text: str, *more: str, **env: str) -> tuple[int, str | None, str]:
        words = ("approvals", "approve", made.action_id, *more, "--reason", "r", "--edit", text, "--json")
        ran = terminal.acp(*words, **env)
        return ran.code, ran.json.get("error"), ran.err

    code, error, said = edited(refund, '{"case_id": "c2"}')
    assert (code, error) == (2, "InvalidOption")
    assert "what case.refund takes, (case_id: str, amount_usd: str)" in said
    assert "missing a required argument: 'amount_usd'" in said
    assert "a JSON object of keyword arguments" in edited(refund, "[1, 2]")[2]
    assert edited(refund, "{")[:2] == (2, "InvalidOption")
    assert "a readable file" in edited(refund, "@absent.json")[2]
    assert edited(refund, '{"case_id": NaN, "amount_usd": "1"}')[:2] == (2, "ArgumentsNotJson")
    large = json.dumps({"case_id": "c" * 2000, "amount_usd": "1"})
    assert edited(refund, large, ACP_ARGUMENTS_BYTES_MAX="1024")[:2] == (2, "ArgumentsTooLarge")
    assert "one by one" in edited(refund, "{}", unknown.action_id)[2]
    assert row(desk, "tickets", refund.action_id)["step"] == 1
    code, error, said = edited(unknown, '{"n": 1}')
    assert (code, error) == (0, None)
    assert "does not know theirs.task" in said
    assert row(desk, "actions", unknown.action_id)["resource"] == "customer_case:c1"
