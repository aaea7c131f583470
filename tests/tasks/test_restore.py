"""A restore on a fleet at work: what came after the checkpoint stops, and the agent goes on from its state."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from acp_tasks.restore import restore
from acp_tasks.stop import stop
from governance.core.switches import Mode, Scope
from governance.errors import ActionCancelled
from governance.operations import audit, checkpoints, switches
from governance.operations.checkpoints import SavedPoint
from tests.support.fleet import Shop, eventually, failure
from tests.support.governed import ANN


@pytest.fixture
def shop(tmp_path: Path, postgres_url: str, broker_address: str) -> Iterator[Shop]:
    shop = Shop(tmp_path, postgres_url, broker_address)
    try:
        shop.beat()
        shop.worker(concurrency=2).ready()
        yield shop
    finally:
        shop.close()


def saved(shop: Shop) -> SavedPoint:
    """The one checkpoint that an agent saved; the clock takes others."""
    (point,) = [one for one in checkpoints.list_points(shop.gov, stream="default", limit=10) if one.action_id]
    return point


def test_the_agent_goes_on_from_its_state_and_what_came_after_is_stopped(shop: Shop) -> None:
    assert shop.tasks.remembers.delay(1).get(timeout=20) is None
    point = saved(shop)
    assert shop.tasks.remembers.delay(2).get(timeout=20) == {"n": 1}
    later = shop.lasting.sleeps.delay(str(shop.folder))
    bystander = shop.tasks.waits.apply_async((str(shop.folder),), stream="other")
    waiting = shop.lasting.sleeps.apply_async((str(shop.folder),), countdown=60)
    eventually(lambda: len(shop.effects()) == 2, "both run")
    report = restore(shop.tasks.app, shop.gov, point.id, reason="it went astray", by=ANN)
    assert [(one.action_id, one.state) for one in report.stopped] == [(later.id, "cancelled")]
    assert report.restored.cancelled == (waiting.id,)
    for gone in (later, waiting):
        error = failure(gone)
        assert isinstance(error, ActionCancelled)
        assert "checkpoint" in error.reason
    assert shop.state(bystander.id) == "running"
    assert switches.board_now(shop.gov).engaged == ()
    assert shop.tasks.remembers.delay(3).get(timeout=20) == {"n": 1}
    (shop.folder / "go").touch()
    assert bystander.get(timeout=20) == 1
    assert audit.verify(shop.gov).problems == ()


def test_a_stream_that_somebody_else_paused_stays_paused(shop: Shop) -> None:
    shop.tasks.remembers.delay(1).get(timeout=20)
    point = saved(shop)
    pause = stop(shop.tasks.app, shop.gov, Scope.STREAM, "default", mode=Mode.PAUSE, reason="mine", by=ANN)
    restore(shop.tasks.app, shop.gov, point.id, reason="back", by=ANN)
    assert [switch.id for switch in switches.board_now(shop.gov).engaged] == [pause.switch_id]
