"""Deciding on the command line: real processes, real tokens, a real database."""

import json
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from acp_tasks.message import arguments_json, digest, pack
from governance.clock import SystemClock
from governance.core.actions import Submission
from governance.core.instants import SECOND_US
from governance.core.policy import Risk
from governance.operations import audit
from governance.operations.admit import Admitted
from tests.support.governed import POLICY, Desk, make_governance
from tests.support.terminal import Terminal

RULES = """rules:
  - id: two-leads
    match: {action: case.refund}
    effect: approval
    reason: "money leaves"
    approval: {chain: [{first: team-lead 15m}, {then: on-call 30m}, {then: deny}], approvals: 2}
"""
LEADS = ("ann", "bob", "u1")


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path, policy=POLICY.replace("rules:\n", RULES))


@pytest.fixture
def desk(terminal: Terminal) -> Iterator[Desk]:
    gov = make_governance(f"sqlite:///{terminal.database}", clock=SystemClock(), policy=terminal.policy)
    terminal.enroll("root", "admin")
    yield Desk(gov)
    gov.store.close()


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


def test_the_brief_has_everything_a_decision_needs(terminal: Terminal, desk: Desk) -> None:
    earlier, made = action(desk, "case.refund"), action(desk, "case.refund")
    assert terminal.acp("approvals", "deny", earlier.action_id, "--reason", "twice already").code == 0
    shown = terminal.acp("approvals", "show", made.action_id, "--json").json
    ticket = shown["ticket"]
    assert (ticket["state"], ticket["level"], ticket["levels"]) == ("pending", 0, 2)
    assert (ticket["roles"], ticket["votes"], ticket["wanted"]) == (["team-lead"], [], 2)
    assert ticket["requested"] < ticket["due"] < ticket["expires"]
    assert ticket["then"] == (
        f"team-lead is asked until {ticket['due']}, then on-call as well until {ticket['expires']}, then it is denied"
    )
    assert shown["what"]["summary"] == 'runs case.refund(amount_usd="5.00", case_id="c1") on "customer_case:c1"'
    assert shown["what"]["arguments"] == {"args": [], "kwargs": {"case_id": "c1", "amount_usd": "5.00"}}
    assert shown["what"]["digest"] == made.digest
    assert shown["why"] == {"rule": "two-leads", "reason": "money leaves"}
    assert {name: value for name, value in shown["who"].items() if name != "session_id"} == {
        "agent_id": "desk-1",
        "user": "u1",
        "team": "t1",
        "org": "o1",
        "stream": "default",
        "correlation_id": made.action_id,
    }
    assert shown["charged_to"] == shown["who"]["session_id"]
    assert (shown["risk"], shown["model"], shown["cost_micros"], shown["tokens"]) == ("high", "small-model", 1000, 10)
    assert {b["unit"]: (b["before"], b["after"], b["limit_amount"], b["fits"]) for b in shown["budgets"]} == {
        "cost_micros": (0, 1000, 1_000_000, True),
        "tokens": (0, 10, 100_000, True),
        "actions": (0, 1, 1000, True),
    }
    assert [(one["id"], one["state"], one["resource"]) for one in shown["recent"]] == [
        (earlier.action_id, "denied", "customer_case:c1")
    ]
    assert [(one["decision"], one["by"], one["reason"]) for one in shown["earlier"]] == [
        ("denied", "principal:root", "twice already")
    ]
    text = terminal.acp("approvals", "show", ticket["id"]).out
    for said in (
        ticket["id"],
        "1 of 2",
        "0 of 2",
        "team-lead",
        ticket["then"],
        shown["what"]["summary"],
        '{"amount_usd": "5.00", "case_id": "c1"}',
        "two-leads",
        "money leaves",
        "desk-1",
        "u1",
        "t1",
        "o1",
        shown["who"]["session_id"],
        "small-model",
        "$0.001",
        "$1.00",
        earlier.action_id,
        "twice already",
        "principal:root",
    ):
        assert said in text, said


