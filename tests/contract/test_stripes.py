"""An account in several rows is one account: it holds, posts, is read and recovered as one, and none of it is lost."""

from collections.abc import Iterator

import pytest

from governance.core.ledger import Usage
from governance.operations import audit, reports
from governance.operations.answers import Admitted, Denied
from tests.support import books
from tests.support.governed import Desk, make_governance

POLICY = """
version: 1
streams:
  default: {window: 1h, timezone: UTC, limits: {cost_usd: "0.016", actions: 1000}, stripes: 16}
rules:
  - {id: routine, match: {risk: [low, medium]}, effect: allow}
"""


@pytest.fixture
def striped(database_url: str) -> Iterator[Desk]:
    gov = make_governance(database_url, policy=POLICY)
    yield Desk(gov)
    gov.store.close()


def test_smoke(striped: Desk) -> None:
    first = striped.admitted(striped.submit(cost_micros=9000))
    assert striped.gov.store.read("SELECT count(*) FROM accounts", {})[0][0] == (
        48 if striped.gov.store.is_postgresql else 3
    )
    second = striped.admitted(striped.submit(cost_micros=7000))
    assert isinstance(striped.arrive(striped.submit(cost_micros=1)), Denied)
    books.assert_agree(striped.gov)
    striped.finish(first, usage=Usage(cost_micros=1000, tokens=10))
    third = striped.admitted(striped.submit(cost_micros=8000))
    striped.finish(second, usage=Usage(cost_micros=9000, tokens=10))
    lines = reports.list_budgets(striped.gov, session_id=None)
    print(lines)
    assert isinstance(striped.arrive(striped.submit(cost_micros=1)), Denied)
    striped.finish(third, usage=Usage(cost_micros=0, tokens=10))
    print(striped.gov.store.read("SELECT id, limit_amount, posted, held FROM accounts ORDER BY id", {}))
    assert isinstance(striped.arrive(striped.submit(cost_micros=6001)), Denied)
    assert isinstance(striped.arrive(striped.submit(cost_micros=6000)), Admitted)
    books.assert_agree(striped.gov)
    assert audit.verify(striped.gov).ok
