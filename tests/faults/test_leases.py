"""Whose attempts recovery takes, and when: those of the dead within 30 s, those of the living never."""

from pathlib import Path

import pytest

from tests.support.fleet import Shop, assert_intact, eventually, settle


def sweeps_since(shop: Shop, since_us: int) -> int:
    found = shop.gov.store.read(
        "SELECT count(*) FROM ticks WHERE job = 'acp.recovery' AND claimed_us > :at", {"at": since_us}
    )
    return int(found[0][0])


def test_what_runs_for_longer_than_its_lease_is_left_alone_while_its_worker_lives(shop: Shop) -> None:
    shop.worker("slow", 1).ready()
    shop.worker("idle", 1).ready()
    shop.beat()
    result = shop.tasks.waits.delay(str(shop.folder))
    eventually(lambda: shop.effects(), "it runs")
    lapsed_us = shop.gov.clock.now_us() + shop.gov.clock.span_us(2 * shop.gov.limits.lease_s)
    eventually(lambda: sweeps_since(shop, lapsed_us) >= 2, "sweeps after two leases", 40)
    assert shop.state(result.id) == "running"
    (shop.folder / "go").touch()
    assert result.get(timeout=20) == 1
    settle(shop)
    kinds = "SELECT count(*) FROM events WHERE kind IN ('action.reclaimed', 'action.abandoned')"
    assert shop.gov.store.read(kinds, {})[0][0] == 0
    assert len(shop.effects()) == 1
    assert_intact(shop)


@pytest.mark.postgres
def test_with_default_settings_a_killed_workers_action_runs_again_within_30_s(
    tmp_path: Path, postgres_url: str, broker_url: str
) -> None:
    shop = Shop(tmp_path, postgres_url, broker_url)
    try:
        doomed = shop.worker("doomed", 1).ready()
        shop.beat()
        result = shop.tasks.waits.delay(str(shop.folder))
        eventually(lambda: shop.effects(), "the doomed worker runs it")
        shop.worker("other", 1).ready()
        killed_us = shop.gov.clock.now_us()
        doomed.kill()
        admitted = "SELECT at_us FROM events WHERE action_id = :id AND kind = 'action.admitted' AND attempt = 2"
        again = eventually(lambda: shop.gov.store.read(admitted, {"id": result.id}), "it runs again", 60)
        assert shop.gov.clock.real_s(again[0][0] - killed_us) <= 30
        (shop.folder / "go").touch()
        assert result.get(timeout=20) == 2
        assert_intact(shop)
    finally:
        shop.close()
