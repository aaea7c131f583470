"""What a drill has to prove: every way to fail fails, and nothing passes empty."""

from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from governance.core.actions import State
from governance.core.drill_verdicts import judge_backlog, judge_kill, percentile
from governance.core.drills import (
    BacklogPlan,
    DrillReport,
    EventRange,
    Figure,
    Findings,
    KillPlan,
    Kind,
    Placed,
    Step,
    parse_report,
)
from tests.support.drilled import CHAIN, ENGAGED_US, MS_US, Book, kill


def failed(findings: Findings) -> dict[str, str]:
    return {step.name: step.detail for step in findings.steps if not step.passed}


def figure(findings: Findings, name: str) -> float | None:
    return next(one.value for one in findings.figures if one.name == name)


def test_a_kill_drill_in_which_all_went_well_passes_with_its_figures() -> None:
    findings = kill().judged()
    assert failed(findings) == {}
    assert findings.passed
    assert figure(findings, "canaries") == 2
    assert figure(findings, "stop, median") == 20.0
    assert figure(findings, "stop, p99") == 40.0
    assert figure(findings, "bystanders that ran through it") == 2


def test_a_fleet_without_workers_fails() -> None:
    empty = KillPlan((), {}, (), (), (), 0, 0)
    ids = count(1)
    findings = judge_kill(empty, Book("a", ids).trail(), Book("b", ids).trail(), 2000)
    assert not findings.passed
    assert all(not step.passed for step in findings.steps if step.name != "every hold was freed")
    assert "there is no live worker" in failed(findings)["a canary ran on every live worker"]


def test_a_worker_on_which_no_canary_ran_fails_by_name() -> None:
    drill = kill()
    drill.without("action.admitted", "c2")
    drill.plan = replace(drill.plan, problems={"w2": "no free slot within 10 s (1 of 1 were busy)"})
    assert failed(drill.judged())["a canary ran on every live worker"] == (
        "w2: no free slot within 10 s (1 of 1 were busy)"
    )


def test_a_canary_that_ran_on_another_worker_than_it_was_sent_to_does_not_count() -> None:
    drill = kill()
    drill.plan = replace(drill.plan, canaries=(Placed("c1", "w1"), Placed("c2", "w1")))
    findings = drill.judged()
    assert "w2: its canaries did not start" in failed(findings)["a canary ran on every live worker"]
    assert figure(findings, "canaries") == 1


def test_a_canary_that_began_after_the_engagement_does_not_count() -> None:
    drill = kill()
    (begun,) = (event for event in drill.canaries.events if (event.kind, event.action_id) == ("action.admitted", "c2"))
    drill.canaries.events = [
        replace(event, id=99)
        if event is begun
        else replace(event, id=100)
        if event.kind == "action.cancelled"
        else event
        for event in drill.canaries.events
    ]
    findings = drill.judged()
    assert {"a canary ran on every live worker", "nothing started after the engagement"} <= failed(findings).keys()
    assert figure(findings, "canaries") == 1


def test_a_canary_that_goes_on_fails() -> None:
    drill = kill()
    drill.without("action.cancelled", "c2")
    findings = drill.judged()
    assert failed(findings)["every canary was stopped"] == "c2 is running"


def test_a_canary_that_ended_in_another_way_was_not_stopped() -> None:
    drill = kill()
    drill.without("action.cancelled", "c2")
    drill.canaries.write("action.succeeded", ENGAGED_US + 1, "c2", State.SUCCEEDED)
    assert failed(drill.judged())["every canary was stopped"] == "c2 is succeeded"


def test_a_canary_that_ended_before_the_engagement_exercised_nothing() -> None:
    drill = kill()
    first = drill.canaries.events
    order = {"switch.engaged": 1}
    drill.canaries.events = sorted(first, key=lambda event: order.get(event.kind, 0))
    drill.canaries.events = [
        replace(event, id=number, seq=number) for number, event in enumerate(drill.canaries.events, 1)
    ]
    findings = drill.judged()
    assert "w1" in failed(findings)["a canary ran on every live worker"]
    assert failed(findings)["the stop was in time"] == "nothing was stopped, so nothing was measured"


