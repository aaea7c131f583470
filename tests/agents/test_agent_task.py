"""Runs of an agent as governed actions on a real fleet: they wait as rows, go on with a decision, survive a kill."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from acp_tasks.agents.scripted_model import ScriptedModel
from governance.faults import POINTS
from governance.operations import audit
from tests.support.fleet import Shop, assert_intact, eventually, settle

DATABASES = ["sqlite_url", "postgres_url"]
KILLED_AT = [point for point in POINTS if point.startswith("after_agent_")]


@pytest.fixture(scope="module")
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel(seed=5) as served:
        yield served


@pytest.fixture(params=DATABASES)
def shop(request: pytest.FixtureRequest, tmp_path: Path, broker_address: str, model: ScriptedModel) -> Iterator[Shop]:
    url = request.getfixturevalue(request.param)
    shop = Shop(
        tmp_path,
        url,
        broker_address,
        SHOP_INCLUDE="tests.support.tooling",
        ACP_MODEL_URL=model.url,
        # Nothing that a run does by itself may leave what is signed: its waiting, its tool calls, what is decided.
        ACP_SIGNING_KEYS="k1:the-first-secret-of-all",
    )
    try:
        yield shop
    finally:
        shop.close()


def begin(shop: Shop, run_id: str, *lines: str) -> Any:
    from tests.support import tooling

    task: Any = tooling.agent
    return task.apply_async(("\n".join(lines),), command_id=run_id, agent_id="desk-1", stream="support")


def actions(shop: Shop, run_id: str) -> dict[str, list[str]]:
    """The states of the run's actions, the oldest first, by task."""
    rows = shop.gov.store.read(
        "SELECT name, state FROM actions WHERE command_id LIKE :run ORDER BY name, state", {"run": f"{run_id}:%"}
    )
    found: dict[str, list[str]] = {}
    for name, state in rows:
        found.setdefault(name, []).append(state)
    return found


def parked(shop: Shop, run_id: str) -> list[str]:
    rows = shop.gov.store.read(
        "SELECT id FROM actions WHERE state = 'parked' AND command_id LIKE :run ORDER BY message",
        {"run": f"{run_id}:%"},
    )
    return [str(row[0]) for row in rows]


def told(model: ScriptedModel, prompt: str) -> list[str]:
    """What the model was told by tools in the last request of the conversation that began with `prompt`."""
    last = next(body for body in reversed(model.requests) if prompt in json.dumps(body["messages"]))
    return [str(message["content"]) for message in last["messages"] if message["role"] == "tool"]


def test_a_run_waits_as_a_row_and_goes_on_with_what_was_decided(shop: Shop, model: ScriptedModel) -> None:
    shop.worker().ready()
    folder = json.dumps({"folder": str(shop.folder)})
    lines = ('!call t_add {"x": 2, "y": 3}', "!call t_never {}", f"!call t_once {folder}")
    decided = (f"!call t_asked {folder}", f"!also t_asked {folder}", '!also t_add {"x": 1, "y": 1}')
    run = begin(shop, "mixed", *lines, *decided)
    eventually(lambda: len(parked(shop, "mixed")) == 2, "both calls wait for a person")
    shop.until(run.id, "deferred")
    eventually(lambda: actions(shop, "mixed")["t.add"] == ["succeeded"] * 2, "the third call has ended")

    def waits_for_both() -> bool:
        # The end of the third call has woken it once more: only then nothing of it is on its way.
        state, why = shop.gov.store.read("SELECT state, reason FROM actions WHERE id = :id", {"id": run.id})[0]
        return state == "deferred" and set(why.removeprefix("waits for ").split(", ")) == set(parked(shop, "mixed"))

    eventually(waits_for_both, "the run waits for the two that people decide")
    why, held = shop.gov.store.read("SELECT reason, lease_worker FROM actions WHERE id = :id", {"id": run.id})[0]
    assert (why.startswith("waits for "), held) == (True, None)
    assert shop.gov.store.read("SELECT sum(held) FROM accounts", {})[0][0] == 0
    assert begin(shop, "mixed", *lines, *decided).id == run.id
    # The broker loses everything: nothing of the run was in it.
    with shop.tasks.app.connection_for_write() as connection:
        connection.default_channel.client.flushdb()
    first, second = parked(shop, "mixed")
    shop.approve(first)
    shop.deny(second, "once is enough")
    shop.until(run.id, "succeeded")
    answers = told(model, str(shop.folder))
    assert answers[0] == "5"
    assert "denied by never: too dangerous" in answers[1]
    assert answers[2] == "1"
    assert sorted(answers[3:])[0] == "1"
    assert any("denied by ask: once is enough" in answer for answer in answers[3:])
    assert actions(shop, "mixed") == {
        "t.add": ["succeeded"] * 2,
        "t.asked": ["denied", "succeeded"],
        "t.never": ["denied"],
        "t.once": ["succeeded"],
    }
    settle(shop)
    assert_intact(shop)
    # Of what it saved, the last is kept.
    assert shop.gov.store.read("SELECT count(*) FROM checkpoints", {})[0][0] == 1


# Half of them on each database: what is done between two steps is the same on both.
@pytest.mark.parametrize(("shop", "point"), list(zip(DATABASES * 2, KILLED_AT, strict=True)), indirect=["shop"])
def test_a_run_that_is_killed_between_two_steps_repeats_no_effect(shop: Shop, point: str) -> None:
    shop.worker(concurrency=2, environment={"ACP_FAULT": f"{point}:{shop.folder / 'died'}"}).ready()
    shop.beat()
    folder = json.dumps({"folder": str(shop.folder)})
    run = begin(shop, "killed", f"!call t_once {folder}", f"!call t_asked {folder}", f"!call t_once {folder}")
    eventually(lambda: parked(shop, "killed"), "a call waits for a person", 60)
    shop.approve(parked(shop, "killed")[0])
    shop.until(run.id, "succeeded", 60)
    assert (shop.folder / "died").exists(), "the fault was never reached"
    settle(shop)
    assert_intact(shop)
    assert Counter(line.split()[0].rpartition(":")[0] for line in shop.effects()) == {"killed": 3}
    assert actions(shop, "killed") == {"t.asked": ["succeeded"], "t.once": ["succeeded", "succeeded"]}
    assert audit.verify(shop.gov).problems == ()
