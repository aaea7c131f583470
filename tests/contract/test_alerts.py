"""Alerts: raised once while their finding stands, again after it cleared, cleared when it is gone."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from governance.core.alerts import Thresholds
from governance.core.drills import Kind
from governance.core.ledger import Usage
from governance.core.policy import Risk
from governance.core.rollups import HOUR_US
from governance.operations import audit, decide, heartbeat, recover
from governance.operations.alerts import beat_is_silent, list_alerts, watch
from governance.operations.answers import Deferred, Denied, Parked
from governance.operations.drills import start as start_drill
from governance.operations.finish import Raised
from governance.operations.model_calls import MayNotCall
from governance.operations.notify import take_turn
from governance.operations.rollups import roll_up
from governance.operations.status import status
from governance.operations.ticks import claim, finish
from governance.operations.tracker import TokenBudgetTracker
from governance.store.notices import PUSH_TURN
from tests.contract.test_model_calls import asked
from tests.support.charged import BUDGETS, ask, told
from tests.support.governed import ANN, LEASE, POLICY, Desk, ManualClock, make_governance

OPEN = POLICY.replace("timeout: 15m", "timeout: 12h").replace(
    "streams:\n", 'streams:\n  purse: {window: 1h, limits: {cost_usd: "0.10"}}\n'
)
QUIET = Thresholds(
    approval_age_s=0,
    budget_percents=(),
    forecast_percent=0,
    denials_min=0,
    recoveries_min=0,
    exhausted_min=0,
    model_denials_min=0,
    beat_s=0,
    scan_s=0,
)
SCANS = ("acp.recovery", "acp.escalation", "acp.switches", "acp.relay", "acp.rotation", "acp.sealing")


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    gov = make_governance(database_url, policy=OPEN)
    yield Desk(gov)
    gov.store.close()


def pass_s(desk: Desk, seconds: float) -> None:
    assert isinstance(desk.gov.clock, ManualClock)
    desk.gov.clock.pass_s(seconds)


def raised(desk: Desk) -> list[str]:
    return [row[0] for row in desk.gov.store.read("SELECT kind FROM alerts ORDER BY at_us, id", {})]


def details(desk: Desk) -> list[dict[str, Any]]:
    return [json.loads(row[0]) for row in desk.gov.store.read("SELECT payload FROM alerts ORDER BY at_us, id", {})]


def trail(desk: Desk, kind: str) -> int:
    return int(desk.gov.store.read("SELECT count(*) FROM events WHERE kind = :kind", {"kind": kind})[0][0])


def test_an_old_request_alerts_once_until_nobody_waits_for_long(desk: Desk) -> None:
    thresholds = replace(QUIET, approval_age_s=900)
    first, second = desk.submit(risk=Risk.HIGH), desk.submit(risk=Risk.HIGH)
    pass_s(desk, 899)
    assert watch(desk.gov, thresholds).raised == ()
    pass_s(desk, 1)
    assert len(watch(desk.gov, thresholds).raised) == 1
    (told,) = details(desk)
    assert (told["action"], told["age_s"], told["pending"]) == (first.action_id, 900, 2)
    assert told["runbook"] == "docs/operations.md#alert-approval-age"
    decide.approve(desk.gov, first.action_id, by=ANN, reason="fine")
    for _ in range(3):
        pass_s(desk, 60)
        assert watch(desk.gov, thresholds).raised == (), "the next in line waits for the same reason"
    decide.approve(desk.gov, second.action_id, by=ANN, reason="fine")
    assert watch(desk.gov, thresholds).cleared == ("approval-age",)
    desk.submit(risk=Risk.HIGH)
    assert watch(desk.gov, thresholds) == watch(desk.gov, thresholds)
    pass_s(desk, 900)
    assert len(watch(desk.gov, thresholds).raised) == 1
    assert raised(desk) == ["approval.age"] * 2
    assert (trail(desk, "alert.raised"), trail(desk, "alert.cleared")) == (2, 1)
    assert [line.standing for line in list_alerts(desk.gov, standing_only=False, limit=9)] == [True, False]
    assert len(list_alerts(desk.gov, standing_only=True, limit=9)) == 1
    audit.seal(desk.gov)
    assert audit.verify(desk.gov).problems == ()


def test_what_a_drill_does_is_nobodys_burden(desk: Desk) -> None:
    stream = start_drill(desk.gov, Kind.APPROVAL_BACKLOG, started_by="test").session.stream
    asked = desk.submit(stream=stream, name="acp.drill.ask")
    for _ in range(6):
        desk.admitted(desk.submit(stream=stream, name="acp.drill.fall_once", cost_micros=1_000_000, idempotent=False))
        recover.child_gone(desk.gov, LEASE.worker_id, LEASE.child, "killed")
    pass_s(desk, 1000)
    assert (desk.state(asked), desk.account("cost_micros", stream)["posted"]) == ("parked", 6_000_000)
    assert watch(desk.gov, replace(Thresholds(), scan_s=0)).raised == ()
    assert status(desk.gov, everything=False).actions == {}


def test_a_budget_alerts_at_each_level_once_in_its_window(desk: Desk) -> None:
    thresholds = replace(QUIET, budget_percents=(50, 80, 100))
    percents = []
    for micros in (40_000, 10_000, 0, 45_000, 1_000):
        desk.finish(desk.admitted(desk.submit(stream="purse", cost_micros=0)), None, Usage(micros, 1))
        watch(desk.gov, thresholds)
        percents.append([line["percent"] for line in details(desk)])
    assert percents == [[], [50], [50], [50, 80], [50, 80]]
    run = desk.admitted(desk.submit(stream="purse", cost_micros=4_000))
    watch(desk.gov, thresholds)
    assert max(line["percent"] for line in details(desk)) == 100, "what is held counts: nothing more can start"
    desk.finish(run, Raised("E", "no"), Usage(0, 1))
    before = len(raised(desk))
    assert watch(desk.gov, thresholds).raised == (), "it fell back, and the higher level was told"
    desk.admitted(desk.submit(stream="purse", cost_micros=4_000))
    assert watch(desk.gov, thresholds).raised == (), "once in its window"
    assert len(raised(desk)) == before
    assert {line["runbook"] for line in details(desk)} == {"docs/operations.md#alert-budget-burn"}
    pass_s(desk, 3600)
    watch(desk.gov, thresholds)
    assert list_alerts(desk.gov, standing_only=True, limit=9) == []
    desk.finish(desk.admitted(desk.submit(stream="purse", cost_micros=0)), None, Usage(50_000, 1))
    assert len(watch(desk.gov, thresholds).raised) == 1, "another window"


def test_a_budget_that_will_not_last_is_forecast(desk: Desk) -> None:
    thresholds = replace(QUIET, forecast_percent=25)
    desk.finish(desk.admitted(desk.submit(stream="purse", cost_micros=0)), None, Usage(50_000, 1))
    assert watch(desk.gov, thresholds).raised == (), "a tenth of the window has not passed"
    pass_s(desk, 900)
    (alert,) = watch(desk.gov, thresholds).raised
    assert alert.startswith("budget-forecast:session:purse@")
    assert details(desk)[0]["exhausted"] == "2027-01-15T08:30:00Z"
    pass_s(desk, 1200)
    assert watch(desk.gov, thresholds).cleared, "it was quiet since, and lasts"
    pass_s(desk, 60)
    desk.finish(desk.admitted(desk.submit(stream="purse", cost_micros=0)), None, Usage(40_000, 1))
    assert watch(desk.gov, thresholds).raised == (), "once in its window"


def test_a_jump_of_denials_is_measured_against_the_week_before(desk: Desk) -> None:
    thresholds = replace(QUIET, denials_min=10)

    def hour(denied: int, succeeded: int) -> None:
        for _ in range(denied):
            desk.submit(risk=Risk.CRITICAL)
        for _ in range(succeeded):
            desk.finish(desk.admitted(desk.submit()))
        pass_s(desk, 1800)

    hour(10, 2)
    assert watch(desk.gov, thresholds).raised == (), "a new fleet has no baseline"
    pass_s(desk, 24 * 3600)
    for _ in range(6):
        hour(1, 9)
        pass_s(desk, 1800)
    pass_s(desk, 3600)
    audit.seal(desk.gov)
    roll_up(desk.gov)
    assert watch(desk.gov, thresholds).raised == ()
    hour(9, 0)
    assert watch(desk.gov, thresholds).raised == (), "nine of nine are too few to say"
    hour(3, 0)
    (alert,) = watch(desk.gov, thresholds).raised
    assert alert.startswith("denial-rate:default@")
    (told,) = details(desk)
    assert (told["count"], told["of"], told["baseline_of"], told["stream"]) == (12, 12, 72, "default")
    assert watch(desk.gov, thresholds).raised == ()
    pass_s(desk, 3600)
    assert watch(desk.gov, thresholds).cleared == ("denial-rate:default",)


def test_many_recoveries_alert(desk: Desk) -> None:
    thresholds = replace(QUIET, recoveries_min=5)
    for number in range(5):
        assert watch(desk.gov, thresholds).raised == (), number
        desk.admitted(desk.submit(idempotent=False))
        recover.child_gone(desk.gov, LEASE.worker_id, LEASE.child, "killed")
    assert len(watch(desk.gov, thresholds).raised) == 1
    assert raised(desk) == ["recovery.rate"]
    pass_s(desk, HOUR_US / 1_000_000 + 1)
    assert watch(desk.gov, thresholds).cleared == ("recovery-rate",)


def test_exhausted_budgets_alert_whatever_became_of_what_asked(database_url: str) -> None:
    desk = Desk(make_governance(database_url, policy=POLICY + BUDGETS))

    def look(at_least: int = 1) -> tuple[list[str], list[str]]:
        """Budgets have levels of their own beside."""
        seen = watch(desk.gov, replace(QUIET, exhausted_min=at_least))
        raised, cleared = ([one for one in ids if "exhausted" in one] for ids in (seen.raised, seen.cleared))
        return raised, cleared

    assert look() == ([], [])
    asking = ask(desk, team="asking", tokens=100)
    assert isinstance(ask(desk, team="asking", tokens=10), Parked)
    (alert,), _ = look()
    assert alert.startswith("budget-exhausted@")
    pass_s(desk, 3600)
    assert look() == ([], []), "it stands"
    pass_s(desk, 1)
    assert look() == ([], ["budget-exhausted"])

    desk.finish(asking)
    patient = ask(desk, team="patient", user="u1", tokens=90)
    for user in ("u1", "u2", "u2"):
        assert isinstance(ask(desk, team="patient", user=user, tokens=20), Deferred)
    assert isinstance(ask(desk, stream="small", user="u3", cost_micros=0, tokens=1001), Denied)
    desk.finish(patient)
    TokenBudgetTracker(desk.gov).record_usage(user="u1", cost_micros=10_000)
    assert [said["outcome"] for said in told(desk, "budget.exhausted")][1:] == ["deferred"] * 3 + ["denied", "recorded"]
    (alert,), _ = look()
    (said,) = (line.details for line in list_alerts(desk.gov, standing_only=True, limit=99) if line.id == alert)
    assert (said["count"], said["budget"], said["budget_count"]) == (5, "waits", 3)
    assert (said["who"], said["who_count"]) == ("user u2, team patient", 2)
    assert said["runbook"] == "docs/operations.md#alert-budget-exhausted"
    assert look(at_least=6) == ([], ["budget-exhausted"]), "five are too few for who says so"
    assert look(at_least=0) == ([], [])
    desk.gov.store.close()


def test_a_sessions_own_budget_is_named_after_its_stream(desk: Desk) -> None:
    for _ in range(2):
        desk.arrive(desk.submit(stream="purse", cost_micros=200_000))
    assert len(watch(desk.gov, replace(QUIET, exhausted_min=2)).raised) == 1
    (said,) = details(desk)
    assert (said["count"], said["budget"], said["who"]) == (2, "session:purse", None)


def test_refused_models_alert_at_admission_and_at_a_call(desk: Desk) -> None:
    thresholds = replace(QUIET, model_denials_min=1)
    run = desk.admitted(desk.submit(agent_id="a1", user="u1"))
    assert watch(desk.gov, thresholds).raised == ()
    assert isinstance(asked(desk, run, "secret-1"), MayNotCall)
    (alert,) = watch(desk.gov, thresholds).raised
    assert alert.startswith("model-denied@")
    pass_s(desk, 3601)
    assert watch(desk.gov, thresholds).cleared == ("model-denied",)
    for model, user in (("secret-1", "u1"), ("large-1", "u2"), ("large-1", "u1"), ("large-1", "u2")):
        assert isinstance(desk.arrive(desk.submit(model=model, user=user)), Denied)
    assert len(watch(desk.gov, thresholds).raised) == 1
    said = details(desk)[1]
    assert (said["count"], said["model"], said["model_count"]) == (4, "large-1", 3)
    assert (said["who"], said["who_count"]) == ("user u2", 2)
    assert said["runbook"] == "docs/operations.md#alert-model-denied"


def run_job(desk: Desk, job: str, looked: int | None = None) -> None:
    tick = claim(desk.gov, job, 1.0)
    assert tick is not None
    finish(desk.gov, job, tick, looked=looked)


def test_a_scan_that_does_not_come_to_an_end_is_missed(desk: Desk) -> None:
    thresholds = replace(QUIET, scan_s=300)
    heartbeat.register(desk.gov, "w1", 1)
    for minute in range(14):
        for job in SCANS:
            if job == "acp.escalation" and minute >= 3:
                # It begins, and fails.
                claim(desk.gov, job, 1.0)
            else:
                run_job(desk, job, looked=1)
        heartbeat.beat(desk.gov, "w1")
        watched = watch(desk.gov, thresholds)
        assert bool(watched.raised) is (minute == 8), (minute, watched)
        run_job(desk, "acp.alerts")
        pass_s(desk, 60)
    (told,) = details(desk)
    assert (told["job"], told["why"]) == ("acp.escalation", "it has not come to an end")
    run_job(desk, "acp.escalation")
    assert watch(desk.gov, thresholds).cleared == ("scan-missed:acp.escalation",)


def test_a_fleet_that_was_away_has_missed_nothing(desk: Desk) -> None:
    thresholds = replace(QUIET, scan_s=300)
    for job in (*SCANS, "acp.alerts"):
        run_job(desk, job)
    pass_s(desk, 7 * 24 * 3600)
    for _ in range(4):
        assert watch(desk.gov, thresholds).raised == ()
        run_job(desk, "acp.alerts")
        pass_s(desk, 60)


def test_a_recovery_sweep_that_looks_at_no_worker_is_missed(desk: Desk) -> None:
    thresholds = replace(QUIET, scan_s=300)

    def minute(workers: int) -> tuple[str, ...]:
        for job in SCANS:
            run_job(desk, job, looked=workers if job == "acp.recovery" else None)
        found = watch(desk.gov, thresholds).raised
        run_job(desk, "acp.alerts")
        pass_s(desk, 60)
        return found

    assert minute(0) == (), "nobody was there to be looked at"
    heartbeat.register(desk.gov, "w1", 1)
    assert minute(1) == ()
    heartbeat.beat(desk.gov, "w1")
    assert len(minute(0)) == 1
    assert details(desk)[0]["why"] == "it looked at no worker, and there are 1"
    assert recover.sweep(desk.gov, "recovery", {}).looked == 1


def test_beats_silence_is_raised_once_by_whoever_sees_it_and_cleared_by_its_return(desk: Desk) -> None:
    thresholds = replace(QUIET, beat_s=120)
    began_us = desk.gov.clock.now_us()
    pass_s(desk, 119)
    assert not beat_is_silent(desk.gov, thresholds, began_us)
    run_job(desk, "acp.relay")
    pass_s(desk, 119)
    assert not beat_is_silent(desk.gov, thresholds, began_us)
    pass_s(desk, 1)
    assert not beat_is_silent(desk.gov, thresholds, desk.gov.clock.now_us()), "a worker that has just started"
    turn = take_turn(desk.gov, 60, PUSH_TURN)
    assert turn is not None, "somebody tells of it, which is no life sign"
    for _ in range(3):
        assert beat_is_silent(desk.gov, thresholds, began_us)
        pass_s(desk, 15)
    assert raised(desk) == ["beat.silent"]
    run_job(desk, "acp.alerts")
    assert watch(desk.gov, thresholds).cleared == ("beat-silent",)
    assert not beat_is_silent(desk.gov, thresholds, began_us)
    pass_s(desk, 120)
    assert beat_is_silent(desk.gov, thresholds, began_us)
    assert raised(desk) == ["beat.silent"] * 2


def test_beats_silence_is_heard_although_the_clock_was_put_back(desk: Desk) -> None:
    thresholds = replace(QUIET, beat_s=120)
    began_us = desk.gov.clock.now_us()
    pass_s(desk, 3600)
    run_job(desk, "acp.relay")
    pass_s(desk, -3600)
    pass_s(desk, 121)
    assert beat_is_silent(desk.gov, thresholds, began_us)
