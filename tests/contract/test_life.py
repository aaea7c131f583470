"""The life of one action: submit, admit, finish, and every way in which a second one must not count."""

import pytest

from governance.core.actions import Lease
from governance.core.ledger import Usage
from governance.core.policy import Risk
from governance.errors import CommandConflict
from governance.operations import audit, relay
from governance.operations.answers import Admitted, Deferred, Denied, Dropped, Ended, NotSubmitted, Parked
from governance.operations.finish import AskedToRetry, Fenced, Raised, Settled, Succeeded, give_back
from governance.operations.recover import child_gone
from governance.operations.sessions import in_force
from governance.operations.submit import Recorded, Repeated
from tests.support.governed import LEASE, POLICY, Desk, ManualClock, make_governance, submission


def clock(desk: Desk) -> ManualClock:
    assert isinstance(desk.gov.clock, ManualClock)
    return desk.gov.clock


def test_an_action_is_held_for_run_and_posted(desk: Desk) -> None:
    made = desk.submit(cost_micros=1000, tokens=10)
    assert desk.submitted == Recorded(made.action_id, desk.submitted.state)
    assert desk.state(made) == "queued"
    run = desk.admitted(made)
    assert run.ref.attempt == 1
    assert desk.account("cost_micros") == {"limit": 1_000_000, "posted": 0, "held": 1000}
    assert desk.account("actions") == {"limit": 1000, "posted": 0, "held": 1}
    assert isinstance(desk.finish(run, Succeeded('"done"'), Usage(cost_micros=400, tokens=3)), Settled)
    assert desk.state(made) == "succeeded"
    assert desk.account("cost_micros") == {"limit": 1_000_000, "posted": 400, "held": 0}
    assert desk.account("tokens") == {"limit": 100_000, "posted": 3, "held": 0}
    assert desk.account("actions") == {"limit": 1000, "posted": 1, "held": 0}
    assert audit.verify(desk.gov).problems == ()


def test_a_repeated_command_gets_the_first_answer(desk: Desk) -> None:
    first = desk.submit(command_id="pay-c1")
    desk.submit(command_id="pay-c1")
    assert desk.submitted == Repeated(first.action_id, desk.submitted.state)
    assert desk.gov.store.read("SELECT count(*) FROM actions", {})[0][0] == 1


def test_a_command_with_other_content_is_a_conflict(desk: Desk) -> None:
    desk.submit(command_id="pay-c1", digest="a")
    with pytest.raises(CommandConflict, match=r"pay-c1.*already used.*case\.reply"):
        desk.submit(command_id="pay-c1", digest="b")
    assert desk.gov.store.read("SELECT count(*) FROM actions", {})[0][0] == 1


def test_an_action_id_under_another_command_is_a_conflict(desk: Desk) -> None:
    first = desk.submit()
    with pytest.raises(CommandConflict):
        desk.submit(action_id=first.action_id, command_id="other")


def test_a_duplicate_message_is_dropped_while_it_runs_and_after(desk: Desk) -> None:
    made = desk.submit()
    run = desk.admitted(made)
    assert isinstance(desk.arrive(made, lease=Lease("worker-2", "c")), Dropped)
    desk.finish(run)
    assert isinstance(desk.arrive(made), Dropped)
    assert desk.account("actions") == {"limit": 1000, "posted": 1, "held": 0}


def test_a_redelivered_message_tells_the_recorded_outcome_again(desk: Desk) -> None:
    made = desk.submit()
    desk.finish(desk.admitted(made), Succeeded('"x"'))
    again = desk.arrive(made, redelivered=True)
    assert isinstance(again, Ended)
    assert again.action.result == '"x"'


def test_a_message_with_other_arguments_does_not_run(desk: Desk) -> None:
    made = desk.submit(digest="the refund of 5")
    dropped = desk.arrive(made, digest="the refund of 5000")
    assert isinstance(dropped, Dropped)
    assert "other arguments" in dropped.why
    assert desk.state(made) == "queued"


def test_a_message_nobody_submitted_is_told_apart(desk: Desk) -> None:
    assert isinstance(desk.arrive(submission()), NotSubmitted)


def test_a_denied_action_is_told_once(desk: Desk) -> None:
    made = desk.submit(risk=Risk.CRITICAL)
    assert desk.state(made) == "denied"
    told = desk.arrive(made)
    assert isinstance(told, Denied)
    assert (told.rule, told.reason) == ("never", "too dangerous")
    assert isinstance(desk.arrive(made), Dropped)
    assert isinstance(desk.arrive(made, redelivered=True), Denied)


def test_steering_denies_with_guidance(desk: Desk) -> None:
    made = desk.submit(name="mail.bulk")
    told = desk.arrive(made)
    assert isinstance(told, Denied)
    assert (told.guidance, told.suggest) == ("Answer the case.", ("case.reply",))


def test_a_high_risk_waits_with_an_open_ticket_and_holds_nothing(desk: Desk) -> None:
    made = desk.submit(risk=Risk.HIGH)
    assert desk.state(made) == "parked"
    assert isinstance(desk.arrive(made), Parked)
    assert desk.account("actions")["held"] == 0
    assert desk.gov.store.read("SELECT state FROM tickets", {})[0][0] == "pending"


