"""Alert rules by themselves: where each begins, and what keeps it silent."""

from pathlib import Path

import pytest

from governance.core.alerts import (
    SCANS,
    AlertKind,
    Burn,
    Finding,
    Refused,
    Request,
    Run,
    Share,
    approval_age,
    beat_silent,
    budget_burn,
    budget_forecast,
    budgets_exhausted,
    burn_key,
    denial_rates,
    missed_scans,
    models_denied,
    recovery_rate,
    runbook,
    watched_since_us,
)

S = 1_000_000
HOUR = 3600 * S
OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def burn(posted: int, held: int = 0, limit: int = 1000) -> Burn:
    return Burn("session:s@1:tokens", "tokens", limit, posted, held, 0, HOUR)


def percents(found: list[Finding]) -> list[object]:
    return [finding.payload["percent"] for finding in found]


@pytest.mark.parametrize("kind", AlertKind)
def test_every_kind_has_a_runbook_where_it_says(kind: AlertKind) -> None:
    page, _, anchor = runbook(kind).partition("#")
    assert page == "docs/operations.md"
    headings = [line.lstrip("# ") for line in OPERATIONS.read_text().splitlines() if line.startswith("#")]
    anchors = ["".join(c for c in h.lower().replace(" ", "-") if c.isalnum() or c in "-_") for h in headings]
    assert anchors.count(anchor) == 1


def test_a_request_is_too_old_at_its_limit() -> None:
    oldest = Request("t1", "a1", "ask", 100 * S)
    assert approval_age(oldest, 3, 999 * S, 900 * S) is None
    found = approval_age(oldest, 3, 1000 * S, 900 * S)
    assert found is not None
    assert (found.payload["age_s"], found.payload["ticket"], found.payload["pending"]) == (900, "t1", 3)
    assert approval_age(oldest, 3, 1000 * S, 0) is None
    assert approval_age(None, 0, 1000 * S, 1) is None


@pytest.mark.parametrize(
    ("posted", "held", "reached"),
    [
        (499, 0, []),
        (500, 0, [50]),
        (300, 200, [50]),
        (799, 0, [50]),
        (800, 0, [80]),
        (1000, 0, [100]),
        (1300, 0, [100]),
    ],
)
def test_a_budget_is_at_its_highest_level(posted: int, held: int, reached: list[int]) -> None:
    assert percents(budget_burn([burn(posted, held)], (50, 80, 100), frozenset())) == reached


def test_a_budget_that_falls_back_says_nothing_of_a_lower_level() -> None:
    raised = frozenset({burn_key("session:s@1:tokens", 100)})
    assert budget_burn([burn(850)], (50, 80, 100), raised) == []
    assert percents(budget_burn([burn(1000)], (50, 80, 100), raised)) == [100], "that one still stands"
    assert budget_burn([burn(1000)], (), frozenset()) == []


