"""Grants on the command line: given with an approval, used, listed, revoked."""

from governance.operations import audit
from tests.support.asking import LEADS, action, row
from tests.support.governed import Desk
from tests.support.terminal import Terminal


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


def test_a_grant_is_given_when_everybody_asks_for_it(terminal: Terminal, desk: Desk) -> None:
    for name in LEADS:
        terminal.enroll(name, "approver:team-lead")
    made = action(desk, "case.refund")
    words = ("approvals", "approve", made.action_id, "--reason", "ok", "--for-session")
    assert "everybody whose approval is wanted has to ask for the same" in terminal.acp(*words, by="ann").out
    more = terminal.acp(*words, "--max-uses", "9", by="bob")
    assert (more.code, "ann asked for a grant for the session" in more.err) == (2, True), more.err
    assert ", with a grant for the session: ok" in terminal.acp("approvals", "show", made.action_id).out
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
