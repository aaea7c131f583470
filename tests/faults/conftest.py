"""A shop of its own for each fault, with short leases, so that recovery is watched and not waited for."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fleet import Shop

FAST = {"ACP_HEARTBEAT_S": "0.5", "ACP_LEASE_S": "2", "ACP_RELAY_S": "2"}
_numbers = itertools.count()


@pytest.fixture(params=["sqlite", "postgres"])
def shop(request: pytest.FixtureRequest, tmp_path: Path, broker_address: str) -> Iterator[Shop]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'governance.db'}"
    else:
        url = request.getfixturevalue("postgres_server").create_database(f"fault_{next(_numbers)}")
    shop = Shop(tmp_path, url, broker_address, **FAST)
    try:
        yield shop
    finally:
        shop.close()


def lose(shop: Shop) -> Any:
    """An action whose message the broker has lost."""
    lost = shop.tasks.add.apply_async((1, 1), countdown=3600)
    shop.gov.store.run("UPDATE actions SET not_before_us = NULL, published_us = NULL WHERE id = :id", {"id": lost.id})
    return lost
