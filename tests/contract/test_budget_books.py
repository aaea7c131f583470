"""The books of budgets: what vanishes is charged, thresholds are told, what does not agree is found, the old goes."""

import sqlite3
from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from governance.core.alerts import Thresholds
from governance.core.instants import SECOND_US
from governance.core.ledger import Usage
from governance.operations import audit, budgets, heartbeat, recover, retention
from governance.operations.alerts import list_alerts, watch
from governance.operations.answers import Admitted
from governance.operations.reconcile import reconcile
from governance.operations.ticks import claim, finish
from governance.operations.top_up import NoRoom, ToppedUp, top_up
from governance.operations.tracker import TokenBudgetTracker
from governance.store import ledger
from tests.support.charged import BUDGETS, DAY_S, accounts, ask, clock, told
from tests.support.governed import ANN, LEASE, POLICY, Desk, make_governance


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    gov = make_governance(database_url, policy=POLICY + BUDGETS)
    yield Desk(gov)
    gov.store.close()


def test_an_attempt_that_vanishes_charges_its_whole_hold_to_every_budget(desk: Desk) -> None:
    heartbeat.register(desk.gov, LEASE.worker_id, 1)
    run = ask(desk, user="ann", org="acme", cost_micros=4000, tokens=10)
    assert isinstance(top_up(desk.gov, run, run.holds, 1000, 20), ToppedUp)
    short = top_up(desk.gov, run, run.holds, 9000, 0)
    assert isinstance(short, NoRoom)
    assert short.account.id.startswith("budget:each-user:daily:user=ann:")
    recover.child_gone(desk.gov, LEASE.worker_id, LEASE.child, "killed")
    assert {name: (posted, held) for name, (_, posted, held) in accounts(desk).items()} == {
        "each-user:daily:user=ann cost_micros": (5000, 0),
        "each-user:daily:user=ann tokens": (30, 0),
        "org-week:weekly:org=acme cost_micros": (5000, 0),
    }
    flags = desk.gov.store.read("SELECT flag FROM entries WHERE kind = 'expire' AND account_id LIKE 'budget:%'", {})
    assert [row[0] for row in flags] == ["unreported"] * 3
    assert reconcile(desk.gov).findings == ()


def test_a_limit_lowered_in_the_policy_reaches_new_windows_only(desk: Desk, database_url: str) -> None:
    assert isinstance(ask(desk, user="ann", team="strict", tokens=1), Admitted)
    lower = BUDGETS.replace("max_tokens: 1000", "max_tokens: 500").replace("max_tokens: 100,", "max_tokens: 50,")
    later = Desk(make_governance(database_url, policy=POLICY + lower))
    clock(later).at_us = clock(desk).now_us() + DAY_S * SECOND_US
    assert isinstance(ask(later, user="ann", team="strict", tokens=1), Admitted)
    limits = {name: limit for name, (limit, _, _) in accounts(later).items()}
    assert limits["each-user:daily:user=ann tokens"] == 500
    assert limits["stops:unlimited:team=strict tokens"] == 100
    wanted = {"identity": {"team": "strict"}, "period": "unlimited", "max_tokens": 50, "on_exhausted": "stop"}
    budgets.set_budget(later.gov, "stops", wanted, by=ANN, reason="x")
    assert accounts(later)["stops:unlimited:team=strict tokens"] == (50, 0, 2)
    later.gov.store.close()


def test_thresholds_are_told_once_for_each_account_and_percent(desk: Desk) -> None:
    thresholds = Thresholds(0, (), 0, denials_min=0, recoveries_min=0, beat_s=0, scan_s=0)
    for cost in (3000, 3000):
        assert isinstance(ask(desk, user="ann", cost_micros=cost), Admitted)
    (first,) = watch(desk.gov, thresholds).raised
    assert first.endswith(":cost_micros:50")
    assert watch(desk.gov, thresholds).raised == ()
    assert isinstance(ask(desk, user="ann", cost_micros=2000), Admitted)
    assert len(watch(desk.gov, thresholds).raised) == 1
    assert [(said["percent"], said["budget"], said["who"]) for said in told(desk, "budget.threshold")] == [
        (50, "each-user", "user=ann"),
        (80, "each-user", "user=ann"),
    ]
    assert [line.kind for line in list_alerts(desk.gov, standing_only=False, limit=9)] == ["budget.burn"] * 2


