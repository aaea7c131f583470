"""Recovery reclaims what belongs to the dead, and nothing that belongs to the living."""

from collections.abc import Callable

from governance.core.actions import Lease
from governance.core.switches import Mode, Scope
from governance.operations import audit, clearing, heartbeat, recover, relay, switches
from governance.operations.answers import Admitted
from governance.operations.finish import Fenced
from tests.support.governed import ANN, LEASE, Desk, ManualClock

LEASE_S = 12.0


def clock(desk: Desk) -> ManualClock:
    assert isinstance(desk.gov.clock, ManualClock)
    return desk.gov.clock


def alive(desk: Desk, worker_id: str = LEASE.worker_id) -> None:
    heartbeat.register(desk.gov, worker_id, 1)


def sweep(desk: Desk, meanwhile: Callable[[], object] = lambda: None) -> recover.Swept:
    """As beat's job does it: whoever is suspected is watched for a while, in which `meanwhile` happens."""
    suspected = recover.suspects(desk.gov)
    if suspected:
        clock(desk).pass_s(recover.watch_s(desk.gov))
        meanwhile()
    return recover.sweep(desk.gov, "recovery", suspected)


def test_a_silent_worker_is_suspected_then_given_up(desk: Desk) -> None:
    alive(desk)
    made = desk.submit()
    zombie = desk.admitted(made)
    clock(desk).pass_s(LEASE_S - 1)
    assert sweep(desk) == recover.Swept(1, (), {})
    clock(desk).pass_s(2)
    assert list(recover.suspects(desk.gov)) == [LEASE.worker_id]
    assert recover.sweep(desk.gov, "recovery", {}) == recover.Swept(1, (), {}), "nobody has watched it"
    assert sweep(desk) == recover.Swept(1, (LEASE.worker_id,), {"queued": 1})
    assert isinstance(desk.finish(zombie), Fenced)
    assert isinstance(desk.arrive(made), Admitted)
    assert audit.verify(desk.gov).problems == ()


def test_a_worker_that_comes_back_keeps_its_actions(desk: Desk) -> None:
    """After an outage of the database every heartbeat is old; the living beat before the sweep may believe it."""
    alive(desk)
    run = desk.admitted(desk.submit())
    clock(desk).pass_s(600)
    assert list(recover.suspects(desk.gov)) == [LEASE.worker_id]
    # Away again, and back: what an earlier sweep suspected counts for nothing.
    clock(desk).pass_s(600)
    assert sweep(desk, meanwhile=lambda: heartbeat.beat(desk.gov, LEASE.worker_id)) == recover.Swept(1, (), {})
    assert not isinstance(desk.finish(run), Fenced)


def test_a_slow_action_of_a_beating_worker_is_left_alone(desk: Desk) -> None:
    alive(desk)
    made = desk.submit()
    desk.admitted(made)
    for _ in range(100):
        clock(desk).pass_s(3)
        heartbeat.beat(desk.gov, LEASE.worker_id)
        assert sweep(desk) == recover.Swept(1, (), {})
    assert desk.state(made) == "running"


def test_only_the_lost_workers_actions_are_reclaimed(desk: Desk) -> None:
    alive(desk)
    alive(desk, "worker-2")
    mine, theirs = desk.submit(), desk.submit()
    desk.admitted(mine)
    desk.arrive(theirs, lease=Lease("worker-2", "c"))
    heartbeat.goodbye(desk.gov, LEASE.worker_id)
    assert sweep(desk).reclaimed == {"queued": 1}
    assert (desk.state(mine), desk.state(theirs)) == ("queued", "running")


def test_a_sweep_goes_on_to_the_end(desk: Desk) -> None:
    alive(desk)
    for _ in range(450):
        desk.admitted(desk.submit(cost_micros=0, tokens=0))
    heartbeat.goodbye(desk.gov, LEASE.worker_id)
    assert sweep(desk).reclaimed == {"queued": 450}
    assert desk.account("actions")["held"] == 0