def test_two_people_approve_together(terminal: Terminal, desk: Desk) -> None:
    for name in LEADS:
        terminal.enroll(name, "approver:team-lead")
    terminal.enroll("eve", "approver:on-call")
    made = action(desk, "case.refund")
    refused = terminal.acp("approvals", "approve", made.action_id, "--reason", "ok", "--json", by="eve")
    assert (refused.code, refused.json["error"]) == (3, "NotAllowed")
    assert "asks for approver:team-lead" in refused.err
    asker = terminal.acp("approvals", "approve", made.action_id, "--reason", "ok", "--json", by="u1")
    assert (asker.code, asker.json["error"]) == (3, "NotAllowed")
    assert "asked for themselves" in asker.err
    silent = terminal.acp("approvals", "approve", made.action_id, "--json", by="ann")
    assert (silent.code, silent.json["error"]) == (2, "InvalidOption")
    assert "high risk says why" in silent.err

    first = terminal.acp("approvals", "approve", made.action_id, "--reason", "seen", by="ann")
    assert first.code == 0, first.err
    assert "this approval counts, 1 more is wanted" in first.out
    assert row(desk, "actions", made.action_id)["publish_count"] == 1
    listed = terminal.acp("approvals", "list", "--json").json["approvals"][0]
    assert [(vote["by"], vote["reason"]) for vote in listed["votes"]] == [("ann", "seen")]
    assert (listed["wanted"], listed["missing"], listed["roles"], listed["level"]) == (2, 1, ["team-lead"], 0)

    twice = terminal.acp("approvals", "approve", made.action_id, "--reason", "again", "--json", by="ann")
    assert (twice.code, twice.json["error"]) == (1, "StateConflict")
    assert "2 different people" in twice.err
    second = terminal.acp("approvals", "approve", made.action_id, "--reason", "me too", "--json", by="bob")
    decision = second.json["decisions"][0]
    assert (decision["state"], decision["missing"], decision["published"]) == ("queued", 0, False)
    assert row(desk, "tickets", made.action_id)["decided_by"] == "principal:bob"
    assert audit.verify(desk.gov).problems == ()


def test_a_list_for_a_role(terminal: Terminal, desk: Desk) -> None:
    two, one = action(desk, "case.refund"), action(desk)

    def ids(role: str) -> set[str]:
        listed = terminal.acp("approvals", "list", "--role", role, "--json").json["approvals"]
        return {line["action_id"] for line in listed}

    assert ids("team-lead") == {two.action_id, one.action_id}
    assert ids("approver:on-call") == {one.action_id}
    assert terminal.acp("approvals", "list", "--role", "x", "--all").code == 2
    shown = terminal.acp("approvals", "list").out
    assert "0/2" in shown
    assert "team-lead" in shown


def test_a_batch_is_decided_whole_or_not_at_all(terminal: Terminal, desk: Desk) -> None:
    first, second = action(desk), action(desk)
    both = (first.action_id, second.action_id)
    for command in ("approve", "deny"):
        ran = terminal.acp("approvals", command, both[0], "nobody", both[1], "--reason", "r", "--json")
        assert (ran.code, ran.json["error"]) == (1, "NotFound")
        assert "'nobody'" in ran.err
    assert {row(desk, "actions", id_)["state"] for id_ in both} == {"parked"}
    assert {row(desk, "tickets", id_)["step"] for id_ in both} == {1}
    decided = terminal.acp("approvals", "deny", *both, both[0], "--reason", "no", "--command-id", "d1", "--json")
    assert [(one["action_id"], one["state"], one["published"]) for one in decided.json["decisions"]] == [
        (id_, "denied", False) for id_ in both
    ]
    assert {row(desk, "actions", id_)["published_us"] for id_ in both} == {None}
    repeated = terminal.acp("approvals", "deny", *both, "--reason", "no", "--command-id", "d1", "--json")
    assert [one["repeated"] for one in repeated.json["decisions"]] == [True, True]
    other = terminal.acp("approvals", "deny", both[0], "--reason", "no", "--command-id", "d1", "--json")
    assert (other.code, other.json["error"]) == (2, "CommandConflict")


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
    assert message["options"]["headers"]["acp"] == {"command_id": "x", "agent_id": "desk-1", "edited": True}
    assert row(desk, "tickets", made.action_id)["digest"] == expected
    voted = payloads(desk, made.action_id, "ticket.voted")[0]
    assert (voted["digest"], voted["digest_before"], voted["reason"]) == (expected, made.digest, "less")
    shown = terminal.acp("approvals", "show", made.action_id, "--json").json["what"]
    assert [(edit["by"], edit["digest_before"]) for edit in shown["edits"]] == [("principal:ann", made.digest)]

    path = terminal.folder / "arguments.json"
    path.write_text('[["c3", "3.00"], {}]')
    second = terminal.acp(*approve, "--edit", f"@{path}", by="bob")
    assert second.json["decisions"][0]["missing"] == 1, "an approval of other arguments does not count any more"
    last = terminal.acp(*approve, by="ann")
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