def test_a_forecast_needs_a_tenth_of_the_window_and_an_early_end() -> None:
    assert budget_forecast([burn(400)], 25, HOUR // 10 - 1) == []
    (found,) = budget_forecast([burn(400)], 25, HOUR // 10)
    assert found.payload["exhausted"] == "1970-01-01T00:15:00Z"
    assert budget_forecast([burn(249)], 25, HOUR // 10) == [], "too little is posted to say"
    assert budget_forecast([burn(500)], 25, HOUR // 2) == [], "it lasts to the end of the window"
    assert len(budget_forecast([burn(501)], 25, HOUR // 2)) == 1
    assert budget_forecast([burn(1000)], 25, HOUR // 2) == [], "it is used up: that is no forecast"
    assert budget_forecast([burn(0, held=900)], 25, HOUR // 2) == [], "what is held may come back"
    assert budget_forecast([burn(501)], 0, HOUR // 2) == []


@pytest.mark.parametrize(
    ("recent", "before", "jumped"),
    [
        ((1, 1), (0, 1000), False),  # one of one
        ((9, 10), (0, 1000), False),  # too few
        ((10, 10), (0, 1000), True),
        ((10, 200), (0, 1000), False),  # less than three times the least rate
        ((12, 200), (0, 1000), True),
        ((29, 100), (100, 1000), False),
        ((30, 100), (100, 1000), True),
        ((60, 100), (400, 1000), False),  # three times is impossible: half-way to all
        ((70, 100), (400, 1000), True),
        ((100, 100), (1000, 1000), True),  # it says so for as long as everything is denied
        ((50, 50), (9, 9), False),  # no baseline
    ],
)
def test_denials_jump(recent: tuple[int, int], before: tuple[int, int], jumped: bool) -> None:
    found = denial_rates({"s": Share(*recent)}, {"s": Share(*before)}, at_least=10, factor=3.0)
    assert bool(found) is jumped
    assert denial_rates({"s": Share(*recent)}, {}, at_least=10, factor=3.0) == []
    assert denial_rates({"s": Share(*recent)}, {"s": Share(*before)}, at_least=0, factor=3.0) == []


def test_refusals_name_what_and_who_was_refused_most_often() -> None:
    recent = [Refused("b", "user u1", 3), Refused("a", "user u2", 2), Refused("a", None, 2), Refused("c", "user u1", 1)]
    found = budgets_exhausted(recent, 8)
    assert found is not None
    # The most often refused caller of all is another budget's.
    assert found.payload == {"count": 8, "budget": "a", "budget_count": 4, "who": None, "who_count": 2}
    assert budgets_exhausted(recent, 9) is budgets_exhausted(recent, 0) is budgets_exhausted([], 1) is None
    of_models = models_denied([Refused("gpt-x", "agent a1", 1)], 1)
    assert of_models is not None
    assert (of_models.kind, of_models.payload["model"]) == (AlertKind.MODEL_DENIED, "gpt-x")


def test_recoveries_need_no_baseline() -> None:
    assert recovery_rate(Share(4, 4), Share(0, 0), at_least=5, factor=3.0) is None
    found = recovery_rate(Share(5, 10), Share(0, 0), at_least=5, factor=3.0)
    assert found is not None
    assert (found.payload["count"], found.payload["percent"], found.payload["baseline_percent"]) == (5, 50.0, 0.0)
    assert recovery_rate(Share(5, 1000), Share(0, 0), at_least=5, factor=3.0) is None


def test_beat_is_silent_only_for_whom_watched_as_long() -> None:
    assert beat_silent(1000 * S, 0, 1119 * S, 120 * S) is None
    assert beat_silent(1000 * S, 0, 1120 * S, 120 * S) is not None
    assert beat_silent(1000 * S, 1100 * S, 1200 * S, 120 * S) is None
    never = beat_silent(None, 1000 * S, 1120 * S, 120 * S)
    assert never is not None
    assert never.payload["last_tick"] is None
    assert beat_silent(None, 0, 1120 * S, 0) is None


def test_a_watch_begins_after_its_last_break() -> None:
    assert watched_since_us([], 100, 10) == 100
    assert watched_since_us([95, 88, 80, 50, 45], 100, 10) == 80
    assert watched_since_us([50, 45], 100, 10) == 100


def test_a_scan_is_missed_when_somebody_watched_for_that_long() -> None:
    fresh = {job: Run(990 * S, 1) for job in SCANS}

    def missed(runs: dict[str, Run], watched: int = 500, workers: int = 2, limit: int = 300) -> list[str]:
        found = missed_scans(
            runs, live_workers=workers, watched_since_us=watched * S, now_us=1000 * S, limit_us=limit * S
        )
        return [str(finding.payload["job"]) for finding in found]

    assert missed(fresh) == []
    stale = {**fresh, "acp.escalation": Run(699 * S, None)}
    assert missed(stale) == ["acp.escalation"]
    assert missed(stale, watched=800) == []
    assert missed(stale, limit=0) == []
    assert len(missed({})) == len(SCANS)
    blind = {**fresh, "acp.recovery": Run(990 * S, 0), "acp.relay": Run(990 * S, 0)}
    assert missed(blind) == ["acp.recovery"]
    assert missed(blind, workers=0) == []