def test_an_exhausted_budget_denies_and_names_itself(desk: Desk) -> None:
    for _ in range(10):
        desk.finish(desk.admitted(desk.submit(stream="small", cost_micros=100)))
    refused = desk.arrive(desk.submit(stream="small", cost_micros=100))
    assert isinstance(refused, Denied)
    assert refused.rule == "budget:actions"
    for word in ("session:small@", "0 actions left", "this needs 1", "limit 10", "used 10", "held 0", "resets 2027-"):
        assert word in refused.reason


def test_a_hold_is_all_or_none(desk: Desk) -> None:
    refused = desk.arrive(desk.submit(stream="small", cost_micros=1, tokens=1001))
    assert isinstance(refused, Denied)
    assert refused.rule == "budget:tokens"
    assert {unit: desk.account(unit, "small")["held"] for unit in ("cost_micros", "actions", "tokens")} == {
        "cost_micros": 0,
        "actions": 0,
        "tokens": 0,
    }
    assert desk.gov.store.read("SELECT count(*) FROM entries", {})[0][0] == 0


def test_the_last_cent_can_be_spent(desk: Desk) -> None:
    desk.finish(desk.admitted(desk.submit(stream="small", cost_micros=99_999)), usage=Usage(cost_micros=99_999))
    assert isinstance(desk.arrive(desk.submit(stream="small", cost_micros=1)), Admitted)
    assert isinstance(desk.arrive(desk.submit(stream="small", cost_micros=1)), Denied)


def test_usage_beyond_the_hold_counts_in_full_and_stops_the_next_one(desk: Desk) -> None:
    run = desk.admitted(desk.submit(stream="small", cost_micros=10))
    desk.finish(run, usage=Usage(cost_micros=150_000, tokens=0))
    assert desk.account("cost_micros", "small") == {"limit": 100_000, "posted": 150_000, "held": 0}
    flags = desk.gov.store.read("SELECT flag FROM entries WHERE flag IS NOT NULL", {})
    assert [row[0] for row in flags] == ["over_hold"]
    assert isinstance(desk.arrive(desk.submit(stream="small", cost_micros=0)), Denied)


def test_unreported_usage_costs_the_whole_hold_and_is_flagged(desk: Desk) -> None:
    desk.finish(desk.admitted(desk.submit(cost_micros=700, tokens=5)), usage=Usage())
    assert desk.account("cost_micros")["posted"] == 700
    assert desk.account("tokens")["posted"] == 5
    flags = desk.gov.store.read("SELECT count(*) FROM entries WHERE flag = 'unreported'", {})
    assert flags[0][0] == 2


def test_a_deferring_stream_waits_for_its_next_window(desk: Desk) -> None:
    desk.finish(desk.admitted(desk.submit(stream="patient")))
    made = desk.submit(stream="patient")
    deferred = desk.arrive(made)
    assert isinstance(deferred, Deferred)
    assert desk.state(made) == "deferred"
    assert isinstance(desk.arrive(made), Deferred)
    assert deferred.until_us % 3_600_000_000 == 0


def test_who_cannot_wait_is_denied_where_another_would_be_deferred(desk: Desk) -> None:
    desk.finish(desk.admitted(desk.submit(stream="patient")))
    refused = desk.arrive(desk.submit(stream="patient"), can_wait=False)
    assert isinstance(refused, Denied)
    assert "a direct call cannot wait" in refused.reason


def test_an_action_is_not_admitted_after_its_expiry(desk: Desk) -> None:
    made = desk.submit(expires_us=clock(desk).at_us + 60_000_000)
    clock(desk).pass_s(61)
    refused = desk.arrive(made)
    assert isinstance(refused, Denied)
    assert refused.rule == "expires"


def test_a_deferral_does_not_lengthen_what_the_caller_allowed(desk: Desk) -> None:
    desk.finish(desk.admitted(desk.submit(stream="patient")))
    made = desk.submit(stream="patient", expires_us=clock(desk).at_us + 60_000_000)
    assert isinstance(desk.arrive(made), Deferred)
    clock(desk).pass_s(7200)
    assert [out.action_id for out in relay.release_due(desk.gov, "relay", 10)] == [made.action_id]
    refused = desk.arrive(made)
    assert isinstance(refused, Denied)
    assert refused.rule == "expires"


def test_a_policy_that_changes_the_window_begins_where_the_session_ends(database_url: str) -> None:
    hourly = Desk(make_governance(database_url))
    clock(hourly).at_us -= clock(hourly).at_us % 14_400_000_000
    hourly.submit()
    four = make_governance(database_url, policy=POLICY.replace("window: 1h", "window: 4h"), clock=clock(hourly))
    hour_us = 3_600_000_000
    start_us = clock(hourly).at_us
    first = in_force(four, "default", start_us + hour_us - 1).session.window
    second = in_force(four, "default", start_us + hour_us).session.window
    third = in_force(four, "default", start_us + 4 * hour_us).session.window
    assert [(w.start_us - start_us, w.end_us - start_us) for w in (first, second, third)] == [
        (0, hour_us),
        (hour_us, 4 * hour_us),
        (4 * hour_us, 8 * hour_us),
    ]
    hourly.gov.store.close()
    four.store.close()


