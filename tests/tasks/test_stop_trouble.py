"""A kill switch although clocks differ, jump, or the disk is full: nobody is kept alive, nobody loses their grace."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from acp_tasks.stop import StopReport, stop
from governance.core.switches import Mode, Scope
from governance.errors import ActionCancelled
from governance.operations import audit
from tests.support.fleet import Shop, eventually, failure
from tests.support.governed import ANN

HOUR_S = 3600


@pytest.fixture
def shop(tmp_path: Path, postgres_url: str, broker_address: str) -> Iterator[Shop]:
    shop = Shop(tmp_path, postgres_url, broker_address)
    try:
        yield shop
    finally:
        shop.close()


def halt(shop: Shop, action_id: str, grace_s: float, *, wait: bool = True) -> StopReport:
    return stop(
        shop.tasks.app,
        shop.gov,
        Scope.ACTION,
        action_id,
        mode=Mode.KILL,
        reason="no",
        by=ANN,
        grace_s=grace_s,
        wait=wait,
    )


def begun(shop: Shop, action_id: str) -> None:
    eventually(lambda: any(line.startswith(f"started {action_id}") for line in shop.effects()), "the body began")


def test_a_worker_whose_clock_is_ahead_gives_a_body_its_whole_grace(shop: Shop) -> None:
    ahead = shop.folder / "ahead"
    ahead.write_text(str(HOUR_S))
    shop.worker(environment={"SHOP_CLOCK": str(ahead)}).ready()
    sent = shop.lasting.cleans.delay(str(shop.folder))
    begun(shop, sent.id)
    report = halt(shop, sent.id, grace_s=20)
    assert [one.state for one in report.ended] == ["cancelled"]
    assert f"cleaned {sent.id}" in shop.effects()
    assert audit.verify(shop.gov).problems == ()


def test_a_clock_that_is_put_back_keeps_nobody_alive(shop: Shop) -> None:
    shop.worker().ready()
    sent = shop.lasting.deaf.delay(str(shop.folder))
    begun(shop, sent.id)
    halt(shop, sent.id, grace_s=1, wait=False)
    shop.put_clock(-HOUR_S)
    shop.until(sent.id, "cancelled", deadline_s=20)
    assert "killed after its grace" in shop.log("w")


def test_who_cannot_be_interrupted_for_want_of_a_disk_is_killed_after_the_grace(shop: Shop) -> None:
    shop.worker().ready()
    (shop.folder / "state" / "stops").write_text("no folder can be made here")
    sleeping = shop.lasting.sleeps.delay(str(shop.folder))
    begun(shop, sleeping.id)
    report = halt(shop, sleeping.id, grace_s=1)
    assert [one.state for one in report.ended] == ["cancelled"]
    assert report.ended[0].after_ms is not None
    assert report.ended[0].after_ms >= 1000
    assert "not interrupted" in shop.log("w")
    assert isinstance(failure(sleeping), ActionCancelled)


def test_nothing_of_a_stop_is_left_on_the_disk(shop: Shop) -> None:
    shop.worker().ready()
    sleeping = shop.lasting.sleeps.delay(str(shop.folder))
    begun(shop, sleeping.id)
    halt(shop, sleeping.id, grace_s=10)
    folder = shop.folder / "state" / "stops"
    eventually(lambda: folder.is_dir() and not list(folder.iterdir()), "its nudges are removed")