def test_a_grant_stands_for_later_actions_and_is_revoked(terminal: Terminal, desk: Desk) -> None:
    approve = ("approvals", "approve", "--reason", "ok", "--json")
    none = action(desk)
    given = terminal.acp(*approve, none.action_id, "--for-session", "--max-uses", "0").json["decisions"][0]
    assert given["grant_id"]
    never = action(desk)
    assert desk.state(never) == "parked"
    lasting = terminal.acp(
        *approve, never.action_id, "--until", "2h", "--max-cost-usd", "0.0025", "--resource", "customer_case:*"
    ).json["decisions"][0]["grant_id"]
    assert desk.state(action(desk)) == "queued"
    for _ in range(2):
        desk.admitted(action(desk))
    assert desk.state(action(desk)) == "parked", "a third one would cost more than was granted"
    listed = terminal.acp("grants", "list", "--json").json["grants"]
    assert [(line["id"], line["uses"], line["cost_micros"], line["created_by"]) for line in listed] == [
        (lasting, 2, 2000, "principal:root")
    ]
    everything = terminal.acp("grants", "list", "--all", "--json").json["grants"]
    assert {line["id"]: line["state"] for line in everything} == {lasting: "lasting", given["grant_id"]: "used_up"}
    assert "2 of any" in terminal.acp("grants", "list").out

    assert terminal.acp("grants", "revoke", lasting).code == 2
    absent = terminal.acp("grants", "revoke", "nobody", "--reason", "x", "--json")
    assert (absent.code, absent.json["error"]) == (1, "NotFound")
    terminal.enroll("vic", "viewer")
    assert terminal.acp("grants", "revoke", lasting, "--reason", "x", by="vic").code == 3
    assert terminal.acp("grants", "revoke", lasting, "--reason", "enough", "--json").json["state"] == "revoked"
    again = terminal.acp("grants", "revoke", lasting, "--reason", "enough", "--json")
    assert (again.code, again.json["error"]) == (1, "StateConflict")
    assert "no grant lasts" in terminal.acp("grants", "list").out
    assert audit.verify(desk.gov).problems == ()


def test_the_vote_that_releases_gives_the_grant(terminal: Terminal, desk: Desk) -> None:
    for name in LEADS:
        terminal.enroll(name, "approver:team-lead")
    made = action(desk, "case.refund")
    words = ("approvals", "approve", made.action_id, "--reason", "ok", "--for-session")
    assert "no grant was given" in terminal.acp(*words, by="ann").out
    assert "stands for later actions" in terminal.acp(*words, by="bob").out
    assert desk.state(action(desk, "case.refund")) == "queued"


def test_a_grant_with_senseless_bounds_is_refused(terminal: Terminal, desk: Desk) -> None:
    made = action(desk)
    for options, error in (
        (("--max-uses", "3"), "a grant does not last for ever"),
        (("--until", "2020-01-01T00:00:00Z"), "an instant to come"),
        (("--until", "2100-01-01"), "an instant with its zone"),
        (("--until", "soon"), "a duration such as"),
        (("--until", "2h", "--command-id", "d1"), "a repeat must say the same"),
        (("--for-session", "--max-cost-usd", "-1"), "0 or more USD"),
    ):
        ran = terminal.acp("approvals", "approve", made.action_id, "--reason", "ok", "--json", *options)
        assert ran.code == 2
        assert error in ran.err
    assert row(desk, "tickets", made.action_id)["step"] == 1


