"""An agent in cycles on real workers: every cycle once, and on from the last checkpoint after whatever breaks it."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from acp_tasks.restore import restore
from acp_tasks.stop import stop
from governance.core.switches import Mode, Scope
from governance.operations import audit, checkpoints, clearing
from governance.operations.checkpoints import last_state
from tests.support.fleet import Shop, assert_intact, eventually, settled
from tests.support.governed import ANN

TOTAL = sum(range(1, 11))


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def shop(request: pytest.FixtureRequest, tmp_path: Path, broker_address: str) -> Iterator[Shop]:
    shop = Shop(tmp_path, request.getfixturevalue(request.param), broker_address)
    try:
        shop.beat()
        yield shop
    finally:
        shop.close()


def begin(shop: Shop) -> None:
    from tests.support.looping import loop

    first = loop.start({"folder": str(shop.folder), "sum": 0})
    assert loop.start({"folder": str(shop.folder), "sum": 0}) == first


def cycles(shop: Shop) -> list[int]:
    return [int(line.removeprefix("cycle-")) for line in shop.effects() if line.startswith("cycle-")]


def over(shop: Shop) -> dict[str, object]:
    """The state after the last cycle."""
    point = last_state(shop.gov, "agent")
    return point.state["agent"] if point is not None and point.cycle == 10 else {}


def work_done(shop: Shop) -> Counter[str]:
    return Counter(line.split()[0] for line in shop.effects() if line.startswith("t.cycle:"))


def assert_whole(shop: Shop, times_max: int = 1) -> None:
    """Ten cycles' work is done, once for each command, and the agent's state has seen each cycle once.

    What was cut by a kill runs again: it may have been done up to `times_max` times.
    """
    state = eventually(lambda: over(shop), "the tenth cycle", 60)
    assert state["sum"] == TOTAL
    eventually(lambda: settled(shop), "everything has settled", 60)
    done = work_done(shop)
    assert set(done) == {f"t.cycle:{number}:work" for number in range(1, 11)}
    assert max(done.values()) <= times_max
    assert_intact(shop)


def test_cycles_follow_each_other_and_a_broken_chain_goes_on_from_the_last_checkpoint(shop: Shop) -> None:
    shop.worker(concurrency=2).ready()
    (shop.folder / "fail-6").touch()
    begin(shop)
    assert_whole(shop)
    assert cycles(shop) == [1, 2, 3, 4, 5, 6, 5, 6, 7, 8, 9, 10]
    saved = checkpoints.list_points(shop.gov, stream="agent", limit=100)
    assert sorted(point.cycle or 0 for point in saved if point.action_id) == [0, 4, 8, 10]


def test_a_killed_worker_costs_no_cycle(shop: Shop) -> None:
    worker = shop.worker("first", concurrency=2).ready()
    begin(shop)
    eventually(lambda: len(cycles(shop)) >= 3, "the third cycle")
    worker.kill()
    shop.worker("second", concurrency=2).ready()
    assert_whole(shop, times_max=2)


def test_a_stop_holds_the_loop_and_its_release_lets_it_go_on(shop: Shop) -> None:
    shop.worker(concurrency=2).ready()
    begin(shop)
    eventually(lambda: len(cycles(shop)) >= 5, "the fifth cycle")
    report = stop(shop.tasks.app, shop.gov, Scope.STREAM, "agent", mode=Mode.KILL, reason="no", by=ANN, grace_s=1)
    made = "SELECT count(*) FROM actions WHERE name = 't.cycle'"
    before, count = cycles(shop), shop.gov.store.read(made, {})[0][0]
    ticks = "SELECT count(*) FROM ticks WHERE job = 'acp.loops'"
    seen = shop.gov.store.read(ticks, {})[0][0]
    eventually(lambda: shop.gov.store.read(ticks, {})[0][0] >= seen + 3, "beat's job has looked")
    assert (cycles(shop), shop.gov.store.read(made, {})[0][0]) == (before, count)
    clearing.release(shop.gov, report.switch_id, reason="over", by=ANN)
    assert_whole(shop)


def test_a_restored_agent_repeats_its_cycles_and_no_effect(shop: Shop) -> None:
    shop.worker(concurrency=2).ready()
    begin(shop)
    eventually(lambda: len(cycles(shop)) >= 6, "the sixth cycle")
    point = next(
        one for one in checkpoints.list_points(shop.gov, stream="agent", limit=100) if one.cycle == 4 and one.action_id
    )
    restore(shop.tasks.app, shop.gov, point.id, reason="once more", by=ANN)
    assert_whole(shop)
    assert cycles(shop).count(5) == 2
    assert audit.verify(shop.gov).problems == ()
