"""Usage is what the ledger posted, by whom; limits are compared with what their windows used."""

from dataclasses import replace
from typing import Any

from governance.core.alerts import Thresholds
from governance.core.ledger import Unit, Usage
from governance.core.model_calls import ModelCall
from governance.core.models import ModelAllowed, Tier
from governance.core.prices import TokensUsed
from governance.core.rollups import HOUR_US
from governance.core.trends import Span
from governance.core.usage import By, Fit, Used, Window, judge
from governance.operations import audit, budgets
from governance.operations.alerts import watch
from governance.operations.answers import Admitted, Denied
from governance.operations.directory import load
from governance.operations.model_calls import MayNotCall, record
from governance.operations.rollups import roll_up, trend
from governance.operations.tracker import TokenBudgetTracker
from governance.operations.usage import fits, used
from tests.contract.test_identity import FIRST
from tests.contract.test_model_calls import asked
from tests.support.charged import told
from tests.support.governed import ANN, Desk, ManualClock


def clock(desk: Desk) -> ManualClock:
    assert isinstance(desk.gov.clock, ManualClock)
    return desk.gov.clock


def work(desk: Desk, cost: int, tokens: int, **who: Any) -> None:
    desk.finish(desk.admitted(desk.submit(**who)), usage=Usage(cost, tokens))


def test_usage_is_added_up_by_whom_it_was_charged_to(desk: Desk) -> None:
    load(desk.gov, FIRST, by=ANN)
    work(desk, 999, 9, user="u1", agent_id="a1", model="small-9")
    clock(desk).pass_s(3 * 3600)
    work(desk, 400, 4, user="u1", agent_id="a1", model="small-9")
    work(desk, 100, 1, user="u2", stream="small")
    work(desk, 50, 0)
    # Held and never run: nothing was used.
    desk.admitted(desk.submit(user="u1"))
    hour = used(desk.gov, By.ORG, Span.HOUR)
    assert hour.lines == (Used("o1", 1, 4, 400), Used("o2", 1, 1, 100), Used(None, 1, 0, 50))
    assert used(desk.gov, By.USER, Span.DAY).lines[0] == Used("u1", 2, 13, 1399)
    for by, name in ((By.TEAM, "t1"), (By.AGENT, "a1"), (By.MODEL, "small-9")):
        assert used(desk.gov, by, Span.WEEK).lines[0] == Used(name, 2, 13, 1399)
    assert {line.name for line in used(desk.gov, By.STREAM, Span.MONTH).lines} == {"default", "small"}


def call(desk: Desk, run: Admitted, model: str, cost: int, tokens: tuple[int, int]) -> None:
    """A call of a model that is over."""
    used = TokensUsed(*tokens)
    at_us = desk.gov.clock.now_us()
    access = ModelAllowed(model, Tier.STANDARD)
    assert record(desk.gov, run, ModelCall(desk.gov.new_id(), access, used, cost, None, None, at_us))