def test_an_extension_moves_both_ends(terminal: Terminal, desk: Desk) -> None:
    made = action(desk, "case.refund")
    before = row(desk, "tickets", made.action_id)
    extend = ("approvals", "extend", made.action_id, "--by", "30m", "--reason", "at lunch", "--command-id", "e1")
    ran = terminal.acp(*extend, "--json")
    assert ran.code == 0, ran.err
    after = row(desk, "tickets", made.action_id)
    assert after["due_us"] - before["due_us"] == after["expires_us"] - before["expires_us"] == 1800 * SECOND_US
    assert ran.json["then"].startswith(f"team-lead is asked until {ran.json['due']}, then on-call")
    assert terminal.acp(*extend, "--json").json["repeated"] is True
    assert row(desk, "tickets", made.action_id)["due_us"] == after["due_us"]
    assert [event["reason"] for event in payloads(desk, made.action_id, "ticket.extended")] == ["at lunch"]
    assert terminal.acp("approvals", "extend", made.action_id, "--by", "later", "--reason", "r").code == 2
    terminal.enroll("eve", "approver:on-call")
    assert terminal.acp("approvals", "extend", made.action_id, "--by", "1h", "--reason", "r", by="eve").code == 3


@pytest.mark.parametrize("as_json", [True, False])
def test_a_watch_in_a_pipe_tells_what_comes_and_goes(terminal: Terminal, desk: Desk, as_json: bool) -> None:
    waited = action(desk, "case.refund")
    watch = terminal.start("approvals", "watch", "--interval", "0.2", *(["--json"] if as_json else []))
    deadline = threading.Timer(60, watch.kill)
    deadline.start()
    try:
        assert watch.stdout is not None

        def told() -> tuple[str, str]:
            assert watch.stdout is not None
            line = watch.stdout.readline()
            assert line, watch.stderr and watch.stderr.read()
            if as_json:
                parsed = json.loads(line)
                return parsed["change"], parsed["id"]
            return line.split()[0], line.split()[1]

        ticket = row(desk, "tickets", waited.action_id)["id"]
        assert told() == ("new", ticket)
        made = action(desk)
        new = row(desk, "tickets", made.action_id)["id"]
        assert told() == ("new", new)
        terminal.enroll("ann", "approver:team-lead")
        assert terminal.acp("approvals", "approve", ticket, "--reason", "ok", by="ann").code == 0
        assert told() == ("changed", ticket)
        assert terminal.acp("approvals", "deny", new, "--reason", "no").code == 0
        assert told() == ("ended", new)
        watch.send_signal(signal.SIGINT)
        assert watch.wait(timeout=30) == 0
    finally:
        deadline.cancel()
        if watch.poll() is None:
            watch.kill()
        watch.communicate()


def test_a_watch_on_a_terminal_is_a_table(terminal: Terminal, desk: Desk) -> None:
    made = action(desk, "case.refund", case_id="c1", amount_usd="\x1b[2J")
    ours, theirs = os.openpty()
    watch = terminal.start("approvals", "watch", "--interval", "0.2", stdout=theirs, COLUMNS="200", TERM="xterm")
    os.close(theirs)
    try:
        shown = b""
        end = time.monotonic() + 30
        while row(desk, "tickets", made.action_id)["id"].encode() not in shown and time.monotonic() < end:
            if select.select([ours], [], [], 1)[0]:
                shown += os.read(ours, 65536)
        assert b"team-lead" in shown
        assert b"\x1b[2J" not in shown
        watch.send_signal(signal.SIGINT)
        assert watch.wait(timeout=30) == 0
    finally:
        if watch.poll() is None:
            watch.kill()
        watch.communicate()
        os.close(ours)
