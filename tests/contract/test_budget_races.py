"""Eight processes on one org's budget of each kind and period: no overshoot, no false denial, books that agree."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from governance.clock import SystemClock
from governance.core.instants import SECOND_US
from governance.core.switches import Scope
from governance.core.windows import Period
from governance.operations import audit, budgets, switches
from governance.operations.reconcile import reconcile
from tests.support.governed import ANN, Desk, make_governance
from tests.support.racer import RACERS, race

LIMIT = 200
EACH = 10


@pytest.fixture
def racing(database_url: str) -> Iterator[Desk]:
    gov = make_governance(database_url, clock=SystemClock())
    yield Desk(gov)
    gov.store.close()


def set_each(desk: Desk, **more: object) -> list[str]:
    """A budget of each kind and period, for an org of its own; the orgs."""
    orgs = []
    for period in Period:
        for kind, limit in (("tokens", {"max_tokens": LIMIT}), ("cost", {"max_cost_usd": f"{LIMIT / 10**6:.6f}"})):
            org = f"{period}-{kind}"
            config = {"identity": {"org": org}, "period": period, **limit, **more}
            budgets.set_budget(desk.gov, org, config, by=ANN, reason="race")
            orgs.append(org)
    return orgs


@pytest.mark.parametrize(("body_ms", "times"), [(2, 4), (200, 3)])
def test_eight_processes_spend_exactly_what_a_budget_has(
    racing: Desk, database_url: str, body_ms: int, times: int
) -> None:
    orgs = set_each(racing)
    # Nobody has opened a window of theirs: all of them do, at once.
    seen = race(database_url, "charge", ":".join([str(body_ms), str(times), *orgs]), RACERS)
    for org in orgs:
        assert seen[f"{org} admitted"] == LIMIT // EACH
        assert seen[f"{org} budget:{org}"] == RACERS * times - LIMIT // EACH
    found = racing.gov.store.read("SELECT limit_amount, posted, held FROM accounts WHERE scope = 'budget'", {})
    assert [tuple(row) for row in found] == [(LIMIT, LIMIT, 0)] * len(orgs)
    assert reconcile(racing.gov).findings == ()
    assert audit.verify(racing.gov).problems == ()


def test_a_raise_in_the_middle_is_spent_exactly_as_well(racing: Desk, database_url: str) -> None:
    orgs = set_each(racing, stripes=4)[:2]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(race, database_url, "charge", ":".join(["2", "8", *orgs]), RACERS)
        until_us = racing.gov.clock.now_us() + 3600 * SECOND_US
        for org, tokens, cost in zip(orgs, (100, 0), (0, 100), strict=True):
            budgets.raise_budget(
                racing.gov, org, until_us=until_us, reason="more", by=ANN, tokens=tokens, cost_micros=cost
            )
        while not running.done():
            assert reconcile(racing.gov).findings == ()
        seen = running.result()
    for org in orgs:
        assert seen[f"{org} admitted"] == (LIMIT + 100) // EACH
    assert reconcile(racing.gov).findings == ()
    assert audit.verify(racing.gov).problems == ()


def test_usage_outside_of_actions_stops_once_in_the_middle_of_the_race(racing: Desk, database_url: str) -> None:
    config = {"identity": {"team": "strict"}, "period": "unlimited", "max_tokens": 60, "on_exhausted": "stop"}
    budgets.set_budget(racing.gov, "strict", config, by=ANN, reason="race")
    seen = race(database_url, "use", "strict:10", RACERS)
    assert seen["Admitted"] + seen["Cancelled"] + seen["Denied"] == RACERS * 10
    assert seen["exhausted"] > 0
    (switch,) = switches.board_now(racing.gov).engaged
    assert (switch.scope, switch.scope_id) == (Scope.TEAM, "strict")
    found = racing.gov.store.read("SELECT posted, held FROM accounts WHERE scope = 'budget'", {})
    # What is recorded counts even when it is more than was left; actions never take what is not there.
    assert [tuple(row) for row in found] == [(RACERS * 10 + seen["Admitted"], 0)]
    assert reconcile(racing.gov).findings == ()
    assert audit.verify(racing.gov).problems == ()