def test_a_session_keeps_the_policy_it_was_opened_with(database_url: str) -> None:
    first = Desk(make_governance(database_url))
    first.submit()
    strict_policy = POLICY.replace(
        "match: {risk: [low, medium]}, effect: allow", "match: {risk: medium}, effect: allow"
    )
    later = Desk(make_governance(database_url, policy=strict_policy, clock=clock(first)))
    made = later.submit()
    assert later.state(made) == "queued", "the window was opened under the first policy"
    clock(first).pass_s(3600)
    assert isinstance(later.arrive(made), Denied), "and the next one is opened under the new"
    pinned = first.gov.store.read("SELECT policy_hash FROM sessions ORDER BY window_start_us", {})
    assert [row[0] for row in pinned] == [first.gov.policy.hash, later.gov.policy.hash]
    first.gov.store.close()
    later.gov.store.close()


def test_a_stream_named_by_a_message_opens_no_session(desk: Desk) -> None:
    made = desk.submit()
    assert isinstance(desk.arrive(made, stream="made-up"), Admitted)
    assert isinstance(desk.arrive(submission(), stream="made-up"), NotSubmitted)
    assert [row[0] for row in desk.gov.store.read("SELECT stream FROM sessions", {})] == ["default"]


def test_an_action_is_carried_into_the_window_in_which_it_runs(desk: Desk) -> None:
    made = desk.submit()
    first = desk.gov.store.read("SELECT session_id FROM actions", {})[0][0]
    clock(desk).pass_s(3600)
    run = desk.admitted(made)
    assert run.ref.session_id != first
    clock(desk).pass_s(3600)
    desk.finish(run, usage=Usage(cost_micros=9, tokens=1))
    posted = desk.gov.store.read("SELECT scope_id FROM accounts WHERE posted > 0 AND unit = 'cost_micros'", {})
    assert [row[0] for row in posted] == [run.ref.session_id]
    assert audit.verify(desk.gov).problems == ()


def test_a_second_finish_changes_nothing(desk: Desk) -> None:
    run = desk.admitted(desk.submit(cost_micros=500))
    desk.finish(run, usage=Usage(cost_micros=100, tokens=0))
    assert isinstance(desk.finish(run, usage=Usage(cost_micros=400, tokens=0)), Settled)
    assert desk.account("cost_micros")["posted"] == 100


def test_a_zombie_cannot_finish_what_recovery_took_away(desk: Desk) -> None:
    made = desk.submit(cost_micros=500)
    zombie = desk.admitted(made)
    assert child_gone(desk.gov, LEASE.worker_id, LEASE.child, "killed") == [(made.action_id, "queued")]
    assert desk.account("cost_micros") == {"limit": 1_000_000, "posted": 500, "held": 0}
    second = desk.admitted(made)
    assert second.ref.attempt == 2
    assert isinstance(desk.finish(zombie), Fenced)
    assert desk.state(made) == "running"
    desk.finish(second, usage=Usage(cost_micros=5, tokens=0))
    assert desk.account("cost_micros") == {"limit": 1_000_000, "posted": 505, "held": 0}
    assert audit.verify(desk.gov).problems == ()


def test_a_retry_is_another_attempt_of_the_same_action(desk: Desk) -> None:
    made = desk.submit()
    run = desk.admitted(made)
    later = clock(desk).at_us + 30_000_000
    desk.finish(run, AskedToRetry("flaky", later), Usage(cost_micros=10, tokens=1))
    assert desk.state(made) == "queued"
    assert isinstance(desk.arrive(made), Dropped)
    clock(desk).pass_s(30)
    second = desk.admitted(made)
    assert (second.ref.attempt, second.action.command_id) == (2, made.command_id)
    desk.finish(second, Raised("ValueError", "no"))
    assert desk.state(made) == "failed"
    assert desk.account("actions")["posted"] == 2
    assert audit.verify(desk.gov).problems == ()


def test_an_attempt_that_never_started_its_body_costs_nothing(desk: Desk) -> None:
    made = desk.submit(cost_micros=500)
    desk.admitted(made)
    assert not give_back(desk.gov, made.action_id, Lease("worker-1", "another child"), None)
    assert not give_back(desk.gov, made.action_id, LEASE, clock(desk).at_us + 1)
    assert give_back(desk.gov, made.action_id, LEASE, clock(desk).at_us)
    assert not give_back(desk.gov, made.action_id, LEASE, None)
    assert desk.state(made) == "queued"
    assert desk.account("cost_micros") == {"limit": 1_000_000, "posted": 0, "held": 0}
    assert desk.account("actions")["posted"] == 0
    assert audit.verify(desk.gov).problems == ()
