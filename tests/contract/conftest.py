"""Every store behaviour is tested on both databases."""

from collections.abc import Iterator

import pytest

from tests.support.governed import Desk, make_governance


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    gov = make_governance(database_url)
    yield Desk(gov)
    gov.store.close()
