"""Eight processes on one database: no overshoot, no false denial, one effect for each command."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from governance.clock import SystemClock
from governance.core.policy import Risk
from governance.operations import audit
from tests.support.governed import Desk, make_governance
from tests.support.racer import race

RACERS = 8


@pytest.fixture
def racing(database_url: str) -> Iterator[Desk]:
    gov = make_governance(database_url, clock=SystemClock())
    yield Desk(gov)
    gov.store.close()


def test_eight_spenders_never_overshoot_one_budget(racing: Desk, database_url: str) -> None:
    with ThreadPoolExecutor(1) as spending:
        running = spending.submit(race, database_url, "spend", "small 25", RACERS)
        # The books balance at every moment of it, not only at the end.
        checked = 0
        while not running.done() or not checked:
            assert audit.verify(racing.gov).problems == ()
            checked += 1
        seen = running.result()
    assert sum(seen.values()) == RACERS * 25
    for unit in ("cost_micros", "actions"):
        account = racing.account(unit, "small")
        assert account["posted"] <= account["limit"]
        assert account["held"] == 0
    assert racing.account("actions", "small")["posted"] == seen["admitted"] <= 10
    assert audit.verify(racing.gov).problems == ()


def test_eight_takers_get_exactly_what_the_budget_has(racing: Desk, database_url: str) -> None:
    seen = race(database_url, "take", "small 10", RACERS)
    assert seen == {"admitted": 10, "denied": RACERS * 10 - 10}
    assert racing.account("actions", "small") == {"limit": 10, "posted": 0, "held": 10}
    assert racing.account("cost_micros", "small")["held"] == 10_000


def test_one_action_runs_once_however_often_it_is_delivered(racing: Desk, database_url: str) -> None:
    ids = [racing.submit().action_id for _ in range(40)]
    seen = race(database_url, "same_messages", ",".join(ids), RACERS)
    assert seen["Admitted"] == 40
    assert sum(seen.values()) == 40 * RACERS
    assert racing.account("actions")["posted"] == 40
    assert audit.verify(racing.gov).problems == ()


def test_one_command_makes_one_action_however_often_it_is_sent(racing: Desk, database_url: str) -> None:
    seen = race(database_url, "same_commands", "40", RACERS)
    assert seen == {"Recorded": 40, "Repeated": 40 * (RACERS - 1)}


def test_one_ticket_has_one_decision(racing: Desk, database_url: str) -> None:
    ids = [racing.submit(risk=Risk.HIGH).action_id for _ in range(20)]
    seen = race(database_url, "decisions", ",".join(ids), RACERS)
    assert seen == {"won": 20, "lost": 20 * (RACERS - 1)}
    agree = racing.gov.store.read(
        """SELECT count(*) FROM actions a JOIN tickets t ON t.id = a.ticket_id
            WHERE (a.state = 'queued' AND t.state = 'approved') OR (a.state = 'denied' AND t.state = 'denied')""",
        {},
    )
    assert agree[0][0] == 20
    assert audit.verify(racing.gov).problems == ()