def test_usage_by_model_is_of_the_models_that_were_called(desk: Desk) -> None:
    """What the calls do not account for is of the model that the action declares; nothing counts twice."""
    both = desk.admitted(desk.submit(model="small-9"))
    call(desk, both, "small-1", 100, (5, 2))
    call(desk, both, "small-1", 50, (1, 0))
    call(desk, both, "large-1", 300, (7, 3))
    desk.finish(both, usage=Usage(650, 20))
    # All of it is calls; the rest of it is the declared model's own; no call at all; no model at all.
    for model, cost in ((None, 40), ("small-1", 60)):
        run = desk.admitted(desk.submit(model=model))
        call(desk, run, "small-1", 40, (3, 1))
        desk.finish(run, usage=Usage(cost, 4))
    work(desk, 7, 1, model="small-9")
    work(desk, 5, 1)
    going_on = desk.admitted(desk.submit(model="small-9"))
    call(desk, going_on, "large-1", 1000, (9, 9))

    lines = used(desk.gov, By.MODEL, Span.HOUR).lines
    assert lines == (
        Used("large-1", 1, 10, 300),
        Used("small-1", 3, 16, 250),
        Used("small-9", 2, 3, 207),
        Used(None, 1, 1, 5),
    )
    assert sum(line.cost_micros for line in lines) == used(desk.gov, By.STREAM, Span.HOUR).lines[0].cost_micros
    clock(desk).at_us += HOUR_US - clock(desk).at_us % HOUR_US + 60_000_000
    audit.seal(desk.gov)
    roll_up(desk.gov)
    found = desk.gov.store.read(
        "SELECT figure, label, value FROM rollups WHERE figure IN ('cost', 'model_cost') ORDER BY 1, 2", {}
    )
    assert [tuple(row) for row in found] == [
        ("cost", "micros", 762),
        ("model_cost", "large-1", 300),
        ("model_cost", "small-1", 250),
        ("model_cost", "small-9", 207),
    ]
    shown = trend(desk.gov, Span.HOUR, None)
    assert shown is not None
    (line,) = [line for line in shown.lines if line.name == "cost of small-1"]
    assert (line.unit, line.value) == ("micros", 250)


def test_usage_outside_of_actions_counts_once_whether_a_budget_has_a_limit_of_it_or_not(desk: Desk) -> None:
    load(desk.gov, FIRST, by=ANN)
    config = {"identity": {"user": "*"}, "period": "daily", "max_tokens": 1000}
    budgets.set_budget(desk.gov, "each", config, by=ANN, reason="x")
    org = {"identity": {"org": "o1"}, "period": "daily", "max_tokens": 1000, "max_cost_usd": "1.00"}
    budgets.set_budget(desk.gov, "org", org, by=ANN, reason="x")
    tracker = TokenBudgetTracker(desk.gov)
    tracker.record_usage(user="u1", cost_micros=5000, tokens=50)
    clock(desk).pass_s(3 * 3600)
    work(desk, 400, 4, user="u1", agent_id="a1", model="small-9")
    for _ in range(2):
        tracker.record_usage(user="u1", model="small-9", cost_micros=700, tokens=30, command_id="c1")
    tracker.record_usage(agent_id="a1", stream="small", cost_micros=77, tokens=3)
    tracker.record_usage(team="nothing")
    assert used(desk.gov, By.USER, Span.HOUR).lines == (Used("u1", 1, 34, 1100), Used(None, 0, 3, 77))
    for by, name in ((By.TEAM, "t1"), (By.ORG, "o1"), (By.MODEL, "small-9")):
        assert used(desk.gov, by, Span.HOUR).lines == (Used(name, 1, 34, 1100), Used(None, 0, 3, 77))
    assert used(desk.gov, By.AGENT, Span.HOUR).lines == (Used(None, 0, 30, 700), Used("a1", 1, 7, 477))
    assert used(desk.gov, By.STREAM, Span.HOUR).lines == (Used("default", 1, 34, 1100), Used("small", 0, 3, 77))
    assert used(desk.gov, By.MODEL, Span.DAY).lines[0] == Used(None, 0, 53, 5077)


def test_the_stripes_of_an_account_are_one_limit(desk: Desk) -> None:
    for _ in range(3):
        work(desk, 33_000, 300, stream="striped")
    report = fits(desk.gov, Span.WEEK)
    assert [(one.budget, one.unit, one.windows, one.limit, one.peak) for one in report.limits] == [
        ("session:striped", Unit.COST, 1, 100_000, 99_000),
        ("session:striped", Unit.ACTIONS, 1, 100_000, 3),
    ]


