"""`acp sessions` and `acp checkpoints` in a terminal."""

from pathlib import Path

import pytest

from governance.clock import SystemClock
from governance.operations import checkpoints
from tests.support.governed import Desk, make_governance
from tests.support.terminal import Terminal


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    terminal = Terminal(tmp_path)
    assert terminal.acp("db", "upgrade").code == 0
    terminal.enroll("root", "admin")
    return terminal


def test_sessions_and_checkpoints_are_listed_shown_turned_compared_and_restored(terminal: Terminal) -> None:
    desk = Desk(make_governance(f"sqlite:///{terminal.database}", clock=SystemClock()))
    run = desk.admitted(desk.submit())
    points = [
        checkpoints.save(desk.gov, run.ref, "default", {"n": number}, cycle=number, actor="agent") for number in (1, 2)
    ]
    desk.finish(run)
    desk.gov.store.close()
    session = run.ref.session_id
    assert session in terminal.acp("sessions", "list").out
    shown = terminal.acp("sessions", "show", session, "--json").json
    assert (shown["state"], shown["stream"]) == ("open", "default")
    turned = terminal.acp("sessions", "turn", "--stream", "default", "--reason", "another policy", "--json")
    assert turned.code == 0, turned.err
    states = {line["id"]: line["state"] for line in terminal.acp("sessions", "list", "--json").json["sessions"]}
    assert (states[session], states[turned.json["session_id"]]) == ("closing", "open")
    assert "closing" in terminal.acp("sessions", "show", session).out
    assert terminal.acp("sessions", "show", "nothing").code == 1

    listed = terminal.acp("checkpoints", "list", "--stream", "default", "--json").json["checkpoints"]
    assert [point["id"] for point in listed] == points[::-1]
    assert "control state" in terminal.acp("checkpoints", "show", points[0]).out
    compared = terminal.acp("checkpoints", "diff", *points, "--json").json["differences"]
    assert {"path": "state.n", "before": 1, "after": 2} in compared
    assert "state.n" in terminal.acp("checkpoints", "diff", *points).out
    restored = terminal.acp("checkpoints", "restore", points[0], "--reason", "it went astray", "--json")
    assert restored.code == 0, restored.err
    assert restored.json["checkpoint_id"] == points[0]
    again = terminal.acp("checkpoints", "restore", points[1], "--reason", "forth again")
    assert again.code == 1
    assert "superseded" in again.err
    assert terminal.acp("status", "--json").json["switches"] == []
