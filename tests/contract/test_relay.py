"""The relay publishes what nobody heard of, once for each claim, less and less often."""

from governance.core.policy import Risk
from governance.operations import relay
from governance.operations.answers import Deferred, Denied
from governance.operations.clearing import withdraw
from tests.support.governed import Desk, ManualClock


def clock(desk: Desk) -> ManualClock:
    assert isinstance(desk.gov.clock, ManualClock)
    return desk.gov.clock


def ids(outgoing: list[relay.Outgoing]) -> list[str]:
    return [out.action_id for out in outgoing]


def test_a_message_the_broker_refused_goes_out_at_once_and_once(desk: Desk) -> None:
    made = desk.submit()
    assert ids(relay.unpublished(desk.gov, 10)) == []
    relay.not_published(desk.gov, made.action_id)
    out = relay.unpublished(desk.gov, 10)
    assert [(o.action_id, o.message) for o in out] == [(made.action_id, made.message)]
    assert relay.unpublished(desk.gov, 10) == []


def test_a_silent_message_goes_out_again_with_a_doubling_interval(desk: Desk) -> None:
    made = desk.submit()
    silence_s = desk.gov.limits.relay_s
    waits = []
    for _ in range(4):
        waited = 0.0
        while not (out := relay.silent(desk.gov, 10)):
            clock(desk).pass_s(silence_s)
            waited += silence_s
        assert ids(out) == [made.action_id]
        waits.append(waited / silence_s)
    assert waits == [1, 2, 4, 8]


def test_a_message_that_went_out_many_times_still_goes_out(desk: Desk) -> None:
    made = desk.submit()
    desk.gov.store.run("UPDATE actions SET publish_count = 30", {})
    clock(desk).pass_s(desk.gov.limits.relay_s * 256)
    assert ids(relay.silent(desk.gov, 10)) == [made.action_id]


def test_an_outcome_that_was_overwritten_is_told_again(desk: Desk) -> None:
    made = desk.submit(risk=Risk.CRITICAL)
    desk.arrive(made)
    assert relay.unpublished(desk.gov, 10) == []
    relay.tell_again(desk.gov, made.action_id)
    assert ids(relay.unpublished(desk.gov, 10)) == [made.action_id]
    assert isinstance(desk.arrive(made), Denied)


def test_what_runs_waits_or_ended_is_not_published_again(desk: Desk) -> None:
    running = desk.submit()
    desk.admitted(running)
    done = desk.submit()
    desk.finish(desk.admitted(done))
    clock(desk).pass_s(100_000)
    assert relay.silent(desk.gov, 10) == []
    assert relay.unpublished(desk.gov, 10) == []


def test_a_deferred_action_is_released_when_it_is_due(desk: Desk) -> None:
    desk.finish(desk.admitted(desk.submit(stream="patient")))
    made = desk.submit(stream="patient")
    assert isinstance(desk.arrive(made), Deferred)
    assert relay.release_due(desk.gov, "relay", 10) == []
    clock(desk).pass_s(3600)
    assert ids(relay.release_due(desk.gov, "relay", 10)) == [made.action_id]
    assert relay.release_due(desk.gov, "relay", 10) == []
    desk.finish(desk.admitted(made))
    assert desk.state(made) == "succeeded"


def test_a_long_countdown_is_published_when_it_is_due(desk: Desk) -> None:
    made = desk.submit(not_before_us=clock(desk).at_us + 3_600_000_000)
    relay.not_published(desk.gov, made.action_id)
    assert relay.unpublished(desk.gov, 10) == []
    clock(desk).pass_s(3600)
    assert ids(relay.unpublished(desk.gov, 10)) == [made.action_id]


def test_a_message_from_before_the_clock_was_put_back_is_not_waited_for(desk: Desk) -> None:
    made = desk.submit()
    clock(desk).pass_s(-3600)
    assert ids(relay.silent(desk.gov, 10)) == [made.action_id]
    assert relay.silent(desk.gov, 10) == []


def test_an_echo_is_published_once_its_first_action_has_ended_and_again_until_it_is_told(desk: Desk) -> None:
    first = desk.submit()
    echo = relay.Outgoing("echo-1", '{"task": "x"}')
    relay.keep_echo(desk.gov, echo, first.action_id, published=True)
    clock(desk).pass_s(desk.gov.limits.relay_s * 3)
    assert relay.due_echoes(desk.gov, 10) == []

    relay.keep_echo(desk.gov, echo, first.action_id, published=False)
    desk.finish(desk.admitted(first))
    assert relay.due_echoes(desk.gov, 10) == [echo]
    assert relay.due_echoes(desk.gov, 10) == []
    clock(desk).pass_s(desk.gov.limits.relay_s * 2)
    assert relay.due_echoes(desk.gov, 10) == [echo]
    clock(desk).pass_s(desk.gov.limits.relay_s)
    assert relay.due_echoes(desk.gov, 10) == []
    relay.told_echo(desk.gov, echo.action_id)
    clock(desk).pass_s(100_000)
    assert relay.due_echoes(desk.gov, 10) == []


def test_what_celery_refuses_to_publish_ends(desk: Desk) -> None:
    refused = desk.submit()
    withdraw(desk.gov, refused.action_id, "Celery refused its message: QueueNotFound('nowhere')")
    assert desk.state(refused) == "cancelled"
    denied = desk.submit(risk=Risk.CRITICAL)
    withdraw(desk.gov, denied.action_id, "Celery refused its message")
    assert desk.state(denied) == "denied"
    clock(desk).pass_s(100_000)
    assert relay.silent(desk.gov, 10) == []
    assert relay.unpublished(desk.gov, 10) == []
