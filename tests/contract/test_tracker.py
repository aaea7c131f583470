"""Budgets outside of actions: asked before a call, charged with what it used, and what that sets off."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from governance.core.identity import Part
from governance.core.instants import SECOND_US
from governance.core.ledger import Usage
from governance.core.switches import Scope
from governance.directory_file import parse_directory
from governance.errors import CommandConflict, InvalidOption
from governance.operations import audit, budgets, switches
from governance.operations.answers import Cancelled
from governance.operations.directory import load
from governance.operations.reconcile import reconcile
from governance.operations.tracker import HasNoRoom, HasRoom, TokenBudgetTracker, UsageRecorded
from tests.support.charged import BUDGETS, DAY_S, accounts, ask, clock, told
from tests.support.governed import ANN, POLICY, Desk, make_governance


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    gov = make_governance(database_url, policy=POLICY + BUDGETS)
    yield Desk(gov)
    gov.store.close()


def test_usage_outside_of_actions_is_checked_and_recorded_once(desk: Desk) -> None:
    tracker = TokenBudgetTracker(desk.gov)
    who: dict[str, Any] = {"user": "ann", "org": "acme"}
    assert tracker.check_budget(**who, cost_micros=10_000) == HasRoom(("each-user", "org-week"))
    short = tracker.check_budget(**who, cost_micros=10_001)
    assert isinstance(short, HasNoRoom)
    assert short.rule == "budget:each-user"
    assert "needs 10001" in short.reason
    first = tracker.record_usage(**who, cost_micros=4000, tokens=7, command_id="c1")
    assert first == UsageRecorded(("each-user", "org-week"), ())
    assert tracker.record_usage(**who, cost_micros=4000, tokens=7, command_id="c1").repeated
    with pytest.raises(CommandConflict):
        tracker.record_usage(**who, cost_micros=4001, tokens=7, command_id="c1")
    # More than was left: it was used, so it counts, and the answer says so.
    assert tracker.record_usage(**who, cost_micros=9000).exhausted == ("each-user",)
    assert accounts(desk)["each-user:daily:user=ann cost_micros"] == (10_000, 13_000, 0)
    assert accounts(desk)["org-week:weekly:org=acme cost_micros"] == (30_000, 13_000, 0)
    assert ask(desk, user="ann", cost_micros=1).rule == "budget:each-user"
    assert [said["outcome"] for said in told(desk, "budget.exhausted")] == ["recorded", "denied"]
    with pytest.raises(InvalidOption):
        tracker.record_usage(**who, tokens=-1)
    assert tracker.check_budget(user=None) == HasRoom(())
    assert reconcile(desk.gov).findings == ()
    assert audit.verify(desk.gov).problems == ()


def test_a_used_up_budget_and_one_for_other_models_have_no_room_for_a_call(desk: Desk) -> None:
    tracker = TokenBudgetTracker(desk.gov)
    who: dict[str, Any] = {"org": "acme", "agent_id": "a1"}
    assert tracker.check_budget(**who) == HasRoom(("models", "org-week"))
    assert tracker.check_budget(**who, model="gpt-5") == HasRoom(("models", "org-week"))
    assert tracker.check_budget(**who, model="claude-9") == HasNoRoom(
        "budget:models", "the budget models is for gpt-*, and not for claude-9"
    )
    assert tracker.check_budget(org="acme", model="claude-9") == HasRoom(("org-week",))
    tracker.record_usage(**who, cost_micros=30_000)
    for tokens in (0, 5):
        used_up = tracker.check_budget(**who, tokens=tokens)
        assert isinstance(used_up, HasNoRoom), tokens
        assert used_up.rule == "budget:org-week"
    assert isinstance(tracker.check_budget(team="strict", tokens=100), HasRoom)


def test_usage_outside_of_actions_is_charged_to_whom_the_directory_says(desk: Desk) -> None:
    load(desk.gov, parse_directory("{version: 1, orgs: [acme, b], teams: {t: acme}, users: {ann: t}}"), by=ANN)
    tracker = TokenBudgetTracker(desk.gov)
    assert tracker.check_budget(user="ann") == HasRoom(("each-user", "org-week"))
    contradicted = tracker.check_budget(user="ann", org="b")
    assert isinstance(contradicted, HasNoRoom)
    assert contradicted.rule == "identity:contradiction"
    claims: tuple[dict[str, Any], ...] = ({}, {"org": "b"}, {"team": "t2"}, {"team": "t2", "org": "b"})
    for who in claims:
        assert tracker.record_usage(user="ann", **who, cost_micros=1000).budgets == ("each-user", "org-week")
    assert accounts(desk)["org-week:weekly:org=acme cost_micros"] == (30_000, 4000, 0)
    assert tracker.record_usage(team="t", org="b").budgets == ("org-week",)
    strict = replace(desk.gov, policy=replace(desk.gov.policy, require_identity=frozenset({Part.ORG})))
    missing = TokenBudgetTracker(strict).check_budget(user="bob")
    assert isinstance(missing, HasNoRoom)
    assert missing.rule == "identity:missing"


def test_usage_that_uses_up_a_budget_that_stops_engages_its_switch(desk: Desk, database_url: str) -> None:
    tracker = TokenBudgetTracker(desk.gov)
    run = ask(desk, team="strict", tokens=50)
    assert tracker.record_usage(team="strict", tokens=60).exhausted == ("stops",)
    assert switches.board_now(desk.gov).engaged == (), "what is only held may come back"
    desk.finish(run, usage=Usage(0, 10))
    waits = desk.submit(team="strict", tokens=0, cost_micros=0)
    # Somebody raises it and somebody else, who has not seen that yet, records what the old limit would not have had.
    until_us = clock(desk).now_us() + DAY_S * SECOND_US
    other = make_governance(database_url, policy=POLICY + BUDGETS)
    budgets.raise_budget(other, "stops", until_us=until_us, reason="go on", by=ANN, tokens=20)
    assert tracker.record_usage(team="strict", tokens=30, command_id="c1").exhausted == ()
    assert switches.board_now(desk.gov).engaged == ()
    assert tracker.record_usage(team="strict", tokens=25, command_id="c2").exhausted == ("stops",)
    (switch,) = switches.board_now(other).engaged
    assert (switch.scope, switch.scope_id) == (Scope.TEAM, "strict")
    assert switch.reason == (
        "budget:stops: budget stops (team=strict) has no tokens left (limit 120, used 125, held 0, never resets)"
    )
    assert isinstance(desk.arrive(waits), Cancelled)
    tracker.record_usage(team="strict", tokens=5)
    assert tracker.record_usage(team="strict", tokens=25, command_id="c2").repeated
    assert len(told(desk, "switch.engaged")) == 1
    assert [said["outcome"] for said in told(desk, "budget.exhausted")] == ["recorded"] * 3
    other.store.close()
    assert reconcile(desk.gov).findings == ()
    assert audit.verify(desk.gov).problems == ()


def test_usage_that_no_budget_is_about_is_recorded_too(desk: Desk) -> None:
    tracker = TokenBudgetTracker(desk.gov)
    recorded = tracker.record_usage(agent_id="nobody", cost_micros=5, tokens=5, command_id="nobody-1")
    assert (recorded.budgets, recorded.exhausted) == ((), ())
    assert tracker.record_usage(agent_id="nobody", cost_micros=5, tokens=5, command_id="nobody-1").repeated
    with pytest.raises(CommandConflict):
        tracker.record_usage(agent_id="nobody", model="gpt-5", cost_micros=5, tokens=5, command_id="nobody-1")
    tracker.record_usage(team="t", stream="night", model="gpt-5", cost_micros=777, tokens=33)
    assert told(desk, "budget.used") == [
        {"posted": {}, "cost_micros": 5, "tokens": 5, "stream": "default", "agent": "nobody"},
        {"posted": {}, "cost_micros": 777, "tokens": 33, "stream": "night", "team": "t", "model": "gpt-5"},
    ]


def test_usage_that_uses_up_a_budget_names_its_model(desk: Desk) -> None:
    TokenBudgetTracker(desk.gov).record_usage(user="ann", model="gpt-5", tokens=1000)
    (said,) = told(desk, "budget.exhausted")
    assert (said["budget"], said["user"], said["model"]) == ("each-user", "ann", "gpt-5")
