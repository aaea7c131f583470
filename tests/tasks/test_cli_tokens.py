"""How a token is presented: by the variable, by the state directory, or typed at a prompt that shows nothing."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.terminal import Terminal


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    terminal = Terminal(tmp_path)
    assert terminal.acp("db", "upgrade").code == 0
    terminal.enroll("root", "admin")
    return terminal


def typed(terminal: Terminal, text: str, *args: str) -> tuple[int, str]:
    """Runs a command at a terminal where somebody types `text` when asked; its code, and all that the screen showed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "acp_tasks.cli", *args],
        cwd=terminal.folder,
        env=terminal._environment("nobody", {}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = ""
    asked = False
    while True:
        try:
            read = os.read(ours, 4096).decode()
        except OSError:  # the other side has ended
            break
        if not read:
            break
        shown += read
        if not asked and "token: " in shown:
            asked = True
            os.write(ours, f"{text}\n".encode())
    os.close(ours)
    return process.wait(timeout=60), shown


def test_a_token_can_be_typed_and_is_not_shown(terminal: Terminal) -> None:
    token = terminal.tokens["root"]
    code, shown = typed(terminal, token, "stop", "--agent", "a1", "--reason", "it misbehaves", "--no-wait")
    assert code == 0, shown
    assert token not in shown
    (switch,) = terminal.acp("status", "--json").json["switches"]
    assert switch["engaged_by"] == "principal:root"


def test_a_wrong_one_is_refused(terminal: Terminal) -> None:
    code, shown = typed(terminal, "acp_made_up", "stop", "--agent", "a1", "--reason", "no", "--no-wait")
    assert code == 3, shown
    assert terminal.acp("status", "--json").json["switches"] == []


def test_where_nobody_can_type_it_has_to_be_in_the_variable(terminal: Terminal) -> None:
    ran = terminal.acp("stop", "--agent", "a1", "--reason", "no", by="nobody")
    assert ran.code == 3
    assert "ACP_TOKEN is not set" in ran.err


def test_every_decision_stop_and_release_says_whose_token_it_was(terminal: Terminal) -> None:
    terminal.enroll("olga", "operator")
    stopped = terminal.acp("stop", "--agent", "a1", "--reason", "no", "--no-wait", "--json", by="olga")
    assert stopped.code == 0, stopped.err
    released = terminal.acp("release", stopped.json["switch_id"], "--reason", "safe", by="olga")
    assert released.code == 0, released.err
    events = terminal.acp("events", "tail", "--json").lines
    told = {event["kind"]: event["actor"] for event in events if event["kind"].startswith("switch.")}
    assert told == {"switch.engaged": "principal:olga", "switch.released": "principal:olga"}


def test_a_token_that_is_revoked_between_look_and_decision_decides_nothing(terminal: Terminal) -> None:
    made = terminal.acp("tokens", "create", "ann", "--role", "approver", "--role", "operator", "--json").json
    listed = {line["principal"]: line for line in terminal.acp("tokens", "list", "--json").json["tokens"]}
    assert (listed["ann"]["state"], listed["ann"]["roles"]) == ("live", ["approver", "operator"])
    assert made["token"].rpartition("_")[2] not in terminal.acp("tokens", "list").out
    terminal.tokens["ann"] = made["token"]
    stop = ("stop", "--agent", "a1", "--reason", "no", "--no-wait")
    stopped = terminal.acp(*stop, "--json", by="ann")
    assert stopped.code == 0, stopped.err
    assert terminal.acp("tokens", "revoke", listed["ann"]["id"], by="ann").code == 3, "an admin does that"
    assert terminal.acp("tokens", "revoke", listed["ann"]["id"]).code == 0
    for words in (stop, ("release", "--agent", "a1", "--reason", "safe"), ("approvals", "deny", "t", "--reason", "no")):
        ran = terminal.acp(*words, by="ann")
        assert (ran.code, "revoked" in ran.err) == (3, True), ran.err
    assert len(terminal.acp("status", "--json").json["switches"]) == 1
    again = terminal.acp("tokens", "revoke", listed["ann"]["id"])
    assert (again.code, "acp tokens list" in again.err) == (1, True), again.err
