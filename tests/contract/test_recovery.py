"""Recovery reclaims what belongs to the dead, and nothing that belongs to the living."""

from governance.core.actions import Lease
from governance.operations import audit, heartbeat, recover, relay
from governance.operations.admit import Admitted
from governance.operations.finish import Fenced
from tests.support.governed import LEASE, Desk, ManualClock

LEASE_S = 12.0


def clock(desk: Desk) -> ManualClock:
    assert isinstance(desk.gov.clock, ManualClock)
    return desk.gov.clock


def alive(desk: Desk, worker_id: str = LEASE.worker_id) -> None:
    heartbeat.register(desk.gov, worker_id, 1)


def sweep(desk: Desk) -> recover.Swept:
    return recover.sweep(desk.gov, "recovery")


def test_a_silent_worker_is_suspected_then_given_up(desk: Desk) -> None:
    alive(desk)
    made = desk.submit()
    zombie = desk.admitted(made)
    clock(desk).pass_s(LEASE_S + 1)
    assert sweep(desk) == recover.Swept(1, (), {})
    clock(desk).pass_s(LEASE_S / 2)
    assert sweep(desk) == recover.Swept(0, (LEASE.worker_id,), {"queued": 1})
    assert isinstance(desk.finish(zombie), Fenced)
    assert isinstance(desk.arrive(made), Admitted)
    assert audit.verify(desk.gov).problems == ()


def test_a_worker_that_comes_back_keeps_its_actions(desk: Desk) -> None:
    """After an outage of the database every heartbeat is old; the living beat before the sweep may believe it."""
    alive(desk)
    run = desk.admitted(desk.submit())
    clock(desk).pass_s(600)
    assert sweep(desk).suspected == 1
    heartbeat.beat(desk.gov, LEASE.worker_id)
    clock(desk).pass_s(LEASE_S - 1)
    assert sweep(desk) == recover.Swept(0, (), {})
    assert not isinstance(desk.finish(run), Fenced)


def test_a_slow_action_of_a_beating_worker_is_left_alone(desk: Desk) -> None:
    alive(desk)
    made = desk.submit()
    desk.admitted(made)
    for _ in range(100):
        clock(desk).pass_s(3)
        heartbeat.beat(desk.gov, LEASE.worker_id)
        assert sweep(desk) == recover.Swept(0, (), {})
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
    assert recover.child_lost(desk.gov, made.action_id, LEASE.worker_id, LEASE.child, "killed") == "in_doubt"
    assert desk.state(made) == "in_doubt"
    assert not isinstance(desk.arrive(made), Admitted)


def test_a_report_about_another_child_is_not_believed(desk: Desk) -> None:
    made = desk.submit()
    desk.admitted(made)
    assert recover.child_lost(desk.gov, made.action_id, LEASE.worker_id, "another child", "killed") is None
    assert recover.child_lost(desk.gov, made.action_id, "another worker", LEASE.child, "killed") is None
    assert desk.state(made) == "running"


def test_an_action_that_keeps_killing_its_workers_fails_at_last(desk: Desk) -> None:
    made = desk.submit()
    for attempt in range(1, desk.gov.limits.attempts_max + 1):
        assert desk.admitted(made).ref.attempt == attempt
        recover.child_lost(desk.gov, made.action_id, LEASE.worker_id, LEASE.child, "killed")
    assert desk.state(made) == "failed"
    assert [out.action_id for out in relay.unpublished(desk.gov, 10)] == [made.action_id]
    assert audit.verify(desk.gov).problems == ()


def test_the_hard_time_limit_ends_an_idempotent_action_and_doubts_another(desk: Desk) -> None:
    safe, risky = desk.submit(), desk.submit(idempotent=False)
    for made in (safe, risky):
        desk.admitted(made)
        recover.timed_out(desk.gov, made.action_id, LEASE.worker_id, "the hard time limit passed")
    assert (desk.state(safe), desk.state(risky)) == ("failed", "in_doubt")
    assert relay.unpublished(desk.gov, 10) == []
