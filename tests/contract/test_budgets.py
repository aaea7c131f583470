"""Budgets by identity and period: held on all that match or on none, and what becomes of what finds no room."""

from collections.abc import Iterator
from typing import Any

import pytest

from governance.core.budgets import Payer
from governance.core.instants import SECOND_US, iso
from governance.core.ledger import Usage
from governance.core.policy import Risk
from governance.core.principals import Principal
from governance.core.switches import Scope
from governance.errors import CommandConflict, InvalidOption, NotAllowed, NotFound
from governance.operations import audit, budgets, decide, relay, switches
from governance.operations.answers import Admitted, Cancelled, Deferred, Denied, Parked
from governance.operations.charges import end_raises
from governance.operations.escalate import escalate_overdue
from governance.operations.notify import pending_notices
from tests.support import books
from tests.support.charged import BUDGETS, DAY_S, accounts, ask, clock, told
from tests.support.governed import ANN, BOB, POLICY, Desk, make_governance

FOREVER = {"identity": {"team": "forever"}, "period": "unlimited", "max_tokens": 1, "on_exhausted": "park"}
MONTH_END_US = 1_801_440_000 * SECOND_US  # 2027-02-01


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    gov = make_governance(database_url, policy=POLICY + BUDGETS)
    yield Desk(gov)
    gov.store.close()


def test_an_action_is_charged_to_every_budget_it_matches(desk: Desk) -> None:
    run = ask(desk, user="ann", org="acme", cost_micros=4000, tokens=10)
    assert isinstance(run, Admitted)
    assert accounts(desk) == {
        "each-user:daily:user=ann cost_micros": (10_000, 0, 4000),
        "each-user:daily:user=ann tokens": (1000, 0, 10),
        "org-week:weekly:org=acme cost_micros": (30_000, 0, 4000),
    }
    desk.finish(run, usage=Usage(cost_micros=3000, tokens=20))
    assert accounts(desk) == {
        "each-user:daily:user=ann cost_micros": (10_000, 3000, 0),
        "each-user:daily:user=ann tokens": (1000, 20, 0),
        "org-week:weekly:org=acme cost_micros": (30_000, 3000, 0),
    }
    assert isinstance(ask(desk, user="bob", org="other"), Admitted)
    assert accounts(desk)["each-user:daily:user=bob tokens"] == (1000, 0, 0)
    assert isinstance(ask(desk, team="nobody"), Admitted)
    assert len(accounts(desk)) == 5
    books.assert_agree(desk.gov)
    assert audit.verify(desk.gov).problems == ()


def test_a_refusal_names_the_tightest_budget_and_holds_nothing(desk: Desk) -> None:
    for user in ("ann", "bob", "cat"):
        assert isinstance(ask(desk, user=user, org="acme", cost_micros=9000), Admitted)
    before = accounts(desk)
    refused = ask(desk, user="ann", org="acme", cost_micros=9000, tokens=5)
    # Of ann's a tenth is left, of the org's as much: the one that resets last is named.
    assert isinstance(refused, Denied)
    assert refused.rule == "budget:org-week"
    assert refused.reason == (
        "budget org-week (org=acme) has 3000 cost_micros left, this needs 9000 "
        "(limit 30000, used 0, held 27000, resets 2027-01-17T23:00:00Z)"
    )
    assert accounts(desk) == before
    assert ask(desk, user="ann", org="other", cost_micros=2000).rule == "budget:each-user"
    (first, second) = told(desk, "budget.exhausted")
    assert (first["budget"], first["who"], first["wanted"], first["outcome"]) == (
        "org-week",
        "org=acme",
        9000,
        "denied",
    )
    assert (first["user"], first["org"], "model" in first) == ("ann", "acme", False), "counted by whom it is about"
    assert (first["limit"], first["posted"], first["held"]) == (30_000, 0, 27_000)
    assert second["budget"] == "each-user"
    books.assert_agree(desk.gov)
    assert audit.verify(desk.gov).problems == ()