def test_limits_are_compared_with_what_their_windows_used(desk: Desk) -> None:
    for _ in range(3):
        work(desk, 33_000, 400, stream="small")
        work(desk, 33_000, 400, stream="small")
        work(desk, 33_000, 100, stream="small")
        clock(desk).pass_s(3600)
    report = fits(desk.gov, Span.WEEK)
    assert [(one.budget, one.unit, one.fit, one.windows, one.peak, one.full) for one in report.limits] == [
        ("session:small", Unit.COST, Fit.TIGHT, 3, 99_000, 3),
        ("session:small", Unit.TOKENS, Fit.FITS, 3, 900, 0),
        ("session:small", Unit.ACTIONS, Fit.FITS, 3, 3, 0),
    ]
    assert report.limits[0].advice.startswith("3 of 3 windows were used up")


def test_a_limit_is_judged_by_its_windows_whatever_its_scope() -> None:
    start_us = 1_800_000_000_000_000
    budget = "budget:acme-day:o1:2027-01-15T08:00:00Z:tokens"

    def window(posted: int, limit: int = 100) -> Window:
        return Window(budget, "budget", Unit.TOKENS, start_us, limit, posted, 0)

    (judged,) = judge([window(3), window(8)])
    assert (judged.budget, judged.fit, judged.mean, judged.peak_percent) == ("budget:acme-day:o1", Fit.LOOSE, 5, 8)
    assert judged.advice == "10 would have been enough: it stops a runaway late"
    assert judge([window(0)])[0].fit is Fit.UNUSED
    assert judge([replace(window(0), over=False)])[0].fit is Fit.FITS, "nobody knows yet"
    assert judge([replace(window(95), over=False)])[0].fit is Fit.TIGHT
    assert judge([window(0, limit=0)])[0].fit is Fit.TIGHT


def test_what_budgets_and_models_refuse_and_thresholds_are_counted_by_whom_they_are_about(desk: Desk) -> None:
    config = {"identity": {"user": "*", "org": "acme"}, "period": "daily", "max_tokens": 100, "soft": [50]}
    budgets.set_budget(desk.gov, "b1", config, by=ANN, reason="x")
    who: dict[str, Any] = {"user": "u1", "org": "acme"}
    run = desk.admitted(desk.submit(**who, model="small-1", tokens=60))
    thresholds = Thresholds(0, (), 0, denials_min=0, recoveries_min=0, beat_s=0, scan_s=0)
    watch(desk.gov, thresholds)
    assert isinstance(desk.arrive(desk.submit(**who, model="small-1", tokens=50)), Denied)
    TokenBudgetTracker(desk.gov).record_usage(**who, model="large-1", tokens=40)
    watch(desk.gov, thresholds)
    assert isinstance(desk.arrive(desk.submit(user="u2", team="t2", model="large-1")), Denied)
    assert isinstance(asked(desk, run, "secret-1"), MayNotCall)
    assert [(said["percent"], said["user"], said["org"]) for said in told(desk, "budget.threshold")] == [
        (50, "u1", "acme"),
        (100, "u1", "acme"),
    ]

    clock(desk).at_us += HOUR_US - clock(desk).at_us % HOUR_US + 60_000_000
    audit.seal(desk.gov)
    roll_up(desk.gov)
    shown = trend(desk.gov, Span.HOUR, None)
    assert shown is not None
    counted = ("budget exhausted ", "model denied ", "budget threshold ")
    assert [(line.name, line.value) for line in shown.lines if line.name.startswith(counted)] == [
        ("budget exhausted all", 2),
        ("budget exhausted budget b1", 2),
        ("budget exhausted org acme", 2),
        ("budget exhausted user u1", 2),
        ("budget exhausted model large-1", 1),
        ("budget exhausted model small-1", 1),
        ("model denied all", 2),
        ("model denied model large-1", 1),
        ("model denied model secret-1", 1),
        ("model denied org acme", 1),
        ("model denied team t2", 1),
        ("model denied user u1", 1),
        ("model denied user u2", 1),
        ("budget threshold all", 2),
        ("budget threshold budget b1", 2),
        ("budget threshold org acme", 2),
        ("budget threshold user u1", 2),
    ]
