"""`acp identities`, `acp usage` and the signing keys, as people type them."""

from governance.core.ledger import Usage
from tests.support.governed import Desk
from tests.support.terminal import Terminal

FILE = "version: 1\norgs: [o1]\nteams: {t1: o1}\nusers: {u1: t1, ann: t1}\n"
SECRETS = "k2:the-second-secret-of-all k1:the-first-secret-of-all"


def test_a_directory_is_loaded_listed_and_shown_and_usage_goes_by_it(terminal: Terminal, desk: Desk) -> None:
    path = terminal.folder / "directory.yaml"
    path.write_text(FILE)
    terminal.enroll("ann", "approver")
    assert terminal.acp("identities", "load", "directory.yaml", by="ann").code == 3
    loaded = terminal.acp("identities", "load", "directory.yaml", "--command-id", "l1", "--json")
    assert (loaded.code, loaded.json["users"], loaded.json["repeated"]) == (0, 2, False), loaded.err
    assert terminal.acp("identities", "load", "directory.yaml", "--command-id", "l1", "--json").json["repeated"]
    path.write_text(FILE + "  u1: t1\nusers: {u2: t9}\n")
    refused = terminal.acp("identities", "load", "directory.yaml")
    assert refused.code == 2
    assert "directory.yaml is refused as a whole, nothing of it was loaded" in refused.err
    listed = terminal.acp("identities", "list")
    assert "2 users in 1 teams of 1 orgs" in listed.out
    assert "principal:root" in listed.out
    shown = terminal.acp("identities", "show", "u1", "--json").json
    assert shown == {"user": "u1", "team": "t1", "org": "o1", "filled": ["org", "team"], "contradiction": None}
    assert terminal.acp("identities", "show", "u9").code == 1

    desk.finish(desk.admitted(desk.submit(user="u1")), usage=Usage(1500, 7))
    desk.finish(desk.admitted(desk.submit(agent_id="=1+1")), usage=Usage(500, 1))
    lines = terminal.acp("usage", "--by", "org", "--json").json["lines"]
    assert [(line["name"], line["actions"], line["tokens"], line["cost_micros"]) for line in lines] == [
        ("o1", 1, 7, 1500),
        (None, 1, 1, 500),
    ]
    people = terminal.acp("usage", "--by", "org", "--window", "week")
    assert "o1" in people.out
    assert "$0.0015" in people.out
    assert "#" * 24 in people.out
    sheet = terminal.acp("usage", "--by", "agent", "--csv").out.splitlines()
    assert sheet == ["agent,actions,tokens,cost_usd", ",1,7,0.0015", "'=1+1,1,1,0.0005"]
    fit = terminal.acp("usage", "summary", "--json").json["limits"]
    assert {line["fit"] for line in fit} == {"fits"}
    assert "its window is not over yet" in terminal.acp("usage", "summary").out


def test_signing_keys_are_checked_and_never_shown(terminal: Terminal, desk: Desk) -> None:
    told = terminal.acp("doctor", "--json", ACP_SIGNING_KEYS=SECRETS)
    assert told.json["settings"]["signing_keys"] == "k2:*** k1:***"
    (finding,) = (check for check in told.json["checks"] if check["name"] == "signing")
    assert finding["detail"] == "this process signs with k2, k1 is known besides; what is not signed is refused"
    assert "secret-of-all" not in told.out + told.err
    for wrong in ("k1:short", "the-first-secret-of-all", "k1:the-first-secret-of-all k1:the-first-secret-of-all"):
        refused = terminal.acp("doctor", ACP_SIGNING_KEYS=wrong)
        assert refused.code == 5
        assert "ACP_SIGNING_KEYS=***" in refused.err
        assert "secret-of-all" not in refused.err
