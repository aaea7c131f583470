"""The usage summary of a week that is over is told once, where people see it, and names the limits that do not fit."""

import json
from typing import Any

import pytest

from governance.core.ledger import Usage
from governance.core.windows import Period
from governance.operations import audit, budgets, summaries
from governance.operations.alerts import list_alerts
from governance.operations.notify import pending_notices
from governance.operations.summaries import summarize
from tests.support.charged import DAY_S, clock, told
from tests.support.governed import ANN, Desk

# The desk's clock begins on Friday, 2027-01-15.
MONDAYS = ("usage-summary:weekly:2027-01-11T00:00:00Z", "usage-summary:weekly:2027-01-18T00:00:00Z")


def budget(desk: Desk, budget_id: str, **content: Any) -> None:
    budgets.set_budget(desk.gov, budget_id, {"period": "daily", **content}, by=ANN, reason="x")


def work(desk: Desk, cost: int, tokens: int, **who: Any) -> None:
    desk.finish(desk.admitted(desk.submit(cost_micros=0, tokens=0, **who)), usage=Usage(cost, tokens))


def test_a_week_that_is_over_is_told_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summaries, "NAMED_MAX", 2)
    assert summarize(desk.gov, Period.WEEKLY) == (), "nothing was ever done"
    budget(desk, "tight", identity={"user": "*"}, max_cost_usd="0.001", max_tokens=1000)
    budget(desk, "loose", identity={"user": "*"}, max_tokens=3000)
    budget(desk, "month", identity={"user": "ann"}, period="monthly", max_tokens=100_000)
    work(desk, 960, 600, user="ann")
    work(desk, 980, 600, user="bob")
    assert summarize(desk.gov, Period.WEEKLY) == (), "the week is not over"
    clock(desk).pass_s(3 * DAY_S)
    assert summarize(desk.gov, Period.WEEKLY) == MONDAYS[:1]
    assert summarize(desk.gov, Period.WEEKLY) == ()
    (said,) = told(desk, "usage.summary")
    assert (said["since"], said["until"]) == ("2027-01-11T00:00:00Z", "2027-01-18T00:00:00Z")
    assert (said["actions"], said["tokens"], said["cost_usd"], said["period"]) == (2, 1200, "0.00194", "weekly")
    assert said["too_tight"] == 2
    assert said["too_tight_limits"][0].startswith(
        "budget:tight:daily:user=bob cost_micros: at most $0.00098 of $0.001; 1 of 1 windows were"
    )
    assert said["too_loose"] > len(said["too_loose_limits"]) == 2
    loose = "budget:loose:daily:user=ann tokens: at most 600 of 3000; 750 would have been enough"
    assert said["too_loose_limits"][0].startswith(loose)
    assert "month" not in json.dumps(said), "its window is not over: nobody knows"
    (line,) = list_alerts(desk.gov, standing_only=False, limit=9)
    assert (line.kind, line.id, line.standing) == ("usage.summary", MONDAYS[0], False)
    assert line.details["runbook"] == "docs/operations.md#alert-usage-summary"
    (notice,) = pending_notices(desk.gov, 9)
    assert notice.payload["details"] == line.details
    assert audit.verify(desk.gov).problems == ()


def test_whoever_was_away_tells_what_was_missed(desk: Desk) -> None:
    work(desk, 100, 10)
    clock(desk).pass_s(24 * DAY_S)
    assert summarize(desk.gov, Period.WEEKLY) == ("usage-summary:weekly:2027-02-01T00:00:00Z",), "the first is the last"
    clock(desk).pass_s(14 * DAY_S)
    work(desk, 100, 10)
    assert summarize(desk.gov, Period.WEEKLY) == (
        "usage-summary:weekly:2027-02-08T00:00:00Z",
        "usage-summary:weekly:2027-02-15T00:00:00Z",
    )
    assert summarize(desk.gov, Period.WEEKLY) == ()
    assert [said["actions"] for said in told(desk, "usage.summary")] == [0, 0, 0]
    assert len(summarize(desk.gov, Period.MONTHLY)) == 1
    assert told(desk, "usage.summary")[-1]["tokens"] == 10