def test_a_slow_stop_fails_with_its_figure() -> None:
    findings = kill().judged(threshold_ms=39)
    assert failed(findings) == {"the stop was in time": "p99 40 ms, at most 39 ms"}


def test_what_starts_after_the_engagement_fails() -> None:
    drill = kill()
    drill.canaries.write("action.admitted", ENGAGED_US + 55 * MS_US, "late", State.RUNNING)
    assert failed(drill.judged())["nothing started after the engagement"] == "late started"


@pytest.mark.parametrize("latecomers", [(), ("late", "later")])
def test_who_came_late_has_to_be_refused_and_somebody_has_to_come(latecomers: tuple[str, ...]) -> None:
    drill = kill()
    drill.plan = replace(drill.plan, latecomers=latecomers)
    assert "nothing started after the engagement" in failed(drill.judged())


def test_a_switch_that_was_not_engaged_fails() -> None:
    drill = kill()
    drill.canaries.events = [e for e in drill.canaries.events if e.kind != "switch.engaged"]
    findings = drill.judged()
    assert failed(findings)["nothing started after the engagement"] == "the switch was not engaged"
    assert figure(findings, "stop, p99") is None


def test_a_bystander_that_did_not_come_to_its_end_fails() -> None:
    drill = kill()
    drill.without("action.succeeded", "bc2")
    assert failed(drill.judged())["other work went on"] == "bc2 on w2 is running"


def test_a_bystander_that_was_cancelled_fails() -> None:
    drill = kill()
    drill.without("action.succeeded", "bc2")
    drill.bystanders.write("action.cancelled", ENGAGED_US + 1, "bc2", State.CANCELLED)
    assert failed(drill.judged())["other work went on"] == "bc2 on w2 is cancelled"


def test_a_bystander_that_was_done_before_the_engagement_proves_nothing() -> None:
    drill = kill()
    drill.bystanders.events = [replace(event, id=0) for event in drill.bystanders.events]
    assert "other work went on" in failed(drill.judged())


@pytest.mark.parametrize("bystanders", [(), (Placed("bc1", "w1"),)])
def test_every_worker_needs_a_bystander(bystanders: tuple[Placed, ...]) -> None:
    drill = kill()
    drill.plan = replace(drill.plan, bystanders=bystanders)
    assert "w2 had no bystander" in failed(drill.judged())["other work went on"]


def test_a_switch_that_reached_other_work_fails() -> None:
    drill = kill()
    drill.plan = replace(drill.plan, cancelled_elsewhere=2)
    assert failed(drill.judged()) == {"other work went on": "the switch ended 2 actions outside the drill"}


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({"held": 1}, "every hold was freed"),
        ({"problems": ("event 3 is missing",)}, "the trail verifies"),
    ],
)
def test_money_that_stays_held_and_a_broken_trail_fail(changes: dict[str, Any], step: str) -> None:
    drill = kill()
    drill.changes = changes
    assert set(failed(drill.judged())) == {step}


def test_holds_have_to_have_been_taken() -> None:
    drill = kill()
    findings = judge_kill(
        drill.plan, drill.canaries.trail(holds_taken=0), drill.bystanders.trail(holds_taken=0), threshold_ms=2000
    )
    assert failed(findings) == {"every hold was freed": "0 taken, 0 still held"}


def backlog(late_ms: int = 1000, requests: int = 3) -> tuple[BacklogPlan, Book]:
    """Requests that nobody answers, each step `late_ms` after it was due."""
    book = Book("backlog", count(1))
    names = tuple(f"t{number}" for number in range(requests))
    for name in names:
        book.write("action.submitted", 0, name, State.PARKED)
    for name in names:
        up_us, end_us = 2_000_000 + late_ms * MS_US, 4_000_000 + late_ms * MS_US
        book.write("ticket.escalated", up_us, name, payload={"ticket": name, "level": 1})
        book.write("action.denied", end_us, name, State.DENIED)
    return BacklogPlan(requests, names, CHAIN), book


