"""Budgets by identity on a real fleet: who is charged, a child that dies in the middle, a refusal and a raise."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from governance.core.instants import SECOND_US
from governance.errors import ActionDenied
from governance.operations import audit, budgets
from governance.operations.reconcile import reconcile
from tests.support.fleet import Shop, eventually
from tests.support.governed import ANN


@pytest.fixture
def shop(tmp_path: Path, sqlite_url: str, broker_address: str) -> Iterator[Shop]:
    shop = Shop(tmp_path, sqlite_url, broker_address)
    try:
        yield shop
    finally:
        shop.close()


def test_a_budget_is_charged_by_workers_whatever_becomes_of_them(shop: Shop, tmp_path: Path) -> None:
    gov = shop.gov
    config = {"identity": {"org": "acme"}, "period": "unlimited", "max_tokens": 100}
    budgets.set_budget(gov, "org", config, by=ANN, reason="test")
    shop.worker(concurrency=1).ready()
    # Its child is killed in the middle: nobody can say what it used, so its whole hold counts, and is flagged.
    shop.tasks.dies_once.apply_async((str(tmp_path),), identity={"org": "acme"}, tokens=60)
    state = "SELECT state FROM actions WHERE name = 't.dies_once'"
    eventually(lambda: gov.store.read(state, {})[0][0] == "in_doubt", "the attempt is given up")
    entries = "SELECT kind, posted_delta, flag FROM entries WHERE account_id LIKE 'budget:%' ORDER BY id"
    assert [tuple(row) for row in gov.store.read(entries, {})] == [("hold", 0, None), ("expire", 60, "unreported")]
    with pytest.raises(ActionDenied, match=r"budget org \(org=acme\) has 40 tokens left, this needs 50") as denied:
        shop.tasks.add.apply_async((1, 2), identity={"user": "ann", "org": "acme"}, tokens=50).get(timeout=20)
    assert denied.value.rule == "budget:org"
    until_us = gov.clock.now_us() + 3600 * SECOND_US
    budgets.raise_budget(gov, "org", until_us=until_us, reason="test", by=ANN, tokens=10)
    assert shop.tasks.add.apply_async((1, 2), identity={"user": "ann", "org": "acme"}, tokens=50).get(timeout=20) == 3
    assert reconcile(gov).findings == ()
    assert audit.verify(gov).problems == ()