def test_what_is_not_idempotent_is_in_doubt_and_does_not_run_again(desk: Desk) -> None:
    made = desk.submit(idempotent=False)
    desk.admitted(made)
    assert recover.child_gone(desk.gov, LEASE.worker_id, LEASE.child, "killed") == [(made.action_id, "in_doubt")]
    assert desk.state(made) == "in_doubt"
    assert not isinstance(desk.arrive(made), Admitted)


def test_what_a_kill_switch_covers_does_not_run_again_also_when_the_switch_is_released_at_once(desk: Desk) -> None:
    alive(desk)
    made = desk.submit(stream="small")
    desk.admitted(made)
    stop = switches.engage(desk.gov, Scope.STREAM, "small", mode=Mode.KILL, reason="it went astray", by=ANN).switch
    heartbeat.goodbye(desk.gov, LEASE.worker_id)
    assert sweep(desk).reclaimed == {"cancelled": 1}
    clearing.release(desk.gov, stop.id, reason="mended", by=ANN)
    assert desk.state(made) == "cancelled"
    assert desk.account("actions", "small")["held"] == 0
    assert audit.verify(desk.gov).problems == ()


def test_a_report_about_another_child_is_not_believed(desk: Desk) -> None:
    made = desk.submit()
    desk.admitted(made)
    assert recover.child_gone(desk.gov, LEASE.worker_id, "another child", "killed") == []
    assert recover.child_gone(desk.gov, "another worker", LEASE.child, "killed") == []
    assert desk.state(made) == "running"


def test_everything_that_ran_in_a_dead_child_goes_with_it(desk: Desk) -> None:
    outer, inner = desk.submit(), desk.submit(can_wait=False)
    desk.admitted(outer)
    desk.admitted(inner)
    gone = recover.child_gone(desk.gov, LEASE.worker_id, LEASE.child, "killed")
    assert sorted(gone) == sorted([(outer.action_id, "queued"), (inner.action_id, "failed")])
    assert audit.verify(desk.gov).problems == ()


def test_a_dead_child_is_found_among_any_number_of_others(desk: Desk) -> None:
    for number in range(250):
        desk.arrive(desk.submit(cost_micros=0, tokens=0), lease=Lease(LEASE.worker_id, f"other-{number}"))
    made = desk.submit()
    desk.admitted(made)
    assert recover.child_gone(desk.gov, LEASE.worker_id, LEASE.child, "killed") == [(made.action_id, "queued")]


def test_a_direct_call_is_never_published(desk: Desk) -> None:
    forsaken, lost = desk.submit(can_wait=False), desk.submit(can_wait=False)
    desk.admitted(lost)
    recover.child_gone(desk.gov, LEASE.worker_id, LEASE.child, "killed")
    assert sweep(desk).reclaimed == {}
    clock(desk).pass_s(3 * LEASE_S)
    assert sweep(desk).reclaimed == {"denied": 1}
    assert (desk.state(forsaken), desk.state(lost)) == ("denied", "failed")
    clock(desk).pass_s(100_000)
    assert relay.silent(desk.gov, 10) == relay.unpublished(desk.gov, 10) == []
    assert audit.verify(desk.gov).problems == ()


def test_an_owner_that_never_registered_is_given_up(desk: Desk) -> None:
    made = desk.submit()
    desk.arrive(made, lease=Lease("unheard-of", "c"))
    clock(desk).pass_s(2 * LEASE_S)
    assert sweep(desk).reclaimed == {}, "it may be about to say that it lives"
    clock(desk).pass_s(1)
    assert sweep(desk).reclaimed == {"queued": 1}