def test_a_backlog_that_is_denied_in_time_passes() -> None:
    plan, book = backlog()
    findings = judge_backlog(plan, book.trail(holds_taken=0), 1000)
    assert failed(findings) == {}
    assert figure(findings, "escalation after it was due, p99") == 1000.0
    assert figure(findings, "denials") == 3


def test_no_request_proves_nothing() -> None:
    findings = judge_backlog(BacklogPlan(0, (), CHAIN), Book("backlog", count(1)).trail(holds_taken=0), 1000)
    assert set(failed(findings)) == {step.name for step in findings.steps}


def test_a_late_step_fails() -> None:
    plan, book = backlog(late_ms=1001)
    assert set(failed(judge_backlog(plan, book.trail(holds_taken=0), 1000))) == {
        "every level was asked when it was due",
        "nobody answered, so it was denied",
    }


@pytest.mark.parametrize("kind", ["ticket.escalated", "action.denied"])
def test_a_missing_step_fails(kind: str) -> None:
    plan, book = backlog()
    book.events = [event for event in book.events if (event.kind, event.action_id) != (kind, "t1")]
    (detail,) = failed(judge_backlog(plan, book.trail(holds_taken=0), 1000)).values()
    assert detail.startswith("2 of 3")
    assert "does beat run" in detail


def test_a_request_that_was_not_opened_fails() -> None:
    plan, book = backlog()
    findings = judge_backlog(replace(plan, wanted=4), book.trail(holds_taken=0), 1000)
    assert failed(findings) == {"the requests were opened": "3 of 4 requests wait for a person"}


def test_a_request_that_did_not_wait_was_not_opened() -> None:
    plan, book = backlog(requests=1)
    book.events[0] = replace(book.events[0], state=State.QUEUED)
    assert "the requests were opened" in failed(judge_backlog(plan, book.trail(holds_taken=0), 1000))


def test_somebody_who_answers_spoils_the_drill_and_is_said() -> None:
    plan, book = backlog(late_ms=-500)
    assert (
        "somebody answered"
        in failed(judge_backlog(plan, book.trail(holds_taken=0), 1000))["nobody answered, so it was denied"]
    )


def test_an_attempt_used_a_slot() -> None:
    plan, book = backlog()
    book.write("action.admitted", 5_000_000, "t0", State.RUNNING)
    assert failed(judge_backlog(plan, book.trail(holds_taken=0), 1000)) == {
        "no worker slot was used": "1 attempts began"
    }


def test_a_backlog_that_holds_money_fails() -> None:
    plan, book = backlog()
    assert failed(judge_backlog(plan, book.trail(holds_taken=1), 1000)) == {"nothing was held": "1 taken, 0 still held"}
    assert set(failed(judge_backlog(plan, book.trail(held=1, holds_taken=0), 1000))) == {"nothing was held"}


def test_findings_without_a_step_have_not_passed() -> None:
    assert not Findings(()).passed


@pytest.mark.parametrize(("share", "value"), [(0.5, 2.0), (0.99, 3.0), (0.01, 1.0)])
def test_a_percentile_is_one_of_the_values(share: float, value: float) -> None:
    assert percentile([3.0, 1.0, 2.0], share) == value
    assert percentile([], share) is None


def test_a_report_is_read_as_it_was_written() -> None:
    report = DrillReport(
        drill_id="d1",
        kind=Kind.KILL,
        session_id="s1",
        started_us=1,
        started_by="schedule",
        finished_us=2,
        threshold_ms=2000,
        passed=False,
        steps=(Step("one", True, "fine"), Step("two", False, "not")),
        figures=(Figure("stop, p99", 1.5, "ms"), Figure("stop, median", None, "ms")),
        evidence=(EventRange("s1", 1, 9),),
    )
    assert parse_report(report.text) == report
    assert report.failures == ("two: not",)
