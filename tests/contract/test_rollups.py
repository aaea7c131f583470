"""Roll-ups: an hour's figures, the same whenever and however often they are made, and for longer than its events."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from governance.core.drills import Findings, Kind, Step
from governance.core.ledger import Usage
from governance.core.policy import Risk
from governance.core.rollups import FLEET, HOUR_US
from governance.core.trends import Line, Span
from governance.operations import audit, decide, recover
from governance.operations.answers import Admitted
from governance.operations.drills import finish as finish_drill
from governance.operations.drills import start as start_drill
from governance.operations.escalate import escalate_overdue
from governance.operations.finish import AskedToRetry, Finish, Raised, Succeeded, finish
from governance.operations.rollups import LATE_HOURS, roll_up, trend
from tests.support.governed import ANN, LEASE, POLICY, Desk, ManualClock, make_governance

STOPPING = POLICY.replace("streams:\n", "streams:\n  strict: {window: 1h, limits: {actions: 1}, on_exhausted: stop}\n")


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    gov = make_governance(database_url, policy=STOPPING)
    yield Desk(gov)
    gov.store.close()


def clock(desk: Desk) -> ManualClock:
    assert isinstance(desk.gov.clock, ManualClock)
    return desk.gov.clock


def next_hour(desk: Desk) -> None:
    """A minute past the next full hour, with everything sealed."""
    clock(desk).at_us += HOUR_US - clock(desk).at_us % HOUR_US + 60_000_000
    audit.seal(desk.gov)


def kept(desk: Desk) -> list[tuple[Any, ...]]:
    found = desk.gov.store.read(
        "SELECT hour_us, stream, figure, label, value FROM rollups ORDER BY hour_us, stream, figure, label", {}
    )
    return [tuple(row) for row in found]


def figures(desk: Desk) -> Mapping[tuple[str, str, str], int]:
    """(stream, figure, label) to its sum over all hours."""
    sums: dict[tuple[str, str, str], int] = {}
    for _, stream, figure, label, value in kept(desk):
        sums[stream, figure, label] = sums.get((stream, figure, label), 0) + value
    return sums


def hours(desk: Desk) -> list[int]:
    return [row[0] for row in desk.gov.store.read("SELECT hour_us FROM rollup_hours ORDER BY 1", {})]


def work(desk: Desk, *, cost_micros: int | None = 700, ends: Any = None, **changes: Any) -> None:
    """One action, from its submission to its end."""
    desk.finish(desk.admitted(desk.submit(**changes)), ends, Usage(cost_micros, 3))


def an_hour_of_everything(desk: Desk) -> None:
    work(desk)
    work(desk, cost_micros=301)
    work(desk, cost_micros=1000, ends=Raised("E", "no"))
    work(desk, cost_micros=5, ends=AskedToRetry("again", 0, None, None))
    desk.submit(risk=Risk.CRITICAL)
    desk.arrive(desk.submit(resource="file:secret/1"))
    # Two answers, after 30 s and after 90 s, and one request that nobody answers.
    quick, slow, no = (desk.submit(risk=Risk.HIGH) for _ in range(3))
    desk.submit(risk=Risk.HIGH, stream="small")
    clock(desk).pass_s(30)
    decide.approve(desk.gov, quick.action_id, by=ANN, reason="fine")
    desk.finish(desk.admitted(quick), None, Usage(40, 1))
    clock(desk).pass_s(60)
    decide.approve(desk.gov, slow.action_id, by=ANN, reason="fine")
    decide.deny(desk.gov, no.action_id, by=ANN, reason="no")
    clock(desk).pass_s(900)
    escalate_overdue(desk.gov, "escalation")
    # Budgets: one that waits, one that denies, one that stops.
    for stream in ("patient", "strict"):
        work(desk, stream=stream)
        desk.arrive(desk.submit(stream=stream))
    desk.arrive(desk.submit(stream="small", cost_micros=200_000))
    # Workers die: one attempt runs again, one is in doubt.
    for idempotent in (True, False):
        desk.admitted(desk.submit(idempotent=idempotent, cost_micros=9))
    recover.child_gone(desk.gov, LEASE.worker_id, LEASE.child, "killed")
    drill = start_drill(desk.gov, Kind.KILL, started_by="test")
    desk.submit(stream=drill.session.stream, name="case.reply")
    finish_drill(desk.gov, drill, Findings((Step("all", True, "fine"),)), [])


EXPECTED = {
    ("default", "ended", "succeeded"): 3,
    ("default", "ended", "failed"): 1,
    ("default", "ended", "denied"): 3,
    ("default", "denied", "never"): 1,
    ("default", "denied", "no-secrets"): 1,
    ("default", "denied", "ask"): 1,
    ("default", "approvals", "requested"): 3,
    ("default", "approvals", "approved"): 2,
    ("default", "approvals", "denied"): 1,
    ("default", "latency", "30208"): 1,
    ("default", "latency", "90112"): 2,
    ("default", "reclaimed", "queued"): 1,
    ("default", "reclaimed", "in_doubt"): 1,
    ("default", "cost", "micros"): 700 + 301 + 1000 + 5 + 40 + 9 + 9,
    ("small", "approvals", "requested"): 1,
    ("small", "approvals", "expired"): 1,
    ("small", "ended", "denied"): 2,
    ("small", "denied", "ask"): 1,
    ("small", "denied", "budget:cost_micros"): 1,
    ("small", "exhausted", "cost_micros"): 1,
    ("small", "overdrawn", "all"): 1,
    ("patient", "ended", "succeeded"): 1,
    ("patient", "cost", "micros"): 700,
    ("patient", "exhausted", "actions"): 1,
    ("patient", "overdrawn", "all"): 1,
    ("strict", "ended", "succeeded"): 1,
    ("strict", "cost", "micros"): 700,
    ("strict", "exhausted", "actions"): 1,
    ("strict", "overdrawn", "all"): 1,
    ("strict", "ended", "cancelled"): 1,
    (FLEET, "drills", "kill passed"): 1,
}


def test_an_hour_has_every_figure(desk: Desk) -> None:
    an_hour_of_everything(desk)
    assert roll_up(desk.gov).hours == ()
    next_hour(desk)
    assert len(roll_up(desk.gov).hours) == 1
    assert figures(desk) == EXPECTED


def test_the_cost_is_the_ledgers_to_the_micro(desk: Desk) -> None:
    for micros in (1, 333, 1_000_000 // 3):
        work(desk, cost_micros=micros)
    next_hour(desk)
    roll_up(desk.gov)
    assert (
        figures(desk)["default", "cost", "micros"]
        == 334 + 333_333
        == desk.gov.store.read("SELECT sum(posted) FROM accounts WHERE unit = 'cost_micros'", {})[0][0]
    )
    (line,) = (line for line in shown(desk, Span.HOUR) if line.name == "cost per success")
    assert line.value == round((334 + 333_333) / 3)


def test_late_doubled_and_missing_ticks_give_the_same_rows(desk: Desk, database_url: str) -> None:
    an_hour_of_everything(desk)
    next_hour(desk)
    assert roll_up(desk.gov).hours
    assert roll_up(desk.gov).hours == roll_up(desk.gov).again == ()
    for _ in range(3):
        work(desk)
        next_hour(desk)
        roll_up(desk.gov)
    in_time, when = kept(desk), hours(desk)
    desk.gov.store.run("DELETE FROM rollups", {})
    desk.gov.store.run("DELETE FROM rollup_hours", {})
    # Two fleets' worth of beats come back after a pause, at once.
    others = [make_governance(database_url, policy=STOPPING, clock=clock(desk)) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        assert all(rolled.hours for rolled in pool.map(roll_up, others))
    for other in others:
        other.store.close()
    assert (kept(desk), hours(desk)) == (in_time, when)


def test_an_hour_waits_for_its_end_its_margin_and_its_seals(desk: Desk) -> None:
    work(desk)
    clock(desk).at_us += HOUR_US - clock(desk).at_us % HOUR_US
    audit.seal(desk.gov)
    clock(desk).pass_s(4)
    assert roll_up(desk.gov).hours == ()
    clock(desk).pass_s(2)
    assert len(roll_up(desk.gov).hours) == 1
    work(desk)
    next_hour(desk)
    work(desk)
    assert len(roll_up(desk.gov).hours) == 1, "what is not sealed is of the hour that lasts"
    clock(desk).pass_s(HOUR_US / 1_000_000)
    assert roll_up(desk.gov).hours == ()
    audit.seal(desk.gov)
    assert len(roll_up(desk.gov).hours) == 1


def test_a_pause_leaves_no_gap_and_idle_hours_cost_one_row(desk: Desk) -> None:
    work(desk)
    clock(desk).pass_s(50 * 3600)
    work(desk)
    next_hour(desk)
    clock(desk).pass_s(30 * 3600)
    assert len(roll_up(desk.gov).hours) == 3
    assert hours(desk)[-1] == clock(desk).at_us // HOUR_US * HOUR_US - HOUR_US
    assert figures(desk)["default", "ended", "succeeded"] == 2


def test_what_is_committed_late_is_counted_in_its_hour(desk: Desk) -> None:
    """A machine kept the end of an action on its disk while the database was away."""
    run = desk.admitted(desk.submit())
    assert isinstance(run, Admitted)
    ended_us = clock(desk).now_us()
    next_hour(desk)
    roll_up(desk.gov)
    first = kept(desk)
    assert ("default", "ended", "succeeded") not in figures(desk)
    finish(desk.gov, Finish(run.ref, run.holds, Succeeded("1"), Usage(77, 1), "spool", ended_us))
    next_hour(desk)
    rolled = roll_up(desk.gov)
    assert rolled.again == (ended_us // HOUR_US * HOUR_US,)
    assert kept(desk) != first
    assert [row[0] for row in kept(desk) if row[2] == "ended"] == [ended_us // HOUR_US * HOUR_US]
    assert figures(desk)["default", "cost", "micros"] == 77


def test_figures_outlive_their_events(desk: Desk) -> None:
    an_hour_of_everything(desk)
    next_hour(desk)
    roll_up(desk.gov)
    before = kept(desk)
    drop = "ALTER TABLE events DISABLE TRIGGER ALL" if desk.gov.store.is_postgresql else "DROP TRIGGER events_kept"
    desk.gov.store.run(drop, {})
    # Of some sessions, so that the hour has events, but fewer of them.
    gone = "DELETE FROM events WHERE at_us < :now AND kind LIKE 'action.%'"
    desk.gov.store.run(gone, {"now": clock(desk).at_us - HOUR_US // 2})
    for _ in range(LATE_HOURS + 2):
        next_hour(desk)
        roll_up(desk.gov)
    assert kept(desk)[: len(before)] == before


def test_an_hour_is_read_by_its_index(desk: Desk) -> None:
    for _ in range(40):
        desk.submit(risk=Risk.CRITICAL)
    sql = "SELECT count(*) FROM events WHERE at_us >= :start AND at_us < :end"
    span = {"start": clock(desk).at_us, "end": clock(desk).at_us + 1}
    if desk.gov.store.is_postgresql:
        desk.gov.store.run("SET enable_seqscan = off", {})
        plan = desk.gov.store.run(f"EXPLAIN {sql}", span)
    else:
        plan = desk.gov.store.run(f"EXPLAIN QUERY PLAN {sql}", span)
    assert "ix_events_at_us" in " ".join(str(tuple(row)) for row in plan)


def shown(desk: Desk, span: Span, stream: str | None = None) -> tuple[Line, ...]:
    found = trend(desk.gov, span, stream)
    assert found is not None
    return found.lines


def test_a_trend_has_its_window_the_one_before_and_its_bars(desk: Desk) -> None:
    assert trend(desk.gov, Span.WEEK, None) is None
    for hour in range(50):
        for _ in range(1 if hour < 26 else 2):
            work(desk, cost_micros=10 if hour < 26 else 25)
        work(desk, stream="small", cost_micros=1)
        next_hour(desk)
    roll_up(desk.gov)

    def line(span: Span, name: str, stream: str | None = "default") -> Line:
        return next(line for line in shown(desk, span, stream) if line.name == name)

    day = line(Span.DAY, "actions succeeded")
    assert (day.value, day.before, day.latest, day.change_percent) == (48, 24, 2, 100.0)
    assert day.points == (2,) * 24
    last = line(Span.HOUR, "cost")
    assert (last.value, last.before, last.change_percent) == (50, 50, 0.0)
    week = line(Span.WEEK, "actions succeeded", stream=None)
    assert (week.value, week.before, len(week.points)) == (26 + 48 + 50, 0, 28)
    assert sum(point or 0 for point in week.points) == week.value
    month = line(Span.MONTH, "cost per success")
    assert month.value == round((26 * 10 + 48 * 25) / 74)
    assert month.points[0] is None
    found = trend(desk.gov, Span.DAY, None)
    assert found is not None
    assert found.behind_hours == 0
    clock(desk).pass_s(5 * 3600)
    found = trend(desk.gov, Span.DAY, None)
    assert found is not None
    assert found.behind_hours == 5