def test_workers_that_were_silent_for_a_day_are_forgotten_unless_they_own_something(desk: Desk) -> None:
    """Months of deploys leave a row each."""
    for worker_id in ("killed", "stopped", LEASE.worker_id):
        alive(desk, worker_id)
    heartbeat.goodbye(desk.gov, "stopped")
    made = desk.submit()
    desk.admitted(made)
    clock(desk).pass_s(24 * 3600)
    alive(desk, "young")

    def known() -> list[str]:
        return [row[0] for row in desk.gov.store.read("SELECT id FROM workers ORDER BY started_us, id", {})]

    assert known() == ["killed", "stopped", LEASE.worker_id, "young"]
    clock(desk).pass_s(1)
    alive(desk, "new")
    assert known() == [LEASE.worker_id, "young", "new"]
    assert sweep(desk).lost == (LEASE.worker_id,)
    assert desk.state(made) == "queued"


def test_a_beat_without_a_row_says_so(desk: Desk) -> None:
    assert not heartbeat.beat(desk.gov, LEASE.worker_id)
    alive(desk)
    assert heartbeat.beat(desk.gov, LEASE.worker_id)


def test_an_attempt_whose_body_is_over_is_given_up_by_its_own_worker(desk: Desk) -> None:
    """Whatever kept its end from being written: a defect, a full disk, a time limit at the wrong moment."""
    alive(desk)
    left, present = desk.submit(), desk.submit()
    desk.admitted(left)
    clock(desk).pass_s(60)
    began_us = clock(desk).now_us()
    desk.arrive(present, lease=Lease(LEASE.worker_id, "child-2"))

    def bodiless(children: dict[str, int | None]) -> list[str]:
        settled_us = clock(desk).now_us() - 12_000_000
        return recover.bodiless(desk.gov, LEASE.worker_id, children, settled_us)

    clock(desk).pass_s(5)
    assert bodiless({"child-2": began_us}) == [], "a child that nobody speaks of may be anything"
    assert bodiless({"child-1": None, "child-2": began_us}) == [left.action_id]
    clock(desk).pass_s(60)
    assert bodiless({"child-1": None, "child-2": began_us}) == [], "the present request's attempt has its body"
    assert bodiless({"child-2": clock(desk).now_us()}) == [present.action_id], "a later request: its body is over"
    assert audit.verify(desk.gov).problems == ()


def test_an_action_that_keeps_killing_its_workers_fails_at_last(desk: Desk) -> None:
    made = desk.submit()
    for attempt in range(1, desk.gov.limits.attempts_max + 1):
        assert desk.admitted(made).ref.attempt == attempt
        recover.child_gone(desk.gov, LEASE.worker_id, LEASE.child, "killed")
    assert desk.state(made) == "failed"
    assert [out.action_id for out in relay.unpublished(desk.gov, 10)] == [made.action_id]
    assert audit.verify(desk.gov).problems == ()


def test_the_hard_time_limit_ends_an_idempotent_action_and_doubts_another(desk: Desk) -> None:
    safe, risky = desk.submit(), desk.submit(idempotent=False)
    for made in (safe, risky):
        desk.admitted(made)
        recover.ended_by_force(
            desk.gov, made.action_id, LEASE.worker_id, LEASE.child, "TimeLimitExceeded", "the hard time limit passed"
        )
    assert (desk.state(safe), desk.state(risky)) == ("failed", "in_doubt")
    assert relay.unpublished(desk.gov, 10) == []


def test_a_worker_that_died_before_the_clock_was_put_back_is_given_up_as_soon(desk: Desk) -> None:
    alive(desk)
    made = desk.submit()
    desk.admitted(made)
    clock(desk).pass_s(LEASE_S + 1)
    # Its last heartbeat is an hour ahead now.
    clock(desk).pass_s(-3600)
    assert sweep(desk) == recover.Swept(1, (LEASE.worker_id,), {"queued": 1})
    assert audit.verify(desk.gov).problems == ()


def test_a_living_worker_is_not_given_up_when_the_clock_is_put_back(desk: Desk) -> None:
    alive(desk)
    run = desk.admitted(desk.submit())
    clock(desk).pass_s(-3600)
    assert sweep(desk, meanwhile=lambda: heartbeat.beat(desk.gov, LEASE.worker_id)) == recover.Swept(1, (), {})
    assert not isinstance(desk.finish(run), Fenced)
