"""The fleet in numbers: what counts as runnable now, and what a look costs."""

import json
import re
from collections.abc import Iterator

import pytest

from acp_tasks.metrics import families
from governance.core.policy import Risk
from governance.core.switches import Mode, Scope
from governance.operations import audit, heartbeat
from governance.operations.clearing import release
from governance.operations.decide import approve
from governance.operations.heartbeat import Post
from governance.operations.metrics import Measures, measure
from governance.operations.readiness import beat_missing, worker_missing
from governance.operations.switches import engage
from governance.operations.ticks import claim
from tests.support.fleet import ROOT
from tests.support.governed import ANN, Desk, ManualClock, make_governance

JOBS = ("acp.relay", "acp.sealing")


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    gov = make_governance(database_url)
    yield Desk(gov)
    gov.store.close()


def clock(desk: Desk) -> ManualClock:
    assert isinstance(desk.gov.clock, ManualClock)
    return desk.gov.clock


def look(desk: Desk) -> Measures:
    return measure(desk.gov, JOBS)


def test_an_idle_fleet_measures_nothing(desk: Desk) -> None:
    seen = look(desk)
    assert seen.runnable == {}
    assert set(seen.actions.values()) == {0}
    assert (seen.oldest_runnable_s, seen.oldest_approval_s, seen.pending_approvals) == (0.0, 0.0, 0)
    assert (seen.workers, seen.beats, seen.budgets, seen.alerts) == ((), (), (), {})
    assert seen.job_ages_s == {"acp.relay": None, "acp.sealing": None}


def test_runnable_is_what_is_queued_and_due_and_neither_parked_nor_deferred_nor_stopped(desk: Desk) -> None:
    ready = desk.submit()
    clock(desk).pass_s(10)
    desk.submit(stream="small")
    desk.submit(not_before_us=clock(desk).now_us() + 60_000_000)
    parked = desk.submit(risk=Risk.HIGH)
    desk.submit(risk=Risk.CRITICAL)
    running = desk.submit()
    desk.admitted(running)
    patient = [desk.submit(stream="patient") for _ in range(2)]
    desk.admitted(patient[0])
    desk.arrive(patient[1])
    assert desk.state(patient[1]) == "deferred"

    seen = look(desk)
    assert {stream: count for stream, count in seen.runnable.items() if count} == {"default": 1, "small": 1}
    assert seen.actions == {"queued": 3, "running": 2, "parked": 1, "deferred": 1, "in_doubt": 0}
    assert seen.oldest_runnable_s == 10.0
    assert seen.pending_approvals == 1

    clock(desk).pass_s(60)
    seen = look(desk)
    assert seen.runnable["default"] == 2
    assert (seen.oldest_runnable_s, seen.oldest_approval_s) == (70.0, 60.0)

    by_agent = engage(desk.gov, Scope.STREAM, "small", mode=Mode.PAUSE, reason="bank", by=ANN, grace_s=1).switch
    by_name = engage(desk.gov, Scope.NAME, "case.*", mode=Mode.PAUSE, reason="all", by=ANN, grace_s=1).switch
    assert sum(look(desk).runnable.values()) == 0
    release(desk.gov, by_name.id, reason="fine", by=ANN)
    assert look(desk).runnable == {**look(desk).runnable, "default": 2, "small": 0}
    release(desk.gov, by_agent.id, reason="fine", by=ANN)

    desk.finish(desk.admitted(ready))
    approve(desk.gov, parked.action_id, by=ANN, reason="ok")
    clock(desk).pass_s(5)
    seen = look(desk)
    assert seen.runnable["default"] == 2
    assert (seen.pending_approvals, seen.actions["parked"]) == (0, 0)


def test_the_wait_of_an_approved_action_counts_from_its_approval(desk: Desk) -> None:
    parked = desk.submit(risk=Risk.HIGH)
    clock(desk).pass_s(500)
    approve(desk.gov, parked.action_id, by=ANN, reason="ok")
    clock(desk).pass_s(3)
    assert look(desk).oldest_runnable_s == 3.0


