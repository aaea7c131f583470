"""A shop with one worker and beat, on each database, shared by the tests that do not break it."""

import itertools
from collections.abc import Iterator

import pytest

from tests.support.fleet import Shop

_numbers = itertools.count()


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, broker_address: str
) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    if request.param == "sqlite":
        url = f"sqlite:///{folder / 'governance.db'}"
    else:
        url = request.getfixturevalue("postgres_server").create_database(f"shop_{next(_numbers)}")
    shop = Shop(folder, url, broker_address)
    try:
        worker = shop.worker()
        shop.beat()
        worker.ready()
        yield shop
    finally:
        shop.close()
