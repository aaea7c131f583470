"""Pool children die under a living worker, which tells what became of their actions: no sweep, no relay is needed."""

import json
from collections.abc import Iterator

import pytest

from governance.core.actions import Lease
from governance.errors import ActionDenied, ActionFailed
from tests.faults.conftest import FAST
from tests.support.fleet import Shop, assert_intact, failure
from tests.support.governed import Desk


@pytest.fixture(scope="module")
def shop(module_database_url: str, tmp_path_factory: pytest.TempPathFactory, broker_address: str) -> Iterator[Shop]:
    """One worker for all of them, and no beat: whatever dies, it goes on."""
    folder = tmp_path_factory.mktemp("children")
    shop = Shop(folder, module_database_url, broker_address, **FAST)
    try:
        shop.worker().ready()
        yield shop
    finally:
        shop.close()


def effects(shop: Shop, of: str) -> list[str]:
    return sorted(line for line in shop.effects() if line.split()[0] == of)


def test_a_killed_child_is_reported_and_its_action_runs_again(shop: Shop) -> None:
    result = shop.tasks.dies.delay(str(shop.folder))
    assert result.get(timeout=15) == 2
    assert effects(shop, result.id) == [f"{result.id} 1", f"{result.id} 2"]
    assert_intact(shop)


def test_a_killed_child_leaves_what_is_not_idempotent_in_doubt(shop: Shop) -> None:
    result = shop.tasks.dies_once.delay(str(shop.folder))
    shop.until(result.id, "in_doubt")
    other = shop.tasks.add.delay(1, 2)
    assert other.get(timeout=15) == 3
    assert len(effects(shop, result.id)) == 1
    assert_intact(shop)


def test_what_a_dead_child_called_directly_is_not_left_behind(shop: Shop) -> None:
    result = shop.tasks.calls.delay(str(shop.folder))
    assert result.get(timeout=15) == 2
    states = shop.gov.store.read("SELECT state FROM actions WHERE name = 't.dies' AND direct", {})
    assert [row[0] for row in states] == ["failed"]
    assert_intact(shop)


def test_a_map_whose_child_died_does_no_item_twice(shop: Shop) -> None:
    result = shop.tasks.item.starmap([(str(shop.folder), n) for n in range(3)]).delay()
    error = failure(result)
    assert isinstance(error, ActionDenied | ActionFailed)
    assert effects(shop, "item") == ["item 0", "item 1"]
    assert_intact(shop)


def test_a_living_worker_gives_up_an_attempt_that_has_no_body(shop: Shop) -> None:
    """As if its end had found neither the store nor the disk: admitted in the name of a child that does nothing."""
    lives = shop.tasks.add.delay(1, 1)
    lives.get(timeout=15)
    admitted = "SELECT payload FROM events WHERE kind = 'action.admitted' AND action_id = :id"
    owner = json.loads(shop.gov.store.read(admitted, {"id": lives.id})[0][0])
    left = Desk(shop.gov, Lease(owner["worker"], owner["child"]))
    made = left.submit(idempotent=False)
    left.admitted(made)
    shop.until(made.action_id, "in_doubt")
    assert_intact(shop)
