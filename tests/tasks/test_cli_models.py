"""`acp models`, and what `acp policy explain` says of a model, in a terminal."""

from pathlib import Path

from tests.support.terminal import Terminal


def test_models_are_listed_priced_and_checked(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    assert terminal.acp("db", "upgrade").code == 0
    listed = terminal.acp("models", "list", "--json").json
    assert [line["tier"] for line in listed["tiers"]] == ["standard", "premium", "restricted"]
    assert listed["tiers"][1]["open_to"] == ["team t1, risk low|medium"]
    assert listed["unknown"] == "refuse"
    (override,) = listed["overrides"]
    assert (override["id"], override["reason"], override["state"]) == ("trial", "a trial", "lasts")
    assert "2028-01-01T00:00:00Z" in terminal.acp("models", "list").out

    priced = terminal.acp("models", "prices", "small-1", "gpt-4o-mini", "--json")
    own, known = priced.json["prices"]
    assert (own["input_micros"], own["cached_micros"], own["output_micros"]) == (1_000_000, 500_000, 4_000_000)
    assert known["table"].startswith("genai-prices")
    unknown = terminal.acp("models", "prices", "nobody-knows-it")
    assert (unknown.code, "unknown" in unknown.out) == (1, True)

    may = terminal.acp("models", "check", "large-1", "--team", "t1", "--risk", "low", "--json")
    assert (may.code, may.json["access"], may.json["tier"]) == (0, "allowed", "premium")
    not_so = terminal.acp("models", "check", "large-1", "--team", "t1", "--json")
    assert (not_so.code, not_so.json["rule"]) == (3, "model:premium")
    excepted = terminal.acp("models", "check", "secret-1", "--user", "u9", "--json")
    assert (excepted.code, excepted.json["override"]["id"]) == (0, "trial")

    explain = ("policy", "explain", "--action", "case.reply", "--risk", "low", "--json")
    allowed = terminal.acp(*explain, "--model", "small-1")
    assert (allowed.code, allowed.json["verdict"], allowed.json["model"]["access"]) == (0, "allow", "allowed")
    refused = terminal.acp(*explain, "--model", "large-1")
    assert (refused.code, refused.json["verdict"], refused.json["model"]["rule"]) == (3, "allow", "model:premium")

    (tmp_path / "directory.yaml").write_text("{version: 1, orgs: [o1], teams: {t1: o1}, users: {u1: t1}}")
    terminal.enroll("root", "admin")
    assert terminal.acp("identities", "load", "directory.yaml", by="root").code == 0
    filled = terminal.acp("models", "check", "large-1", "--user", "u1", "--risk", "low", "--json")
    assert (filled.code, filled.json["access"]) == (0, "allowed"), "u1 is of team t1"
    filled = terminal.acp(*explain, "--model", "large-1", "--user", "u1")
    assert (filled.code, filled.json["model"]["access"]) == (0, "allowed")
    assert filled.json["identity"] == {"user": "u1", "team": "t1", "org": "o1"}
    contradicted = terminal.acp(*explain, "--user", "u1", "--team", "t2")
    assert (contradicted.code, contradicted.json["rule"]) == (3, "identity:contradiction")
    check = ("models", "check", "small-1", "--risk", "low", "--json")
    assert terminal.acp(*check).code == 0
    contradicted = terminal.acp(*check, "--user", "u1", "--team", "t2")
    assert (contradicted.code, contradicted.json["access"]) == (3, "refused")
    assert contradicted.json["rule"] == "identity:contradiction"
    assert "user u1 belongs to team t1 by the directory" in contradicted.json["reason"]
    strict = tmp_path / "strict.yaml"
    strict.write_text(f"require_identity: [org]\n{terminal.policy}")
    nobody = terminal.acp(*check, ACP_POLICY=str(strict))
    assert (nobody.code, nobody.json["rule"]) == (3, "identity:missing")
    assert terminal.acp(*check, "--user", "u1", ACP_POLICY=str(strict)).code == 0, "u1 is of org o1"

    stopped = terminal.acp("stop", "--model", "Small-*", "--mode", "pause", "--reason", "it raves", by="root")
    assert stopped.code == 0, stopped.err
    paused = terminal.acp("models", "check", "small-1", "--json")
    assert (paused.code, paused.json["rule"], paused.json["reason"]) == (3, "switch:model:Small-*", "it raves")
    assert terminal.acp("models", "check", "large-1", "--team", "t1", "--risk", "low").code == 0
