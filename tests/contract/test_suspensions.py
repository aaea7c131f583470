"""Actions that wait for others: nothing is held meanwhile, and one end is enough to go on."""

from governance.core.actions import State
from governance.core.ledger import Usage
from governance.core.policy import Risk
from governance.operations import audit, checkpoints, decide
from governance.operations.answers import Deferred, Denied, Ended, Parked
from governance.operations.finish import AskedToRetry, Fenced, Settled, Suspended
from governance.operations.recover import child_gone
from governance.operations.relay import release_due
from governance.operations.submit import Repeated, submit
from governance.operations.suspensions import UnderWay, any_ended, go_on, reached
from tests.support import books
from tests.support.governed import ANN, Desk, ManualClock, submission


def pass_s(desk: Desk, seconds: float) -> None:
    clock = desk.gov.clock
    assert isinstance(clock, ManualClock)
    clock.pass_s(seconds)


def waiting(desk: Desk) -> Suspended:
    return Suspended("waits for a call", desk.gov.clock.now_us() + 60_000_000)


def test_it_holds_nothing_while_it_waits_and_goes_on_in_a_further_attempt(desk: Desk) -> None:
    made = desk.submit(cost_micros=700, tokens=50)
    run = desk.admitted(made)
    checkpoints.save_progress(desk.gov, run.ref, {"step": 1}, actor="agent:a1")
    checkpoints.save_progress(desk.gov, run.ref, {"step": 2}, actor="agent:a1")
    ended = waiting(desk)
    assert isinstance(desk.finish(run, ended, Usage(cost_micros=300, tokens=10)), Settled)
    assert isinstance(desk.finish(run, ended, Usage(cost_micros=300, tokens=10)), Settled)
    assert (desk.state(made), desk.account("cost_micros")) == (
        "deferred",
        {"limit": 1_000_000, "posted": 300, "held": 0},
    )
    assert isinstance(desk.arrive(made), Deferred)
    assert go_on(desk.gov, made.action_id, "wake")
    assert not go_on(desk.gov, made.action_id, "wake")
    again = desk.admitted(made)
    assert again.ref.attempt == 2
    assert checkpoints.progress(desk.gov, made.action_id) == {"step": 2}
    assert isinstance(desk.finish(run), Fenced)
    desk.finish(again)
    books.assert_agree(desk.gov)
    assert audit.verify(desk.gov).problems == ()


def test_nobody_who_wakes_it_is_needed_in_the_end(desk: Desk) -> None:
    made = desk.submit()
    desk.finish(desk.admitted(made), waiting(desk))
    assert release_due(desk.gov, "relay", 10) == []
    pass_s(desk, 61)
    assert [one.action_id for one in release_due(desk.gov, "relay", 10)] == [made.action_id]


def test_progress_is_no_restore_point_of_the_stream(desk: Desk) -> None:
    run = desk.admitted(desk.submit())
    checkpoints.save_progress(desk.gov, run.ref, {"step": 1}, actor="agent:a1")
    assert checkpoints.last_state(desk.gov, "default") is None


def test_how_far_what_it_waits_for_has_come(desk: Desk) -> None:
    queued, asked, never = desk.submit(), desk.submit(risk=Risk.HIGH), desk.submit(risk=Risk.CRITICAL)
    parked = reached(desk.gov, asked.action_id)
    assert isinstance(parked, Parked)
    assert parked.ticket_id is not None
    assert isinstance(reached(desk.gov, queued.action_id), UnderWay)
    assert isinstance(reached(desk.gov, never.action_id), Denied)
    assert not any_ended(desk.gov, [queued.action_id, asked.action_id])
    desk.finish(desk.admitted(queued))
    assert isinstance(reached(desk.gov, queued.action_id), Ended)
    assert any_ended(desk.gov, [queued.action_id, asked.action_id])


def test_only_attempts_that_were_lost_count_against_it(desk: Desk) -> None:
    made = desk.submit()
    for _ in range(desk.gov.limits.attempts_max):
        desk.finish(desk.admitted(made), waiting(desk))
        go_on(desk.gov, made.action_id, "wake")
    for number in range(1, desk.gov.limits.attempts_max + 1):
        desk.admitted(made)
        [(_, state)] = child_gone(desk.gov, desk.lease.worker_id, desk.lease.child, "died")
        assert state is (State.FAILED if number == desk.gov.limits.attempts_max else State.QUEUED)


def test_a_repeat_of_what_was_asked_first_is_no_conflict_once_other_arguments_took_its_place(desk: Desk) -> None:
    made = desk.submit(command_id="c1")
    changed = AskedToRetry("changed", desk.gov.clock.now_us(), message='{"new": 1}', digest="digest-2")
    desk.finish(desk.admitted(made), changed)
    again = submit(desk.gov, submission(command_id="c1"))
    assert isinstance(again, Repeated)
    assert again.action_id == made.action_id


def test_what_it_waits_for_may_be_decided_by_a_person(desk: Desk) -> None:
    asked = desk.submit(risk=Risk.HIGH)
    decide.deny(desk.gov, asked.action_id, by=ANN, reason="not this one")
    answer = reached(desk.gov, asked.action_id)
    assert isinstance(answer, Denied)
    assert answer.reason == "not this one"
