"""The command line as people and scripts meet it: real processes, a real database, their output and exit codes."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from governance.clock import SystemClock
from governance.core.actions import Submission
from governance.core.ledger import Usage
from governance.core.policy import Risk
from governance.operations import audit, heartbeat
from governance.operations.recover import child_gone
from tests.support.governed import LEASE, Desk, make_governance, policy_file
from tests.support.terminal import Terminal

MESSAGE = '{"task":"case.refund","arguments":[["c1"],{"note":"\\u001b[31mred"}],"options":{}}'


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


@pytest.fixture
def desk(terminal: Terminal) -> Iterator[Desk]:
    gov = make_governance(f"sqlite:///{terminal.database}", clock=SystemClock())
    terminal.enroll("root", "admin")
    yield Desk(gov)
    gov.store.close()


def refund(desk: Desk) -> Submission:
    return desk.submit(
        name="case.refund", risk=Risk.HIGH, user="u1", org="o1", resource="customer_case:c1", message=MESSAGE
    )


def in_doubt(desk: Desk) -> Submission:
    made = desk.submit(idempotent=False)
    desk.admitted(made)
    child_gone(desk.gov, LEASE.worker_id, LEASE.child, "its child died")
    return made


def test_actions_are_listed_and_shown(terminal: Terminal, desk: Desk) -> None:
    done, parked = desk.submit(), refund(desk)
    desk.finish(desk.admitted(done), usage=Usage(600, 7))
    listed = terminal.acp("actions", "list", "--json")
    assert [line["id"] for line in listed.json["actions"]] == [parked.action_id, done.action_id]
    assert [line["id"] for line in terminal.acp("actions", "list", "--state", "parked", "--json").json["actions"]] == [
        parked.action_id
    ]
    shown = terminal.acp("actions", "show", done.action_id, "--json").json
    assert shown["action"]["state"] == "succeeded"
    assert shown["action"]["created"].endswith("Z")
    assert {spent["unit"]: spent["posted"] for spent in shown["spent"]} == {
        "actions": 1,
        "cost_micros": 600,
        "tokens": 7,
    }
    assert [event["kind"] for event in shown["history"]] == ["action.submitted", "action.admitted", "action.succeeded"]


def test_what_an_agent_wrote_does_not_reach_the_terminal_as_a_command(terminal: Terminal, desk: Desk) -> None:
    parked = desk.submit(risk=Risk.HIGH, resource="\x1b[2J[bold]c1", message=MESSAGE)
    for command in (("actions", "show", parked.action_id), ("approvals", "list"), ("events", "tail")):
        written = terminal.acp(*command)
        assert written.code == 0
        assert "\x1b" not in written.out
    assert "\\x1b[2J[bold]c1" in terminal.acp("approvals", "list").out


def test_an_approval_outlives_a_broker_that_is_away(terminal: Terminal, desk: Desk) -> None:
    made = refund(desk)
    waiting = terminal.acp("approvals", "list", "--json").json["approvals"]
    assert [(line["action_id"], line["arguments"]["args"], line["user"]) for line in waiting] == [
        (made.action_id, ["c1"], "u1")
    ]
    approved = terminal.acp("approvals", "approve", made.action_id, "--reason", "fine", "--command-id", "d1")
    assert approved.code == 0, approved.err
    assert "is queued" in approved.out
    assert "the relay publishes it" in approved.out
    assert desk.state(made) == "queued"
    repeated = terminal.acp(
        "approvals", "approve", made.action_id, "--reason", "fine", "--command-id", "d1", "--json"
    ).json
    assert repeated["decisions"][0]["repeated"] is True
    assert terminal.acp("approvals", "list", "--json").json == {"approvals": []}
    decided = terminal.acp("approvals", "list", "--all", "--json").json["approvals"]
    assert decided[0]["decided_by"] == "principal:root"


def test_an_action_in_doubt_is_resolved(terminal: Terminal, desk: Desk) -> None:
    made = in_doubt(desk)
    (listed,) = terminal.acp("recovery", "list", "--json").json["in_doubt"]
    assert (listed["action_id"], listed["command_id"]) == (made.action_id, made.command_id)
    assert made.action_id in terminal.acp("recovery", "list").out
    bad = terminal.acp("recovery", "resolve", made.action_id, "--as", "maybe", "--reason", "x", "--json")
    assert (bad.code, bad.json["error"]) == (2, "InvalidOption")
    good = terminal.acp("recovery", "resolve", made.action_id, "--as", "succeeded", "--reason", "seen", "--json")
    assert good.code == 0
    assert (good.json["action_id"], good.json["state"]) == (made.action_id, "succeeded")
    assert (good.json["repeated"], good.json["published"]) == (False, False)
    again = terminal.acp("actions", "resolve", made.action_id, "--as", "failed", "--reason", "x")
    assert again.code == 1
    assert "only an action in doubt is resolved" in again.err
    assert "nothing is in doubt" in terminal.acp("recovery", "list").out


def test_a_command_id_with_other_content_is_a_conflict(terminal: Terminal, desk: Desk) -> None:
    made = refund(desk)
    assert terminal.acp("approvals", "deny", made.action_id, "--reason", "no", "--command-id", "d1").code == 0
    other = terminal.acp("approvals", "deny", made.action_id, "--reason", "other", "--command-id", "d1", "--json")
    assert (other.code, other.json["error"]) == (2, "CommandConflict")


@pytest.mark.parametrize(
    "command",
    [
        ("actions", "show", "nobody"),
        ("recovery", "resolve", "nobody", "--as", "retry", "--reason", "x"),
        ("approvals", "approve", "nobody"),
        ("events", "replay", "--session", "nobody"),
        ("budget", "show", "--session", "nobody"),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_an_unknown_id_fails_and_says_where_to_look(terminal: Terminal, desk: Desk, command: tuple[str, ...]) -> None:
    ran = terminal.acp(*command, "--json")
    assert (ran.code, ran.json["error"]) == (1, "NotFound")
    assert ran.json["message"] in ran.err
    assert "nobody" in ran.err
    assert "acp " in ran.json["message"]


def test_the_trail_is_followed_by_number(terminal: Terminal, desk: Desk) -> None:
    desk.finish(desk.admitted(desk.submit()))
    tail = terminal.acp("events", "tail", "-n", "2", "--json").lines
    assert [event["kind"] for event in tail] == ["action.admitted", "action.succeeded"]
    session = tail[0]["session_id"]
    replayed = terminal.acp("events", "replay", "--session", session, "--json").lines
    assert [event["seq"] for event in replayed] == [1, 2, 3, 4]
    after = terminal.acp("events", "replay", "--session", session, "--after", "3", "--json").lines
    assert after == replayed[3:]
    assert after[0]["payload"]["posted"]


def test_an_audit_that_fails_names_the_event(terminal: Terminal, desk: Desk) -> None:
    desk.finish(desk.admitted(desk.submit()))
    audit.seal(desk.gov)
    fine = terminal.acp("audit", "verify", "--json")
    assert fine.code == 0
    assert fine.json == {"ok": True, "events": 6, "actions": 1, "accounts": 6, "problems": [], "anchors": []}
    with sqlite3.connect(terminal.database) as connection:
        connection.execute("DROP TRIGGER events_sealed_once")
        connection.execute("UPDATE events SET payload = '{}' WHERE seq = 3")
    connection.close()
    broken = terminal.acp("audit", "verify", "--json")
    assert broken.code == 1
    assert broken.json["ok"] is False
    assert "3" in broken.json["problems"][0]
    assert "NOT verified" in terminal.acp("audit", "verify").out


def test_a_budget_shows_what_is_left(terminal: Terminal, desk: Desk) -> None:
    desk.finish(desk.admitted(desk.submit()), usage=Usage(600, 7))
    desk.admitted(desk.submit())
    shown = terminal.acp("budget", "show", "--json").json["budgets"]
    budgets = {line["unit"]: line for line in shown if line["scope_id"].startswith("default@")}
    cost = budgets["cost_micros"]
    assert (cost["limit_amount"], cost["posted"], cost["held"], cost["left"]) == (1_000_000, 600, 1000, 998_400)
    text = terminal.acp("budget", "show", "--session", cost["scope_id"]).out
    assert "$0.9984" in text
    assert cost["window_end"] in text


def test_a_policy_is_validated_shown_and_explained(terminal: Terminal) -> None:
    valid = terminal.acp("policy", "validate", str(policy_file(terminal.folder)), "--json").json
    shown = terminal.acp("policy", "show", "--json").json
    assert valid["hash"] == shown["hash"]
    assert [rule["id"] for rule in shown["rules"]] == ["no-secrets", "never", "ask", "routine", "no-bulk"]
    allowed = terminal.acp("policy", "explain", "--action", "case.reply", "--risk", "low", "--arg", "n=1", "--json")
    assert (allowed.code, allowed.json["verdict"], allowed.json["rule"]) == (0, "allow", "routine")
    asked = terminal.acp("policy", "explain", "--action", "case.reply", "--json")
    assert (asked.code, asked.json["verdict"], asked.json["timeout_s"]) == (0, "park", 900)
    refused = terminal.acp("policy", "explain", "--action", "mail.bulk", "--risk", "low")
    assert refused.code == 3
    assert "Answer the case." in refused.out
    amount = terminal.acp("policy", "explain", "--action", "x", "--cost-usd", "nan", "--json")
    assert (amount.code, amount.json["error"]) == (2, "InvalidAmount")
    assert terminal.acp("policy", "explain", "--action", "x", "--arg", "nothing").code == 2


def test_a_policy_with_an_error_is_refused_with_its_line(terminal: Terminal) -> None:
    path = terminal.folder / "bad.yaml"
    path.write_text("version: 1\nstreams: {}\nrules: []\nbogus: 1\n")
    ran = terminal.acp("policy", "validate", str(path), "--json")
    assert (ran.code, ran.json["error"]) == (2, "PolicyInvalid")
    assert "line 4, bogus" in ran.json["message"]
    assert terminal.acp("policy", "validate", "absent.yaml").code == 2


def test_a_database_that_is_behind_says_what_to_run(terminal: Terminal) -> None:
    for command in (("actions", "list"), ("audit", "verify"), ("db", "check")):
        behind = terminal.acp(*command, "--json")
        assert (behind.code, behind.json["error"]) == (5, "SchemaMismatch")
        assert "run `acp db upgrade`" in behind.err
    assert terminal.acp("db", "upgrade").code == 0
    assert terminal.acp("db", "check", "--json").json["revision"]
    assert terminal.acp("actions", "list", "--json").json == {"actions": []}


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("ACP_DATABASE_URL", "postgresql://me:hush@127.0.0.1:1/none", "StoreUnavailable"),
        ("ACP_DATABASE_URL", "sqlite:////nowhere/at/all.db", "StoreUnavailable"),
        ("ACP_DATABASE_URL", "mysql://me:hush@127.0.0.1/none", "SettingsInvalid"),
        ("ACP_STATE_DIR", "/dev/null/state", "StateDirUnusable"),
    ],
)
def test_what_is_not_ready_is_named_without_its_password(terminal: Terminal, name: str, value: str, error: str) -> None:
    ran = terminal.acp("actions", "list", "--json", **{name: value})
    assert (ran.code, ran.json["error"]) == (5, error)
    assert ran.json["message"] in ran.err
    assert "hush" not in ran.out + ran.err


def test_it_is_a_command_of_celery_and_publishes_with_its_app(terminal: Terminal, desk: Desk) -> None:
    made = refund(desk)
    (terminal.folder / "theirs.py").write_text(
        'from celery import Celery\napp = Celery("theirs", task_cls="acp_tasks:GovernedTask", '
        'broker="filesystem://", set_as_current=False)\n'
        'app.conf.broker_transport_options = {"data_folder_in": ".", "data_folder_out": ".", "control_folder": "."}\n'
    )
    ran = terminal.celery("-A", "theirs", "acp", "approvals", "approve", made.action_id, "--reason", "ok", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["decisions"][0]["published"] is True
    assert [made.action_id in path.read_text() for path in terminal.folder.glob("*.msg")] == [True]
    missing = terminal.celery("-A", "theirs", "acp", "actions", "show", "nobody", "--json")
    assert (missing.code, missing.json["error"]) == (1, "NotFound")


def test_help_needs_nothing_and_a_wrong_word_is_usage(terminal: Terminal) -> None:
    assert "doctor" in terminal.acp("--help", ACP_DATABASE_URL="nonsense").out
    for wrong in (("nonsense",), ("actions", "list", "--state", "gone"), ("approvals", "deny", "x")):
        assert terminal.acp(*wrong).code == 2


@pytest.mark.postgres
@pytest.mark.fleet
def test_everything_reads_from_postgresql_and_publishes(
    terminal: Terminal, postgres_url: str, broker_address: str
) -> None:
    ready = {"ACP_DATABASE_URL": postgres_url, "ACP_BROKER_URL": broker_address}
    assert terminal.acp("db", "upgrade", **ready).code == 0
    gov = make_governance(postgres_url, clock=SystemClock())
    try:
        terminal.enroll("root", "admin", **ready)
        desk = Desk(gov)
        desk.finish(desk.admitted(desk.submit()), usage=Usage(600, 7))
        made = refund(desk)
        approved = terminal.acp("approvals", "approve", made.action_id, "--reason", "ok", "--json", **ready)
        assert approved.json["decisions"][0]["published"] is True, approved.err
        shown = terminal.acp("actions", "show", made.action_id, "--json", **ready).json
        assert shown["ticket"]["state"] == "approved"
        assert terminal.acp("audit", "verify", "--json", **ready).json["ok"] is True
        heartbeat.register(gov, "celery@here#1", 4711, heartbeat.Post("here", ("celery", "acp-control"), 2))
        heartbeat.scheduler_alive(gov, "beat@here#1", "here", 4712)
        doctor = terminal.acp("doctor", "--json", **ready)
        # The tests' broker keeps nothing on disk.
        assert {check["name"] for check in doctor.json["checks"] if check["status"] != "ok"} == {"broker persistence"}
        assert doctor.code == 0
    finally:
        gov.store.close()
