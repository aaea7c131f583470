"""Flower, the real one: what waits, what was refused and what was stopped is told from what failed."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from acp_tasks.fleet.broker import free_port
from acp_tasks.publish import deliver
from governance.core.switches import Mode, Scope
from governance.operations import clearing, switches
from tests.support.browser import rendered
from tests.support.fleet import Shop, eventually
from tests.support.governed import ANN

_USER = "ops:secret"
PAUSED = "the bank is down"


@dataclass(frozen=True)
class Flower:
    """The monitor of a shop, behind a password."""

    shop: Shop
    port: int
    # What was asked for, by what became of it.
    actions: dict[str, str]

    def get(self, path: str, user: str = _USER) -> Any:
        credentials = b64encode(user.encode()).decode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", headers={"Authorization": f"Basic {credentials}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def info(self, action_id: str) -> dict[str, Any]:
        """What it knows of a task; empty when it has not heard of it."""
        try:
            found: dict[str, Any] = self.get(f"/api/task/info/{action_id}")
        except urllib.error.HTTPError as problem:
            with problem:
                if problem.code != 404:
                    raise
            return {}
        return found

    def shows(self, action_id: str, state: str) -> dict[str, Any]:
        eventually(lambda: self.info(action_id).get("state") == state, f"Flower shows {action_id} as {state}", 15)
        return self.info(action_id)

    def sent(self, action_id: str) -> dict[str, Any]:
        """In whatever order its events came."""
        eventually(lambda: self.info(action_id)["sent"], f"Flower shows when {action_id} was sent", 15)
        return self.info(action_id)

    def page(self, path: str) -> str:
        return unescape(rendered(f"http://{_USER}@127.0.0.1:{self.port}{path}"))


@pytest.fixture(scope="module")
def flower(tmp_path_factory: pytest.TempPathFactory, broker_address: str) -> Iterator[Flower]:
    folder = tmp_path_factory.mktemp("flower")
    shop = Shop(folder, f"sqlite:///{folder / 'governance.db'}", broker_address)
    try:
        port = free_port()
        shop.monitor(port, _USER)
        worker = shop.worker()
        eventually(lambda: _answers(port), "Flower answers")
        worker.ready()
        yield Flower(shop, port, _one_of_each(shop, folder))
    finally:
        shop.close()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthcheck", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _one_of_each(shop: Shop, folder: Path) -> dict[str, str]:
    tasks = shop.tasks
    switches.engage(shop.gov, Scope.STREAM, "small", by=ANN, reason=PAUSED, mode=Mode.PAUSE)
    switches.engage(shop.gov, Scope.AGENT, "rogue", by=ANN, reason="it answers in French", mode=Mode.KILL)
    made = {
        "AWAITING_APPROVAL": tasks.ask.delay("c1"),
        "DENIED": tasks.never.delay(),
        "DEFERRED": tasks.waits.apply_async((str(folder),), stream="small"),
        "CANCELLED": tasks.add.apply_async((2, 2), agent_id="rogue"),
        "FAILURE": tasks.boom.delay(),
        "SUCCESS": tasks.add.delay(1, 1),
    }
    return {state: result.id for state, result in made.items()}


REASONS = {
    "AWAITING_APPROVAL": "ask: a person decides",
    "DENIED": "never: too dangerous",
    "DEFERRED": f"paused: {PAUSED}",
    "CANCELLED": "it answers in French",
}


def test_its_interface_tells_what_waits_and_what_was_refused_from_what_failed(flower: Flower) -> None:
    for state, action_id in flower.actions.items():
        info = flower.shows(action_id, state)
        assert REASONS.get(state, "") in (info["result"] or "")
        assert list(flower.get(f"/api/tasks?state={state}")) == [action_id]
    assert flower.info(flower.actions["FAILURE"])["exception"] == "ValueError('boom')"
    # Only what really failed has the time of a failure.
    assert [state for state, id in flower.actions.items() if flower.info(id)["failed"]] == ["FAILURE"]


def test_what_a_producer_sent_is_shown_although_it_ended_at_once(flower: Flower) -> None:
    script = "from tests.support.shop import add; print(*[add.delay(number, 1).id for number in range(3)])"
    printed = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    for action_id in printed.stdout.split():
        flower.shows(action_id, "SUCCESS")
        info = flower.sent(action_id)
        assert info["received"]
        assert info["started"]
        assert info["succeeded"]


def test_it_asks_who_you_are(flower: Flower) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        flower.get("/api/tasks", user="ops:wrong")
    with refused.value:
        assert refused.value.code == 401


def test_its_pages_show_the_states_and_the_reasons(flower: Flower) -> None:
    for state, action_id in flower.actions.items():
        flower.shows(action_id, state)
    table = flower.page("/tasks")
    for state, action_id in flower.actions.items():
        row = next(row for row in table.split("<tr") if action_id in row)
        assert state in row, f"the row of {action_id} says {row}"
    for state, reason in REASONS.items():
        page = flower.page(f"/task/{flower.actions[state]}")
        assert f'<span class="badge text-bg-secondary">{state}</span>' in page
        assert reason in page


def test_what_waited_is_seen_to_run_and_to_end(flower: Flower) -> None:
    """Last: it ends the waiting of what the others look at."""
    shop = flower.shop
    asked, held = flower.actions["AWAITING_APPROVAL"], flower.actions["DEFERRED"]
    shop.approve(asked)
    flower.shows(asked, "SUCCESS")
    for switch in switches.engaged_in(shop.gov, Scope.STREAM, "small"):
        for action_id in clearing.release(shop.gov, switch, by=ANN, reason="it is back"):
            deliver(shop.tasks.app, shop.gov, action_id)
    flower.shows(held, "STARTED")
    (shop.folder / "go").touch()
    flower.shows(held, "SUCCESS")


def test_a_request_that_a_person_denies_is_shown_as_denied(flower: Flower) -> None:
    result = flower.shop.tasks.ask.delay("c2")
    flower.shows(result.id, "AWAITING_APPROVAL")
    flower.shop.deny(result.id, "the customer is a fraud")
    assert "the customer is a fraud" in flower.shows(result.id, "DENIED")["result"]
