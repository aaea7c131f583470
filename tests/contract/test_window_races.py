"""The turn of a window while it is charged: what is held before counts before, what is held after counts after."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Final

import pytest

from governance.core.instants import SECOND_US
from governance.operations import audit, budgets
from governance.operations.answers import Admitted
from governance.operations.charges import end_raises
from governance.operations.reconcile import reconcile
from tests.support import books
from tests.support.charged import DAY_S, ask, clock
from tests.support.governed import ANN, Desk, make_governance
from tests.support.racer import RACERS, race
from tests.support.spenders import EACH

LIMIT: Final = 100
ROOMY: Final = 100_000
STEP_US: Final = 1000
HOUR_US: Final = 3600 * SECOND_US
#: A Sunday's midnight in Berlin, and the hours of the windows that end with it: clocks went back on it, or forward.
TURNS: Final = (
    ("2027-10-31T23:00:00+00:00", {"daily": 25, "weekly": 7 * 24 + 1, "monthly": 31 * 24 + 1}),
    ("2027-03-28T22:00:00+00:00", {"daily": 23, "weekly": 7 * 24 - 1}),
)
_HELD: Final = "kind IN ('hold', 'top_up')"
#: Charges that were made at an instant which is not in the account's window; and ends that are not where the hold was.
_OUTSIDE: Final = f"""SELECT e.account_id, e.at_us FROM entries e JOIN accounts a ON a.id = e.account_id
    WHERE e.{_HELD} AND a.scope = 'budget' AND NOT (a.window_start_us <= e.at_us AND e.at_us < a.window_end_us)"""
_ELSEWHERE: Final = f"""SELECT e.account_id FROM entries e WHERE NOT (e.{_HELD}) AND NOT EXISTS (SELECT 1
    FROM entries h WHERE h.{_HELD} AND h.action_id = e.action_id AND h.attempt = e.attempt
    AND h.account_id = e.account_id)"""
#: Attempts that held before an instant and after it.
_ACROSS: Final = f"""SELECT action_id FROM entries WHERE {_HELD} GROUP BY action_id
    HAVING min(at_us) < :turn AND max(at_us) >= :turn"""


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    gov = make_governance(database_url)
    yield Desk(gov)
    gov.store.close()


@pytest.mark.parametrize(("midnight", "hours"), TURNS)
def test_every_hold_is_of_the_window_in_which_it_was_taken(
    desk: Desk, database_url: str, midnight: str, hours: dict[str, int]
) -> None:
    """Eight processes hold on either side of a midnight, none at the moment of another, and hold more for what runs
    across it; all of it ends after it.
    """
    turn_us = int(datetime.fromisoformat(midnight).timestamp()) * SECOND_US
    clock(desk).at_us = turn_us - HOUR_US // 2
    for period in hours:
        for name, limit in (("tight", LIMIT), ("roomy", ROOMY)):
            config = {"identity": {"org": name}, "period": period, "timezone": "Europe/Berlin", "max_tokens": limit}
            budgets.set_budget(desk.gov, f"{name}-{period}", config, by=ANN, reason="race")
    span_us = 40 * STEP_US
    seen = race(database_url, "straddle", f"{turn_us - span_us}:{STEP_US}:{turn_us + span_us}:tight:roomy", RACERS)
    assert seen["tight"] == 2 * LIMIT // EACH
    found = desk.gov.store.read(
        """SELECT scope_id, window_start_us, window_end_us, posted, held FROM accounts WHERE scope = 'budget'
            ORDER BY scope_id, window_start_us""",
        {},
    )
    accounts = {(row[0].split(":")[0], row[1] >= turn_us): tuple(row[1:]) for row in found}
    assert len(found) == len(accounts) == 4 * len(hours)
    for period, length in hours.items():
        before, after = accounts[f"tight-{period}", False], accounts[f"tight-{period}", True]
        assert before == (turn_us - length * HOUR_US, turn_us, LIMIT, 0)
        assert (after[0], *after[2:]) == (turn_us, LIMIT, 0)
        before, after = accounts[f"roomy-{period}", False], accounts[f"roomy-{period}", True]
        assert before[2] + after[2] == seen["roomy"] * EACH
        assert min(before[2], after[2]) > 0
    across = desk.gov.store.read(_ACROSS, {"turn": turn_us})
    assert across, "some attempts hold on both sides"
    assert desk.gov.store.read(_OUTSIDE, {}) == []
    assert desk.gov.store.read(_ELSEWHERE, {}) == []
    clock(desk).at_us = turn_us + HOUR_US
    books.assert_agree(desk.gov)
    assert reconcile(desk.gov).findings == ()
    assert audit.verify(desk.gov).problems == ()


def test_a_change_counts_for_a_window_that_a_clock_ahead_has_opened(desk: Desk) -> None:
    """Clocks differ a little: at midnight a worker may be in the next day, and whoever changes a budget not yet."""
    config = {"identity": {"org": "acme"}, "period": "daily", "max_tokens": 100}
    budgets.set_budget(desk.gov, "day", config, by=ANN, reason="x")
    midnight_us = -(-clock(desk).at_us // (DAY_S * SECOND_US)) * DAY_S * SECOND_US
    clock(desk).at_us = midnight_us - 1
    ahead = Desk(replace(desk.gov, clock=replace(clock(desk), at_us=midnight_us + 1), sessions={}, boards=[]))
    assert isinstance(ask(ahead, org="acme", tokens=1), Admitted)
    until_us = midnight_us + SECOND_US
    budgets.raise_budget(desk.gov, "day", until_us=until_us, reason="x", by=ANN, tokens=50)
    assert reconcile(ahead.gov).findings == ()
    assert isinstance(ask(ahead, org="acme", tokens=149), Admitted)
    budgets.set_budget(desk.gov, "day", {**config, "max_tokens": 110}, by=ANN, reason="x")
    clock(ahead).at_us = until_us
    assert end_raises(ahead.gov, "test") == 1
    (limit,) = ahead.gov.store.read("SELECT limit_amount, raised FROM accounts WHERE scope = 'budget'", {})
    assert tuple(limit) == (110, 0)
    assert reconcile(ahead.gov).findings == ()
