"""`on_exhausted: stop` while the budget is raised: whichever is first counts, and neither overtakes the other."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest

from governance.clock import SystemClock
from governance.core.instants import SECOND_US
from governance.core.ledger import Usage
from governance.operations import audit, budgets, switches
from governance.operations.answers import Admitted, Cancelled
from governance.operations.reconcile import reconcile
from tests.support.charged import ask
from tests.support.clocks import InterruptingClock
from tests.support.governed import ANN, Desk, make_governance
from tests.support.racer import RACERS, race

LIMIT = 50
MORE = 50
STOPS = {"identity": {"team": "*"}, "period": "unlimited", "max_tokens": LIMIT, "on_exhausted": "stop"}


@pytest.fixture
def racing(database_url: str) -> Iterator[Desk]:
    gov = make_governance(database_url, clock=SystemClock())
    budgets.set_budget(gov, "stops", STOPS, by=ANN, reason="race")
    yield Desk(gov)
    gov.store.close()


def raise_it(desk: Desk, team: str) -> None:
    until_us = desk.gov.clock.now_us() + 3600 * SECOND_US
    budgets.raise_budget(desk.gov, "stops", until_us=until_us, reason="more", by=ANN, tokens=MORE, who=f"team={team}")


def engaged_before(desk: Desk, team: str) -> tuple[bool, int | None]:
    """Whether the team's switch is of an earlier epoch than its raise, and the limit that it was engaged at, if any."""
    found = desk.gov.store.read(
        """SELECT s.epoch, r.epoch FROM raises r LEFT JOIN switches s ON s.scope = 'team' AND s.scope_id = :team
            WHERE r.who = :who""",
        {"team": team, "who": f"team={team}"},
    )
    ((engaged, raised),) = found
    told = desk.gov.store.read("SELECT payload FROM events WHERE kind = 'budget.exhausted'", {})
    limits = [
        said["limit"]
        for said in (json.loads(row[0]) for row in told)
        if (said["outcome"], said["who"]) == ("stop", f"team={team}")
    ]
    assert len(limits) == (engaged is not None)
    return engaged is not None and engaged < raised, limits[0] if limits else None


def test_no_budget_stops_anybody_after_the_raise_that_gave_it_room(racing: Desk, database_url: str) -> None:
    """Teams use up their budgets in eight processes while each budget is raised once."""
    teams = [f"t{number}" for number in range(4)]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(race, database_url, "use_up", ":".join(teams), RACERS)
        for team in teams:
            used = 0
            while used < LIMIT - 10 and not running.done():
                found = racing.gov.store.read(
                    "SELECT posted FROM accounts WHERE scope_id = :id", {"id": f"stops:unlimited:team={team}"}
                )
                used = found[0][0] if found else 0
            raise_it(racing, team)
        seen = running.result()
    for team in teams:
        before, limit = engaged_before(racing, team)
        admitted = seen[f"{team} Admitted"] * 10
        assert limit == (LIMIT if before else LIMIT + MORE)
        assert admitted == limit, "what there was room for ran, and nothing else"
        last, stopped = racing.gov.store.read(
            """SELECT (SELECT max(e.id) FROM events e JOIN actions a ON a.id = e.action_id
                    WHERE e.kind = 'action.admitted' AND a.team = :team) AS last,
                (SELECT e.id FROM events e WHERE e.kind = 'switch.engaged' AND e.payload LIKE :said) AS stopped""",
            {"team": team, "said": f'%"scope_id":"{team}"%'},
        )[0]
        assert last < stopped, "nothing was admitted after the stop"
    assert reconcile(racing.gov).findings == ()
    assert audit.verify(racing.gov).problems == ()


def test_a_raise_between_the_decision_and_the_stop_is_seen(racing: Desk, database_url: str) -> None:
    """Whenever in an admission the raise comes: the action is admitted, or the switch was engaged before the raise."""
    looks = 0
    while True:
        looks += 1
        team = f"t{looks}"
        run = ask(racing, team=team, tokens=LIMIT - 10)
        racing.finish(run, usage=Usage(0, LIMIT - 10))
        made = racing.submit(team=team, tokens=20, cost_micros=0)
        clock = InterruptingClock(racing.gov.clock.now_us(), looks, partial(raise_it, racing, team))
        found = Desk(replace(racing.gov, clock=clock, sessions={}, boards=[], charges={}, payers={})).arrive(made)
        if not clock.interrupted:
            break
        before, limit = engaged_before(racing, team)
        assert limit == (LIMIT if before else None)
        assert isinstance(found, Cancelled if before else Admitted)
    assert looks > 2
    assert len(switches.board_now(racing.gov).engaged) >= 1
    assert reconcile(racing.gov).findings == ()
