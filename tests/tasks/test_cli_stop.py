"""`acp stop`, `acp status` and `acp release`, typed while a worker is busy; and a name that was mistyped."""

from collections.abc import Callable
from functools import partial

import pytest

from tests.support.asking import row
from tests.support.fleet import Shop, eventually
from tests.support.governed import Desk
from tests.support.terminal import Ran, Terminal


@pytest.fixture
def acp(shop: Shop, terminal: Terminal) -> Callable[..., Ran]:
    """`celery -A tests.support.shop acp ...` beside the shop."""
    return partial(terminal.module, "celery", "-A", "tests.support.shop", "acp", **shop.environment)


def test_a_stop_waits_and_reports_and_its_scope_is_released(shop: Shop, acp: Callable[..., Ran]) -> None:
    made = acp("tokens", "create", "root", "--role", "admin", "--json")
    token = made.json["token"]
    running = shop.lasting.sleeps.apply_async((str(shop.folder),), agent_id="rogue")
    waiting = shop.lasting.sleeps.apply_async((str(shop.folder),), agent_id="rogue", countdown=60)
    eventually(lambda: f"started {running.id}" in shop.effects(), "it runs")

    (busy,) = (one for one in acp("status", "--json").json["busiest"] if one["agent_id"] == "rogue")
    session = shop.gov.store.read("SELECT session_id FROM actions WHERE id = :id", {"id": running.id})[0][0]
    assert (busy["stream"], busy["session_id"], busy["running"], busy["waiting"]) == ("default", session, 1, 1)
    assert any(line.split()[:1] == ["rogue"] for line in acp("status").out.splitlines())

    stopped = acp("stop", "--agent", "rogue", "--reason", "it went wild", ACP_TOKEN=token)

    assert stopped.code == 0, stopped.err
    assert "engaged switch:agent:rogue: from here on nothing in scope starts" in stopped.err
    assert "warning" not in stopped.err
    lines = stopped.out.splitlines()
    assert "(switch:agent:rogue, kill)" in lines[0]
    assert lines[1].split() == ["acknowledged", shop.gov.store.read("SELECT id FROM workers", {})[0][0]]
    assert lines[2] == "1 waiting actions cancelled, 1 were running"
    row = next(line.split() for line in lines if line.startswith(running.id))
    assert (row[1], row[3], row[5]) == ("s.sleeps", "cancelled", "ms")
    assert lines[-1].startswith("the last one stopped ")
    assert {shop.state(one.id) for one in (running, waiting)} == {"cancelled"}

    shown = acp("status", "--json")
    (switch,) = shown.json["switches"]
    assert (switch["rule"], switch["reason"], switch["engaged_by"]) == (
        "switch:agent:rogue",
        "it went wild",
        "principal:root",
    )
    assert shown.json["workers"] == [lines[1].split()[1]]
    assert "agent:rogue" in acp("status").out

    released = acp("release", "--agent", "rogue", "--reason", "it was told off", "--json", ACP_TOKEN=token)
    assert released.json == {"released": [switch["id"]], "resumed": 0}
    assert acp("status", "--json").json["switches"] == []
    again = acp("release", "--agent", "rogue", "--reason", "once more", ACP_TOKEN=token)
    assert again.code == 1
    assert "acp status shows the engaged ones" in again.err


@pytest.mark.parametrize(
    ("option", "known", "mistyped"),
    [
        ("--agent", "desk-1", "desk1"),
        ("--stream", "default", "defualt"),
        ("--action-name", "case.*", "case.replay"),
        ("--session", "default@", "default"),
        ("--action", "", "nope"),
    ],
)
def test_a_target_that_nobody_knows_is_stopped_and_said(
    terminal: Terminal, desk: Desk, option: str, known: str, mistyped: str
) -> None:
    made = desk.submit(name="case.reply", agent_id="desk-1")
    session = row(desk, "actions", made.action_id)["session_id"]
    right = {"--session": session, "--action": made.action_id}.get(option, known)
    engage = ("stop", option, right, "--mode", "pause", "--reason", "no", "--json")
    known_one = terminal.acp(*engage)
    assert (known_one.code, known_one.json["unknown_target"]) == (0, None), known_one.err

    unknown = terminal.acp("stop", option, mistyped, "--mode", "pause", "--reason", "no", "--json")

    assert unknown.code == 0
    assert f"warning: nothing is known of {unknown.json['unknown_target']['scope']} '{mistyped}'" in unknown.err
    if option != "--action":
        near = unknown.json["unknown_target"]["near"]
        assert near[0] == ("case.reply" if option == "--action-name" else right)
        assert f"did you mean {near[0]}" in unknown.err
    assert len(terminal.acp("status", "--json").json["switches"]) == 2