def test_a_hold_settles_in_the_window_in_which_it_was_taken(desk: Desk) -> None:
    midnight_us = -(-desk.gov.clock.now_us() // (DAY_S * SECOND_US)) * DAY_S * SECOND_US
    clock(desk).at_us = midnight_us - SECOND_US
    before = [ask(desk, user="ann", tokens=10) for _ in range(2)]
    clock(desk).at_us = midnight_us + SECOND_US
    after = ask(desk, user="ann", tokens=20)
    for run in (*before, after):
        desk.finish(run, usage=Usage(cost_micros=0, tokens=7))
    found = desk.gov.store.read(
        "SELECT window_start_us, posted, held FROM accounts WHERE scope = 'budget' AND unit = 'tokens' ORDER BY 1", {}
    )
    assert [tuple(row) for row in found] == [(midnight_us - DAY_S * SECOND_US, 14, 0), (midnight_us, 7, 0)]
    books.assert_agree(desk.gov)


def test_deferred_waits_for_the_next_window_or_for_a_raise(desk: Desk) -> None:
    assert isinstance(ask(desk, team="patient", tokens=90), Admitted)
    made = desk.submit(team="patient", tokens=20, cost_micros=0)
    waits = desk.arrive(made)
    assert isinstance(waits, Deferred)
    day_us = DAY_S * SECOND_US
    assert waits.until_us == -(-desk.gov.clock.now_us() // day_us) * day_us
    until_us = desk.gov.clock.now_us() + 3600 * SECOND_US
    changed = budgets.raise_budget(
        desk.gov, "waits", until_us=until_us, reason="a busy day", by=ANN, tokens=10, command_id="raise-1"
    )
    assert changed.released == (made.action_id,)
    again = budgets.raise_budget(
        desk.gov, "waits", until_us=until_us, reason="a busy day", by=ANN, tokens=10, command_id="raise-1"
    )
    assert (again.repeated, again.raise_id) == (True, changed.raise_id)
    with pytest.raises(CommandConflict):
        budgets.raise_budget(
            desk.gov, "waits", until_us=until_us, reason="busier", by=ANN, tokens=90, command_id="raise-1"
        )
    assert accounts(desk)["waits:daily:team=patient tokens"] == (110, 0, 90)
    assert isinstance(desk.arrive(made), Admitted)
    assert isinstance(ask(desk, team="patient", tokens=1), Deferred)
    # Whoever raised it may have died before what waited was let go: a repeat does that, too.
    again = budgets.raise_budget(
        desk.gov, "waits", until_us=until_us, reason="a busy day", by=ANN, tokens=10, command_id="raise-1"
    )
    assert (again.repeated, len(again.released)) == (True, 1)
    (raised,) = budgets.find_budget(desk.gov, "waits").raises
    assert (raised.tokens, raised.until_us, raised.reason) == (10, until_us, "a busy day")
    # The raise ends by the first admission after it, and never takes a limit below what it was.
    clock(desk).at_us = until_us
    assert isinstance(ask(desk, team="patient", tokens=1), Deferred)
    assert accounts(desk)["waits:daily:team=patient tokens"] == (100, 0, 110)
    assert budgets.find_budget(desk.gov, "waits").raises == ()
    assert [said["raise_id"] for said in told(desk, "budget.raise_ended")] == [changed.raise_id]
    clock(desk).at_us = waits.until_us
    assert len(relay.release_due(desk.gov, "relay", 100)) == 1
    assert audit.verify(desk.gov).problems == ()


def test_a_raise_counts_for_windows_that_open_while_it_lasts(desk: Desk) -> None:
    until_us = desk.gov.clock.now_us() + 2 * DAY_S * SECOND_US
    budgets.raise_budget(desk.gov, "each-user", until_us=until_us, reason="x", by=ANN, tokens=5, who="user=ann")
    for user in ("ann", "bob"):
        assert isinstance(ask(desk, user=user), Admitted)
    clock(desk).pass_s(DAY_S)
    assert isinstance(ask(desk, user="ann"), Admitted)
    clock(desk).at_us = until_us
    assert end_raises(desk.gov, "test") == 1
    assert end_raises(desk.gov, "test") == 0
    assert isinstance(ask(desk, user="ann"), Admitted)
    limits = desk.gov.store.read(
        """SELECT scope_id, limit_amount FROM accounts WHERE unit = 'tokens' AND scope = 'budget'
            ORDER BY 1, window_end_us""",
        {},
    )
    assert [tuple(row) for row in limits] == [
        ("each-user:daily:user=ann", 1005),
        ("each-user:daily:user=ann", 1005),
        ("each-user:daily:user=ann", 1000),
        ("each-user:daily:user=bob", 1000),
    ]


def test_parked_waits_for_a_raise_and_keeps_the_approval_it_had(desk: Desk) -> None:
    assert isinstance(ask(desk, team="asking", tokens=90), Admitted)
    made = desk.submit(team="asking", tokens=20, cost_micros=0, risk=Risk.HIGH)
    assert isinstance(desk.arrive(made), Parked)
    decide.approve(desk.gov, made.action_id, by=BOB, reason="fine")
    parked = desk.arrive(made)
    assert isinstance(parked, Parked)
    assert parked.rule == "budget:asks"
    until_us = desk.gov.clock.now_us() + DAY_S * SECOND_US
    changed = budgets.raise_budget(desk.gov, "asks", until_us=until_us, reason="go on", by=ANN, tokens=100)
    assert changed.released == (made.action_id,)
    assert isinstance(desk.arrive(made), Admitted)
    # Denying the request denies the action; approving it asks the budget again, which still has no room.
    other = desk.submit(team="asking", tokens=100, cost_micros=0)
    assert isinstance(desk.arrive(other), Parked)
    decide.approve(desk.gov, other.action_id, by=BOB, reason="try")
    assert isinstance(desk.arrive(other), Parked)
    decide.deny(desk.gov, other.action_id, by=BOB, reason="no money")
    assert desk.state(other) == "denied"
    direct = desk.arrive(desk.submit(team="asking", tokens=100, cost_micros=0, can_wait=False), can_wait=False)
    assert isinstance(direct, Denied)
    books.assert_agree(desk.gov)
    assert audit.verify(desk.gov).problems == ()


def test_what_a_budget_parked_goes_on_when_it_resets(desk: Desk) -> None:
    assert isinstance(ask(desk, team="asking", tokens=90), Admitted)
    expires_us = clock(desk).now_us() + 3600 * SECOND_US
    hasty = desk.submit(team="asking", tokens=20, cost_micros=0, expires_us=expires_us)
    made = desk.submit(team="asking", tokens=20, cost_micros=0, risk=Risk.HIGH)
    decide.approve(desk.gov, made.action_id, by=BOB, reason="fine")
    large = desk.submit(team="asking", tokens=101, cost_micros=0)
    for one in (hasty, made, large):
        assert isinstance(desk.arrive(one), Parked)
    budgets.set_budget(desk.gov, "forever", FOREVER, by=ANN, reason="once")
    forever = desk.submit(team="forever", tokens=2, cost_micros=0)
    assert isinstance(desk.arrive(forever), Parked)
    clock(desk).pass_s(7 * DAY_S)
    swept = escalate_overdue(desk.gov, "escalation")
    assert (swept.denied, swept.released) == ([forever.action_id], []), "what never resets is asked about for a week"
    clock(desk).at_us = MONTH_END_US - 1
    assert escalate_overdue(desk.gov, "escalation").released == []
    clock(desk).at_us = MONTH_END_US
    swept = escalate_overdue(desk.gov, "escalation")
    assert (swept.denied, set(swept.released)) == ([], {hasty.action_id, made.action_id, large.action_id})
    assert (swept.moved_up, escalate_overdue(desk.gov, "escalation").released) == (0, [])
    assert [said["cause"] for said in told(desk, "action.released")] == ["approved", *["reset"] * 3]
    closed = desk.gov.store.read("SELECT state, decided_by FROM tickets WHERE rule = :rule", {"rule": "budget:asks"})
    assert [tuple(row) for row in closed] == [("cancelled", "escalation")] * 3
    # The approval that it had counts; what the caller wanted earlier is not run late; the new window is asked.
    assert isinstance(desk.arrive(made), Admitted)
    late = desk.arrive(hasty)
    assert isinstance(late, Denied)
    assert late.rule == "expires"
    assert isinstance(desk.arrive(large), Parked)
    notices = [notice for notice in pending_notices(desk.gov, 50) if notice.payload["action_id"] == made.action_id]
    assert [notice.kind.partition(".")[2] for notice in notices][-2:] == ["requested", "cancelled"]
    books.assert_agree(desk.gov)
    assert audit.verify(desk.gov).problems == ()


def test_stop_engages_the_switch_of_the_budgets_own_scope(desk: Desk) -> None:
    run = ask(desk, team="strict", tokens=90)
    too_large = ask(desk, team="strict", tokens=101)
    assert isinstance(too_large, Denied)
    # What is only held may come back.
    assert isinstance(ask(desk, team="strict", tokens=20), Denied)
    desk.finish(run, usage=Usage(0, 90))
    assert isinstance(ask(desk, team="strict", tokens=20), Cancelled)
    (switch,) = switches.board_now(desk.gov).engaged
    assert (switch.scope, switch.scope_id) == (Scope.TEAM, "strict")
    assert "never resets" in switch.reason
    assert isinstance(ask(desk, team="other", tokens=20), Admitted)
    assert [said["outcome"] for said in told(desk, "budget.exhausted")] == ["denied", "denied", "stop"]


def test_a_budget_that_is_set_counts_at_once_and_before_the_policys(desk: Desk) -> None:
    assert isinstance(ask(desk, org="acme", cost_micros=20_000), Admitted)
    wanted = {"identity": {"org": "acme"}, "period": "weekly", "timezone": "Europe/Berlin", "max_cost_usd": "0.02"}
    budgets.set_budget(desk.gov, "org-week", wanted, by=ANN, reason="less")
    assert accounts(desk)["org-week:weekly:org=acme cost_micros"] == (20_000, 0, 20_000)
    assert isinstance(ask(desk, org="acme", cost_micros=1), Denied)
    found = budgets.find_budget(desk.gov, "org-week")
    assert (found.set_by, found.reason) == (ANN.actor, "less")
    fleet = {"identity": {"stream": "*"}, "period": "daily", "max_tokens": 5}
    budgets.set_budget(desk.gov, "streams", fleet, by=ANN, reason="new")
    assert ask(desk, tokens=6).rule == "budget:streams"
    budgets.set_budget(desk.gov, "streams", None, by=ANN, reason="over")
    budgets.set_budget(desk.gov, "org-week", None, by=ANN, reason="over")
    assert isinstance(ask(desk, tokens=6), Admitted)
    assert accounts(desk)["org-week:weekly:org=acme cost_micros"][0] == 30_000
    # Once nothing is set, the policy's budget counts again.
    assert ask(desk, org="acme", cost_micros=10_001).rule == "budget:org-week"
    assert isinstance(ask(desk, org="acme", cost_micros=10_000), Admitted)
    assert budgets.find_budget(desk.gov, "org-week").set_by is None
    with pytest.raises(NotFound):
        budgets.find_budget(desk.gov, "streams")
    assert len(told(desk, "budget.set")) == 2
    assert audit.verify(desk.gov).problems == ()


def test_what_is_not_a_budget_or_a_raise_is_refused(desk: Desk) -> None:
    until_us = desk.gov.clock.now_us() + 1
    wrong: list[dict[str, Any]] = [{"until_us": until_us - 1}, {"reason": " "}, {"tokens": 0}, {"cost_micros": 1}]
    wrong += [{"who": "patient"}, {"who": "org=patient"}, {"who": "team=patient,org=x"}]
    for changes in wrong:
        with pytest.raises(InvalidOption):
            budgets.raise_budget(
                desk.gov, "waits", **{"until_us": until_us, "reason": "x", "tokens": 1, "by": ANN, **changes}
            )
    with pytest.raises(NotFound):
        budgets.raise_budget(desk.gov, "unknown", until_us=until_us, reason="x", by=ANN, tokens=1)
    with pytest.raises(NotFound):
        budgets.set_budget(desk.gov, "waits", None, by=ANN, reason="x")
    nobody = Principal("eve", frozenset({"approver"}))
    with pytest.raises(NotAllowed):
        budgets.raise_budget(desk.gov, "waits", until_us=until_us, reason="x", by=nobody, tokens=1)
    with pytest.raises(NotAllowed):
        budgets.set_budget(desk.gov, "x", {"identity": {"org": "a"}}, by=nobody, reason="x")
    with pytest.raises(InvalidOption, match="max_tokens, max_cost_usd"):
        budgets.set_budget(desk.gov, "x", {"identity": {"org": "a"}, "period": "daily"}, by=ANN, reason="x")


def test_what_the_message_says_decides_nothing(desk: Desk) -> None:
    """A header that names another identity, or none, saves no budget a hold."""
    for payer in (None, Payer("bob", None, "other", None, "default"), Payer("ann", None, "acme", "a1", "default")):
        made = desk.submit(user="ann", org="acme", cost_micros=100, tokens=0)
        assert isinstance(desk.arrive(made, payer=payer), Admitted)
    assert accounts(desk)["org-week:weekly:org=acme cost_micros"] == (30_000, 0, 300)
    assert iso(desk.gov.clock.now_us()).startswith("2027-01-15")