def test_budgets_events_alerts_messages_and_ticks_are_counted(desk: Desk) -> None:
    desk.admitted(desk.submit(stream="small", cost_micros=50_000, tokens=10))
    seen = look(desk)
    assert {(b.of, str(b.unit)): b.used_ratio for b in seen.budgets} == {
        ("small", "actions"): 0.1,
        ("small", "cost_micros"): 0.5,
        ("small", "tokens"): 0.01,
    }
    assert seen.unsealed_events > 0
    audit.seal(desk.gov)
    left = desk.submit()
    assert look(desk).unpublished_actions == 0
    desk.gov.store.run("UPDATE actions SET published_us = NULL WHERE id = :id", {"id": left.action_id})
    for alert in ("a", "b"):
        raised = "INSERT INTO alerts (id, kind, payload, at_us) VALUES (:id, 'drill.failed', '{}', 1)"
        desk.gov.store.run(raised, {"id": alert})
    for job in JOBS:
        assert claim(desk.gov, job, 5.0)
        clock(desk).pass_s(7)
    seen = look(desk)
    assert seen.unpublished_actions == 1
    assert seen.alerts == {"drill.failed": 2}
    assert seen.job_ages_s == {"acp.relay": 14.0, "acp.sealing": 7.0}
    clock(desk).pass_s(3600)
    assert look(desk).budgets == ()


def test_workers_and_beats_count_while_their_heartbeats_come(desk: Desk) -> None:
    heartbeat.register(desk.gov, "w@one#1", 1, Post("one", ("celery",), 4))
    heartbeat.register(desk.gov, "direct@one#1", 1)
    heartbeat.scheduler_alive(desk.gov, "beat@one#1", "one", 1)
    seen = look(desk)
    assert [(worker.id, worker.slots) for worker in seen.workers] == [("w@one#1", 4)]
    assert [beat.id for beat in seen.beats] == ["beat@one#1"]
    assert heartbeat.beat(desk.gov, "w@one#1", 6)
    assert look(desk).workers[0].slots == 6
    clock(desk).pass_s(13)
    assert (look(desk).workers, look(desk).beats) == ((), ())


def test_a_machine_is_ready_while_a_worker_of_its_own_is_heard_of(desk: Desk) -> None:
    assert "no worker of one is registered" in (worker_missing(desk.gov, "one") or "")
    assert "no beat of one" in (beat_missing(desk.gov, "one") or "")
    heartbeat.register(desk.gov, "w@one#1", 1, Post("one", ("celery",), 4))
    heartbeat.scheduler_alive(desk.gov, "beat@one#1", "one", 1)
    assert "w@one#1 still looks for what was left behind" in (worker_missing(desk.gov, "one") or "")
    heartbeat.ready(desk.gov, "w@one#1")
    assert worker_missing(desk.gov, "one") is None
    assert beat_missing(desk.gov, "one") is None
    assert worker_missing(desk.gov, "two") is not None
    clock(desk).pass_s(13)
    assert worker_missing(desk.gov, "one") == "w@one#1 was last heard of 13 s ago"
    assert beat_missing(desk.gov, "one") is not None
    heartbeat.register(desk.gov, "w@one#2", 2, Post("one", ("celery",), 4), ready_us=desk.gov.clock.now_us())
    assert worker_missing(desk.gov, "one") is None
    heartbeat.goodbye(desk.gov, "w@one#2")
    assert worker_missing(desk.gov, "one") is not None


def test_a_look_takes_nine_statements_however_much_there_is(desk: Desk) -> None:
    for count in (1, 30):
        for _ in range(count):
            desk.submit()
        look(desk)
        before = desk.gov.store.round_trips
        look(desk)
        # The budgets are read by SQLAlchemy, which is not counted here.
        assert desk.gov.store.round_trips - before + 1 == 9


def test_the_examples_ask_for_metrics_that_there_are(desk: Desk) -> None:
    names = {sample.name for family in families(measure(desk.gov, ("acp.relay",))) for sample in family.samples}
    empty = {"acp_runnable_actions", "acp_budget_used_ratio", "acp_alerts_raised_total", "acp_tick_age_seconds"}
    known = names | empty | {"acp_database_up"}
    board = json.loads((ROOT / "examples" / "grafana.json").read_text())
    asked = " ".join(target["expr"] for panel in board["panels"] for target in panel["targets"])
    asked += (ROOT / "examples" / "keda.yaml").read_text()
    found = set(re.findall(r"\bacp_[a-z_]+\b", asked))
    assert len(found) > 10
    assert found <= known
