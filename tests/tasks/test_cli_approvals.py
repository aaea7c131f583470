"""Deciding on the command line: real processes, real tokens, a real database."""

from governance.core.instants import SECOND_US
from governance.operations import audit
from tests.support.asking import LEADS, action, payloads, row
from tests.support.governed import Desk
from tests.support.terminal import Terminal


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
    assert shown["why"] == {"rule": "two-leads", "reason": "money leaves", "policy_changed": False}
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