def test_a_threshold_of_a_window_that_closed_between_two_looks_is_told_once(desk: Desk) -> None:
    thresholds = Thresholds(0, (), 0, denials_min=0, recoveries_min=0, beat_s=0, scan_s=0)

    def look() -> tuple[str, ...]:
        tick = claim(desk.gov, "acp.alerts", 60)
        found = watch(desk.gov, thresholds).raised
        if tick is not None:
            finish(desk.gov, "acp.alerts", tick)
        return found

    assert look() == ()
    midnight_us = -(-clock(desk).now_us() // (DAY_S * SECOND_US)) * DAY_S * SECOND_US
    clock(desk).at_us = midnight_us - 20 * SECOND_US
    assert isinstance(ask(desk, user="ann", cost_micros=6000), Admitted)
    late = ask(desk, user="bob", cost_micros=1000)
    assert isinstance(ask(desk, user="cat", cost_micros=4900), Admitted)
    clock(desk).at_us = midnight_us + 10 * SECOND_US
    (first,) = look()
    assert first.endswith(":cost_micros:50")
    assert "user=ann:2027-01-15T00" in first
    assert look() == ()
    assert list_alerts(desk.gov, standing_only=True, limit=9) == []
    # What was held before midnight is posted after it, and it was more: while an attempt may run it is looked at.
    clock(desk).pass_s(600)
    assert look() == ()
    desk.finish(late, usage=Usage(8000, 0))
    clock(desk).pass_s(600)
    assert len(look()) == 1
    # Whoever was away tells what happened meanwhile, and only that.
    assert isinstance(ask(desk, user="ann", cost_micros=9000), Admitted)
    clock(desk).pass_s(5 * DAY_S)
    (last,) = look()
    assert "user=ann:2027-01-16T00" in last
    assert last.endswith(":80")
    assert look() == ()
    assert [said["percent"] for said in told(desk, "budget.threshold")] == [50, 80, 80]


def test_reconcile_finds_what_does_not_agree(desk: Desk) -> None:
    run = ask(desk, user="ann", org="acme", cost_micros=4000, tokens=10)
    until_us = clock(desk).now_us() + SECOND_US
    budgets.raise_budget(desk.gov, "org-week", until_us=until_us, reason="x", by=ANN, cost_micros=5)
    budgets.set_budget(
        desk.gov, "set", {"identity": {"user": "ann"}, "period": "daily", "max_tokens": 5}, by=ANN, reason="x"
    )
    assert isinstance(ask(desk, user="ann"), Admitted)
    assert reconcile(desk.gov).findings == ()
    for statement, about in (
        (
            "UPDATE accounts SET posted = posted + 1 WHERE scope_id = :id AND unit = 'tokens'",
            "each-user:daily:user=ann",
        ),
        ("UPDATE accounts SET raised = 0 WHERE scope_id = :id", "org-week:weekly:org=acme"),
        ("UPDATE accounts SET limit_amount = 9 WHERE scope_id = :id", "set:daily:user=ann"),
        ("UPDATE actions SET state = 'failed', lease_worker = NULL WHERE id = :id", run.ref.id),
    ):
        desk.gov.store.run(statement, {"id": about})
    found = "\n".join(reconcile(desk.gov).findings)
    for words in (
        "its entries sum to 10 and 0",
        "raises that last add up to 5",
        "limit 9, it was set to 5",
        "does not run",
    ):
        assert words in found
    assert not reconcile(desk.gov).ok


def test_old_entries_of_a_budget_go_and_their_sums_stay(desk: Desk) -> None:
    for _ in range(3):
        desk.finish(ask(desk, user="ann", tokens=5), usage=Usage(0, 5))
    running = ask(desk, user="bob", tokens=5)
    clock(desk).pass_s(40 * DAY_S)
    desk.finish(ask(desk, user="ann", tokens=5), usage=Usage(0, 5))
    with pytest.raises((psycopg.Error, sqlite3.Error), match="append-only"):
        desk.gov.store.run("DELETE FROM entries WHERE account_id LIKE 'budget:%'", {})
    pruned = retention.prune(desk.gov, older_than_s=30 * DAY_S, by=ANN, reason="a month is enough")
    assert pruned.accounts == 2, "bob's still holds"
    left = desk.gov.store.read(
        "SELECT count(*) FROM entries WHERE account_id LIKE :one",
        {"one": "budget:each-user:daily:user=ann:2027-01-15%"},
    )
    assert left[0][0] == 0
    posted = desk.gov.store.read("SELECT posted FROM accounts WHERE unit = 'tokens' AND pruned_us IS NOT NULL", {})
    assert [row[0] for row in posted] == [15]
    assert len(told(desk, "budget.summed_up")) == 2
    desk.finish(running)
    assert audit.verify(desk.gov).problems == ()
    assert reconcile(desk.gov).findings == ()


def test_accounts_that_are_kept_as_evidence_keep_no_others(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_BATCH", 2)
    for user in ("ann", "bob", "cat", "dan"):
        desk.finish(ask(desk, user=user, cost_micros=3, tokens=5), usage=Usage(3, 5))
    desk.gov.store.run(
        "UPDATE accounts SET posted = posted + 1 WHERE scope_id IN (:one, :two)",
        {"one": "each-user:daily:user=ann", "two": "each-user:daily:user=bob"},
    )
    clock(desk).pass_s(40 * DAY_S)
    pruned = retention.prune(desk.gov, older_than_s=30 * DAY_S, by=ANN, reason="a month is enough")
    assert pruned.accounts == 4
    assert {str(said["account"]).split(":")[3] for said in told(desk, "budget.summed_up")} == {"user=cat", "user=dan"}


def test_old_entries_of_a_budget_that_never_ends_go_and_it_goes_on(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_BATCH", 2)
    wanted = {"identity": {"org": "*"}, "period": "unlimited", "max_tokens": 1000, "stripes": 2}
    budgets.set_budget(desk.gov, "ever", wanted, by=ANN, reason="x")
    tracker = TokenBudgetTracker(desk.gov)

    def prune() -> int:
        pruned = retention.prune(desk.gov, older_than_s=30 * DAY_S, by=ANN, reason="a month is enough")
        assert reconcile(desk.gov).findings == ()
        assert audit.verify(desk.gov).problems == ()
        return pruned.accounts

    def left() -> int:
        found = desk.gov.store.read("SELECT count(*) FROM entries WHERE account_id LIKE :one", {"one": "budget:ever:%"})
        return int(found[0][0])

    for _ in range(3):
        desk.finish(ask(desk, org="acme", tokens=5), usage=Usage(0, 7))
    tracker.record_usage(org="acme", tokens=20)
    running, nothing = ask(desk, org="acme", tokens=5), ask(desk, org="acme")
    clock(desk).pass_s(20 * DAY_S)
    desk.finish(ask(desk, org="acme", tokens=1), usage=Usage(0, 1))
    clock(desk).pass_s(20 * DAY_S)
    assert left() == 11
    # On PostgreSQL, each of the stripes that were taken.
    assert prune() in ((1, 2) if desk.gov.store.is_postgresql else (1,))
    assert left() == 4, "two that run, one that is young"
    assert prune() == 0
    with pytest.raises((psycopg.Error, sqlite3.Error), match="append-only"):
        desk.gov.store.run("DELETE FROM entries WHERE account_id LIKE :one", {"one": "budget:ever:%"})
    desk.finish(running, usage=Usage(0, 9))
    desk.finish(nothing, usage=Usage(0, 3))
    (account,) = (
        one
        for one in ledger.listing(desk.gov.store, session_id=None, now_us=clock(desk).now_us())
        if one["id"].startswith("budget:ever:")
    )
    assert (account["posted"], account["held"]) == (54, 0)
    clock(desk).pass_s(31 * DAY_S)
    prune()
    assert left() == 0
    desk.gov.store.run("UPDATE accounts SET summed = summed + 1 WHERE id = :id", {"id": account["id"]})
    assert "posted" in "".join(reconcile(desk.gov).findings)
    tracker.record_usage(org="acme", tokens=1)
    clock(desk).pass_s(40 * DAY_S)
    retention.prune(desk.gov, older_than_s=30 * DAY_S, by=ANN, reason="a month is enough")
    assert left() == 1, "what does not agree is evidence"


def test_a_striped_budget_is_topped_up_raised_and_charged_as_one(desk: Desk) -> None:
    config = {"identity": {"org": "acme"}, "period": "monthly", "max_tokens": 90, "stripes": 3}
    budgets.set_budget(desk.gov, "striped", config, by=ANN, reason="hot")
    run = ask(desk, org="acme", tokens=20)
    # More than the stripe's own share, and no more than the budget has.
    more = top_up(desk.gov, run, run.holds, 0, 60)
    assert isinstance(more, ToppedUp)
    assert isinstance(top_up(desk.gov, run, more.holds, 0, 11), NoRoom)
    assert reconcile(desk.gov).findings == ()
    until_us = clock(desk).now_us() + SECOND_US
    budgets.raise_budget(desk.gov, "striped", until_us=until_us, reason="x", by=ANN, tokens=30)
    more = top_up(desk.gov, run, more.holds, 0, 40)
    assert isinstance(more, ToppedUp)
    (striped,) = (
        one for one in ledger.accounts(desk.gov.store, [hold.account_id for hold in more.holds]) if one.limit == 120
    )
    assert (striped.held, striped.left) == (120, 0)
    desk.finish(replace(run, holds=more.holds), usage=Usage(0, 100))
    assert TokenBudgetTracker(desk.gov).record_usage(org="acme", tokens=25).exhausted == ("striped",)
    clock(desk).at_us = until_us
    assert ask(desk, org="acme", tokens=1).rule == "budget:striped"
    (striped,) = ledger.accounts(desk.gov.store, [striped.id])
    assert (striped.limit, striped.posted, striped.held) == (90, 125, 0)
    assert reconcile(desk.gov).findings == ()
    assert audit.verify(desk.gov).problems == ()
