"""Eight processes on the same requests: every step is taken once, every person counts once, a race has one winner."""

from collections.abc import Iterator

import pytest

from governance.clock import SystemClock
from governance.core.actions import Submission
from governance.core.instants import SECOND_US
from governance.core.policy import Risk
from governance.operations import audit, reports
from tests.support import books
from tests.support.governed import POLICY, Desk, ManualClock, make_governance
from tests.support.racer import RACERS, race

RULES = """rules:
  - id: refund
    match: {action: case.refund}
    effect: approval
    approval: {chain: [{first: team-lead 15m}, {then: on-call 30m}, {then: cfo 60m}, {then: deny}]}
  - {id: three, match: {action: case.open}, effect: approval, approval: {timeout: 15m, approvals: 3}}
  - {id: five, match: {action: case.move}, effect: approval, approval: {timeout: 15m, approvals: 5}}
"""
CHAINS = POLICY.replace("rules:\n", RULES)
MINUTE_US = 60 * SECOND_US


@pytest.fixture
def racing(database_url: str) -> Iterator[Desk]:
    gov = make_governance(database_url, clock=SystemClock(), policy=CHAINS)
    yield Desk(gov)
    gov.store.close()


def at(url: str, at_us: int) -> Desk:
    """A desk that lives at another time."""
    return Desk(make_governance(url, policy=CHAINS, clock=ManualClock(at_us)))


def ticket(desk: Desk, made: Submission) -> reports.TicketLine:
    return reports.find_ticket(desk.gov, made.action_id)


def in_order(desk: Desk) -> None:
    books.assert_agree(desk.gov)
    assert audit.verify(desk.gov).problems == ()


def test_eight_sweeps_at_once_change_nothing_twice(racing: Desk, database_url: str) -> None:
    begin_us = racing.gov.clock.now_us() - 106 * MINUTE_US
    past = at(database_url, begin_us)
    for _ in range(600):
        past.submit(name="case.refund")
    past.gov.store.close()
    seen = race(database_url, "escalations", "", RACERS)
    assert (seen["denied"], seen["moved up"]) == (600, 1200)
    last = racing.gov.store.read(
        "SELECT level, due_us, expires_us, state, count(*) FROM tickets GROUP BY 1, 2, 3, 4", {}
    )
    assert [tuple(row) for row in last] == [(2, *[begin_us + 105 * MINUTE_US] * 2, "expired", 600)]
    in_order(racing)


def test_a_decision_that_races_an_expiry_has_one_winner(racing: Desk, database_url: str) -> None:
    """Every ticket expires a little later than the one before, and is approved at about that moment."""
    begin_us = racing.gov.clock.now_us() + 2 * SECOND_US
    tickets = []
    past = at(database_url, 0)
    for number in range(50):
        assert isinstance(past.gov.clock, ManualClock)
        past.gov.clock.at_us = begin_us + number * 40_000 - 15 * MINUTE_US
        asked = ticket(past, past.submit(risk=Risk.HIGH))
        tickets.append(f"{asked.id}:{asked.expires_us}")
    past.gov.store.close()
    seen = race(database_url, "last_moment", ",".join(tickets), RACERS)
    assert seen["approved"] + seen["denied"] == 50
    ended = racing.gov.store.read("SELECT a.state, t.state FROM actions a JOIN tickets t ON t.action_id = a.id", {})
    won = [tuple(row) for row in ended]
    assert (won.count(("queued", "approved")), won.count(("denied", "expired"))) == (seen["approved"], seen["denied"])
    in_order(racing)


def test_racing_approvers_count_once_each(racing: Desk, database_url: str) -> None:
    three, five = ([racing.submit(name=name) for _ in range(8)] for name in ("case.open", "case.move"))
    seen = race(database_url, "votes", ",".join(one.action_id for one in (*three, *five)), RACERS)
    assert seen == {"queued": 8, "parked": 8 * 2 + 8 * 4, "refused": 8 * (8 - 3) + 8 * (8 - 4)}
    for made, state, count in [*((one, "approved", 3) for one in three), *((one, "pending", 4) for one in five)]:
        asked = ticket(racing, made)
        voters = {vote.by for vote in asked.votes}
        assert (asked.state, len(asked.votes), len(voters)) == (state, count, count)
    in_order(racing)
