"""What a recovery drill has to prove: two attempts vanished, one ran again, one came to a person."""

from itertools import count
from typing import Any

import pytest

from governance.core.actions import State
from governance.core.drill_verdicts import judge_recovery
from governance.core.drills import Findings, RecoveryPlan
from tests.support.drilled import MS_US, Book

FOUND, AGAIN, ASKED = (
    "two children were killed, and it was found",
    "what may run twice ran again in time",
    "what must not run twice came into doubt",
)
PLAN = RecoveryPlan("w1", "", "twice", "once")


def fallen() -> Book:
    """A drill that went well: both fell at 1000 ms; it was found, and one was at work again at 4000 ms."""
    book = Book("drill-recovery", count(1))
    for action in ("twice", "once"):
        book.write("action.admitted", 1000 * MS_US, action, State.RUNNING)
    book.write("action.reclaimed", 3000 * MS_US, "twice", State.QUEUED)
    book.write("action.reclaimed", 3500 * MS_US, "once", State.IN_DOUBT)
    book.write("action.admitted", 4000 * MS_US, "twice", State.RUNNING, attempt=2)
    book.write("action.succeeded", 4100 * MS_US, "twice", State.SUCCEEDED, attempt=2)
    book.write("action.resolved", 5000 * MS_US, "once", State.FAILED)
    return book


def without(book: Book, kind: str, action: str, attempt: int = 1) -> Book:
    book.events = [e for e in book.events if (e.kind, e.action_id, e.attempt) != (kind, action, attempt)]
    return book


def judged(book: Book, threshold_ms: int = 30_000, plan: RecoveryPlan = PLAN, **changes: Any) -> Findings:
    return judge_recovery(plan, book.trail(**changes), threshold_ms)


def failed(findings: Findings) -> dict[str, str]:
    return {step.name: step.detail for step in findings.steps if not step.passed}


def test_what_was_found_in_time_passes_with_its_figures() -> None:
    findings = judged(fallen(), threshold_ms=3000)
    assert findings.passed, failed(findings)
    assert {figure.name: figure.value for figure in findings.figures} == {
        "children lost and found": 2,
        "found after, at most": 2500.0,
        "at work again after": 3000.0,
    }


def test_a_later_attempt_that_was_given_up_is_not_the_one_that_fell() -> None:
    book = without(fallen(), "action.reclaimed", "twice")
    book.write("action.reclaimed", 6000 * MS_US, "twice", State.QUEUED, attempt=2)
    assert FOUND in failed(judged(book))


def test_who_is_at_work_again_too_late_fails() -> None:
    assert list(failed(judged(fallen(), threshold_ms=2999))) == [AGAIN]


def test_no_worker_proves_nothing() -> None:
    findings = judged(Book("none", count(1)), plan=RecoveryPlan(None, "there is no live worker", None, None))
    assert {FOUND, AGAIN, ASKED} <= set(failed(findings))
    assert failed(findings)[FOUND] == "there is no live worker"


@pytest.mark.parametrize("action", ["twice", "once"])
def test_a_lost_attempt_that_nobody_found_fails(action: str) -> None:
    found = failed(judged(without(fallen(), "action.reclaimed", action)))
    assert found[FOUND] == "1 of 2 vanished attempts were found on w1"


def test_what_did_not_run_again_fails() -> None:
    book = without(without(fallen(), "action.admitted", "twice", 2), "action.succeeded", "twice", 2)
    assert "there was no second attempt" in failed(judged(book))[AGAIN]


def test_a_second_attempt_without_success_fails() -> None:
    assert AGAIN in failed(judged(without(fallen(), "action.succeeded", "twice", 2)))


def test_a_second_attempt_of_what_must_not_have_one_fails() -> None:
    book = fallen()
    book.write("action.admitted", 6000 * MS_US, "once", State.RUNNING, attempt=2)
    assert failed(judged(book)) == {ASKED: "2 attempts, then in_doubt"}


def test_what_was_given_up_without_a_doubt_fails() -> None:
    book = without(fallen(), "action.reclaimed", "once")
    book.write("action.reclaimed", 3500 * MS_US, "once", State.QUEUED)
    assert list(failed(judged(book))) == [ASKED]


@pytest.mark.parametrize("changes", [{"held": 1}, {"holds_taken": 0}, {"problems": ("event 3 was changed",)}])
def test_money_that_stays_held_and_a_broken_trail_fail(changes: dict[str, Any]) -> None:
    assert len(failed(judged(fallen(), **changes))) == 1
