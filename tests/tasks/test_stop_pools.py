"""A kill switch on workers without pool children: a thread can only ask, a solo worker looks with its heartbeat."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from acp_tasks.stop import stop
from governance.core.switches import EVERYTHING, Mode, Scope
from governance.errors import ActionCancelled
from governance.operations import clearing
from tests.support.fleet import Shop, eventually, failure
from tests.support.governed import ANN


@pytest.fixture
def shop(tmp_path: Path, sqlite_url: str, broker_address: str) -> Iterator[Shop]:
    shop = Shop(tmp_path, sqlite_url, broker_address, ACP_HEARTBEAT_S="0.5")
    try:
        yield shop
    finally:
        shop.close()


def began(shop: Shop, action_id: str) -> bool:
    return any(action_id in line for line in shop.effects())


@pytest.mark.parametrize(("pool", "kinds"), [("solo", ("cooperates", "sleeps")), ("threads", ("cooperates",))])
def test_what_runs_stops_and_the_worker_goes_on(shop: Shop, pool: str, kinds: tuple[str, ...]) -> None:
    shop.worker(pool=pool).ready()
    for kind in kinds:
        sent = getattr(shop.lasting, kind).delay(str(shop.folder))
        eventually(partial(began, shop, sent.id), f"{kind} began")
        report = stop(
            shop.tasks.app, shop.gov, Scope.SYSTEM, EVERYTHING, mode=Mode.KILL, reason="a test", by=ANN, grace_s=20
        )
        assert [one.state for one in report.ended] == ["cancelled"]
        assert isinstance(failure(sent), ActionCancelled)
        clearing.release(shop.gov, report.switch_id, reason="over", by=ANN)
    assert shop.tasks.add.delay(1, 1).get(timeout=20) == 2
